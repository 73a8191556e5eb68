"""`posegate info`: build, limits and state of the gateway."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping

import typer
from google.protobuf.duration_pb2 import Duration
from rich.console import Console
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.cli.connection import GatewayCommand, Target, gateway_of

app = typer.Typer(add_completion=False)

_TIMEOUT_S = 10.0


@app.command(cls=GatewayCommand)
def command(context: typer.Context) -> None:
    """Print build, limits and models of the gateway."""
    asyncio.run(show(gateway_of(context)))


async def show(gateway: Target) -> None:
    """Print what GetServerInfo says, a row for each limit.

    Raises:
        grpc.aio.AioRpcError: the call failed.
    """
    async with gateway.connect() as channel:
        info = await PoseServiceStub(channel).GetServerInfo(pb.GetServerInfoRequest(), timeout=_TIMEOUT_S)
    print_rows(
        {
            "address": gateway.address,
            "version": info.version,
            "commit": info.commit or "not known",
            "Triton": info.triton_version or "cannot be reached",
            "default model": info.default_model,
            "models ready": ", ".join(info.models_ready) or "none",
            **limits_of(info.limits),
        }
    )


def limits_of(limits: pb.Limits) -> dict[str, str]:
    """Every limit by its name, as text."""
    return {field.name: _limit(field.name, getattr(limits, field.name)) for field in limits.DESCRIPTOR.fields}


def print_rows(rows: Mapping[str, str]) -> None:
    """Print names and values as a table."""
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    Console(width=None if sys.stdout.isatty() else 140, highlight=False, markup=False).print(table)


def _limit(name: str, value: bool | float | Duration | Iterable[str]) -> str:
    """A limit as text; 0 or unset is no limit, but of `max_skeletons` and hosts that there may be none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Duration):
        seconds = value.ToNanoseconds() / 1e9
        return f"{seconds:g} s" if seconds else "unlimited"
    if isinstance(value, int | float):
        return f"{value:,.15g}" if value else "none" if name == "max_skeletons" else "unlimited"
    return ", ".join(value) or "none"
