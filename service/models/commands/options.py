"""Shared by the commands: folders and their options, the notice on licences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

REPOSITORY = Path("model_repository")
WEIGHTS = Path(".posegate/weights")

Repository = Annotated[Path, typer.Option("--repository", help="The folder that holds cpu/ and gpu/.")]

_AGPL_NOTICE = (
    "Note: these weights are under {licence} (Ultralytics). A network service that uses them must offer its "
    "users the complete source, or its operator must hold an Ultralytics Enterprise licence."
)


def print_notice(licence: str) -> None:
    """Print what AGPL weights ask of a network service; nothing for other licences."""
    if licence.upper().startswith("AGPL"):
        typer.echo(_AGPL_NOTICE.format(licence=licence))
