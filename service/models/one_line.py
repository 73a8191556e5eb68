"""Failures of the commands of `posegate models`: one line on stderr and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from service.models.errors import ModelError


@contextmanager
def errors_on_one_line() -> Iterator[None]:
    """Turns ModelError and a missing onnx into one line on stderr and exit code 1."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name != "onnx":
            raise
        typer.echo("error: this needs the package onnx; run: pip install 'posegate[models]'", err=True)
        raise typer.Exit(1) from exc
    except ModelError as exc:
        typer.echo(f"error: {' '.join(str(exc).split())}", err=True)
        raise typer.Exit(1) from exc
