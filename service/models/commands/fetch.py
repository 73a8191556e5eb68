"""`posegate models fetch`: official checkpoints, downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from service.models.commands.options import WEIGHTS, print_notice
from service.models.errors import FetchError
from service.models.fetch import EXPORTED, OFFICIAL, add_options, fetch, served_name
from service.models.one_line import errors_on_one_line


def fetch_command(
    names: Annotated[list[str], typer.Argument(help=f"Of {', '.join([*OFFICIAL, *EXPORTED])}.")],
    to: Annotated[Path, typer.Option(help="Where the checkpoints go.")] = WEIGHTS,
    sha256: Annotated[str, typer.Option(help="What the file must have; for one name.")] = "",
) -> None:
    """Download official checkpoints; add them with `posegate models add`."""
    with errors_on_one_line():
        if sha256 and len(names) > 1:
            raise FetchError("--sha256 fits one name only; fetch them one by one")
        for name in names:
            with _progress(name) as show:
                path, digest = fetch(name, to, sha256=sha256 or None, progress=show)
            compared = sha256 or OFFICIAL.get(name.replace("_", "-"))
            note = "as expected" if compared else "not compared, none is known here; see --sha256"
            typer.echo(f"{path}: sha256 {digest} ({note})")
            typer.echo(f"Next: posegate models add {path} --name {served_name(name)} {add_options(name)}")
            if path.suffix == ".pt":
                print_notice("AGPL-3.0")


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
