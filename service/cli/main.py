"""Assembles `posegate`: the name of every command, one line of help, and the module that holds it.

A command is a module with a Typer application `app`, of one command or a group. It is imported once the
command is called, so that `posegate --help` and the commands themselves start fast. A new command is a line
in `COMMANDS`.
"""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS = (
    ("up", "service.cli.up", "Run the bundled Triton and the gateway, and watch both."),
    ("serve", "service.cli.serve", "Run the gateway against the Triton at POSEGATE_TRITON_URL."),
    ("web", "service.cli.web", "Run the HTTP door in front of the gateway at POSEGATE_WEB_GATEWAY."),
    ("detect", "service.cli.detect", "Find the people in images."),
    ("measure", "service.cli.measure", "Measure joint angles in images."),
    ("video", "service.cli.video", "Find and track the people in a video."),
    ("evaluate", "service.cli.evaluate", "Measure the accuracy of a model on annotated images."),
    ("export", "service.cli.export", "Write detected people as files for training tools."),
    ("skeletons", "service.cli.skeletons", "Skeleton templates: shipped and your own."),
    ("models", "service.cli.models", "List models; bring models into the repository."),
    ("tenants", "service.cli.tenants", "Tenants and their plans, on the database."),
    ("keys", "service.cli.keys", "API keys of tenants, on the database."),
    (
        "usage",
        "service.cli.usage",
        "Show calls, images, seconds of video and failures by tenant, day and RPC.",
    ),
    ("account", "service.cli.account", "Print what your API key may do, and what is left of the month."),
    ("health", "service.cli.health", "Ask whether the gateway can answer."),
    ("info", "service.cli.info", "Print build, limits and models of the gateway."),
)


class DeferredCommand(TyperCommand):
    """A command that is imported when it is called; until then a name and a line of help.

    Args:
        name: of the command.
        module: whose `app` it is.
        line: of help.
    """

    def __init__(self, name: str, module: str, line: str) -> None:
        super().__init__(name, help=line)
        self.module = module

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the command itself."""
        app = importlib.import_module(self.module).app
        return typer.main.get_command(app).make_context(info_name, args, parent=parent, **extra)


class _Commands(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for entry in COMMANDS:
            self.add_command(DeferredCommand(*entry))


app = typer.Typer(
    name="posegate", cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"posegate {version('posegate')}")
        raise typer.Exit


@app.callback()
def posegate(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Human pose estimation as a gRPC microservice on NVIDIA Triton."""
