"""`posegate models`: what the gateway serves, and the commands that bring models into the repository."""

from __future__ import annotations

import asyncio
import sys

import typer
from rich.console import Console
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.cli.connection import GatewayCommand, Target, gateway_of
from service.models.cli import app as repository_commands

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(repository_commands)

_TIMEOUT_S = 10.0
_COLUMNS = (
    "model", "version", "family", "skeleton", "inputs", "precision", "licence", "pipeline", "ready",
)  # fmt: skip


@app.command("list", cls=GatewayCommand)
def command(context: typer.Context) -> None:
    """List what the gateway serves, with licences."""
    asyncio.run(list_models(gateway_of(context)))


async def list_models(gateway: Target) -> None:
    """Print every model in a table.

    Raises:
        grpc.aio.AioRpcError: the call failed.
    """
    table = Table()
    for title in _COLUMNS:
        table.add_column(title, overflow="fold")  # a licence must be readable in full
    described: dict[str, str] = {}
    async with gateway.connect() as channel:
        stub = PoseServiceStub(channel)
        token = ""
        while True:
            page = await stub.ListModels(pb.ListModelsRequest(page_token=token), timeout=_TIMEOUT_S)
            for model in page.models:
                if model.description:
                    described[model.name] = model.description
                table.add_row(
                    model.name + (" (default)" if model.default else ""),
                    model.version,
                    model.family,
                    f"{model.skeleton} ({model.keypoint_count})" if model.family else "",
                    _inputs(model),
                    model.precision,
                    model.licence,
                    _pipeline(model),
                    "yes" if model.ready else "no",
                )
            token = page.next_page_token
            if not token:
                break
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False)
    console.print(table)
    for name, text in described.items():
        console.print(f"{name}: {text}")


def _inputs(model: pb.Model) -> str:
    """The largest input, and how many others there are: a row for each of forty hides the licences."""
    sizes = sorted(model.input_sizes, key=lambda size: size.width * size.height, reverse=True)
    if not sizes:
        return ""
    largest = f"{sizes[0].width}×{sizes[0].height}"
    return f"{largest} and {len(sizes) - 1} smaller" if len(sizes) > 1 else largest


def _pipeline(model: pb.Model) -> str:
    """Whether every model that answers for this one is free of the AGPL, and else through which."""
    if not model.pipeline_licences:
        return ""
    behind = f" ({model.detector})" if model.detector else ""
    if any(licence.upper().startswith("AGPL") for licence in model.pipeline_licences):
        return f"AGPL{behind}"
    unknown = "unknown" in model.pipeline_licences
    return f"unknown{behind}" if unknown else f"free of AGPL{behind}"
