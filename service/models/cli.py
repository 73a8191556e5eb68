"""The commands that bring models into the repository, assembled; `posegate models` includes them."""

from __future__ import annotations

import typer

from service.models.commands.add import add
from service.models.commands.build import build
from service.models.commands.fetch import fetch_command
from service.models.commands.fill import fill
from service.models.commands.verify import verify

app = typer.Typer(no_args_is_help=True, add_completion=False)

app.command()(add)
app.command("fetch")(fetch_command)
app.command()(fill)
app.command()(build)
app.command()(verify)
