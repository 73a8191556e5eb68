"""`posegate models verify`: TensorRT plans against this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.models.commands.options import REPOSITORY


def verify(
    repository: Annotated[Path, typer.Argument(help="The folder that Triton serves.")] = REPOSITORY / "gpu",
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Exit with 0 whatever is found.")
    ] = False,
) -> None:
    """Check plans against this machine's GPU and TensorRT, before Triton starts."""
    from service.models.verify import main

    raise typer.Exit(main([str(repository), *(["--report-only"] if report_only else [])]))
