"""`posegate health`: whether the gateway can answer."""

from __future__ import annotations

import asyncio
from typing import Annotated

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.cli.connection import GatewayCommand, Target, gateway_of
from service.cli.failures import FAILED

app = typer.Typer(add_completion=False)

_TIMEOUT_S = 10.0


@app.command(cls=GatewayCommand)
def command(
    context: typer.Context,
    service: Annotated[str, typer.Option(help="Service name; empty for the gateway as a whole.")] = "",
) -> None:
    """Ask whether the gateway can answer. Exit code 1 if it is not SERVING."""
    status = asyncio.run(health(gateway_of(context), service))
    print(status)
    if status != "SERVING":
        raise typer.Exit(FAILED)


async def health(gateway: Target, service: str = "") -> str:
    """What the health service says: SERVING, NOT_SERVING, or why the call failed."""
    try:
        async with gateway.connect() as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]  # not in its stubs
                health_pb2.HealthCheckRequest(service=service), timeout=_TIMEOUT_S
            )
    except grpc.aio.AioRpcError as error:
        return gateway.explain(error)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
