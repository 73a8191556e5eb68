"""`posegate models fill`: the graph of a model that the repository describes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.models.commands.options import REPOSITORY, WEIGHTS, Repository, print_notice
from service.models.errors import RepositoryError
from service.models.one_line import errors_on_one_line


def fill(
    weights: Annotated[
        Path, typer.Argument(help="The checkpoint; or the folder of MediaPipe's networks.")
    ] = WEIGHTS / "yolo11n-pose.pt",
    name: Annotated[str, typer.Option(help="A model whose config.pbtxt is there.")] = "yolo11n_pose",
    repository: Repository = REPOSITORY,
) -> None:
    """Write the graph of a model that the repository describes already, unless it is there."""
    with errors_on_one_line():
        if weights.is_dir():  # MediaPipe's networks, which are several files and are served as they are
            written = _fill_mediapipe(repository, weights, name)
            typer.echo(f"{name}: {'written' if written else 'up to date'}")
            return
        from service.models.repository import fill as fill_model

        written = fill_model(repository, weights, name)
        typer.echo(f"{name}: {'written' if written else 'up to date'}")
        if written:
            print_notice("AGPL-3.0")


def _fill_mediapipe(repository: Path, weights: Path, name: str) -> bool:
    from service.models import mediapipe

    try:
        return mediapipe.fill(repository, weights, name)
    except mediapipe.MediapipeError as error:
        raise RepositoryError(str(error)) from error
