"""How the commands of `posegate models` say what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from service.models.errors import ModelError


@contextmanager
def errors_on_one_line() -> Iterator[None]:
    """Errors that the user can do something about: one line on stderr, exit code 1."""
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
