"""`posegate health` and `posegate models list`."""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.cli.connection import Target

_TIMEOUT_S = 10.0


async def health(gateway: Target, service: str = "") -> str:
    """What the health service says: SERVING, NOT_SERVING, or why it could not be asked."""
    try:
        async with gateway.connect() as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]  # not in its stubs
                health_pb2.HealthCheckRequest(service=service), timeout=_TIMEOUT_S
            )
    except grpc.aio.AioRpcError as error:
        return gateway.explain(error)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


async def list_models(gateway: Target) -> None:
    """Print every model in a table.

    Raises:
        grpc.aio.AioRpcError: the gateway did not answer.
    """
    table = Table()
    for title in ("model", "version", "family", "skeleton", "inputs", "precision", "licence", "ready"):
        table.add_column(title, overflow="fold")  # a licence that is cut off is not said
    async with gateway.connect() as channel:
        stub = PoseServiceStub(channel)
        token = ""
        while True:
            page = await stub.ListModels(pb.ListModelsRequest(page_token=token), timeout=_TIMEOUT_S)
            for model in page.models:
                table.add_row(
                    model.name + (" (default)" if model.default else ""),
                    model.version,
                    model.family,
                    f"{model.skeleton} ({model.keypoint_count})" if model.family else "",
                    " ".join(f"{size.width}×{size.height}" for size in model.input_sizes),
                    model.precision,
                    model.licence,
                    "yes" if model.ready else "no",
                )
            token = page.next_page_token
            if not token:
                break
    Console(width=None if sys.stdout.isatty() else 160).print(table)
