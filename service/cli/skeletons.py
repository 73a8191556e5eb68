"""`posegate skeletons list|show|create|update|delete`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from service.cli.connection import GatewayCommand, Target, gateway_of
from service.cli.failures import CommandError
from service.core.skeleton.template import Skeleton
from service.errors import InvalidRequest
from service.servicers.requests.skeletons import read_skeleton
from service.servicers.responses.skeletons import skeleton_message
from service.skeletons.format import parse_skeleton, skeleton_data

if TYPE_CHECKING:
    from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceAsyncStub

app = typer.Typer(no_args_is_help=True, add_completion=False)

_TIMEOUT_S = 30.0

Name = Annotated[str, typer.Argument(help="Name of the skeleton.")]
File = Annotated[Path, typer.Argument(help="JSON file in the form that `show` prints.")]


class BadFile(CommandError):
    """The file does not hold a skeleton; one problem a line."""


@app.command("list", cls=GatewayCommand)
def list_command(context: typer.Context) -> None:
    """List the skeletons that a request can name."""
    asyncio.run(list_skeletons(gateway_of(context)))


@app.command("show", cls=GatewayCommand)
def show_command(context: typer.Context, name: Name) -> None:
    """Print a skeleton as JSON, in the form that `create` takes."""
    asyncio.run(show(gateway_of(context), name))


@app.command("create", cls=GatewayCommand)
def create_command(context: typer.Context, file: File) -> None:
    """Create a skeleton of your own. Every problem of the file is listed at once."""
    asyncio.run(create(gateway_of(context), file))


@app.command("update", cls=GatewayCommand)
def update_command(
    context: typer.Context,
    file: File,
    etag: Annotated[str, typer.Option(help="Replace this version only.")] = "",
) -> None:
    """Replace the skeleton of your own that has the file's name."""
    asyncio.run(update(gateway_of(context), file, etag))


@app.command("delete", cls=GatewayCommand)
def delete_command(
    context: typer.Context,
    name: Name,
    etag: Annotated[str, typer.Option(help="Delete this version only.")] = "",
) -> None:
    """Delete a skeleton of your own."""
    asyncio.run(delete(gateway_of(context), name, etag))


async def list_skeletons(gateway: Target) -> None:
    """Print every skeleton in a table.

    Raises:
        grpc.aio.AioRpcError: the call failed.
    """
    table = Table(Column("skeleton", no_wrap=True), "title", "keypoints", "edges", "origin", "changed")
    async with _service(gateway) as service:
        token = ""
        while True:
            page = await service.ListSkeletons(pb.ListSkeletonsRequest(page_token=token), timeout=_TIMEOUT_S)
            for skeleton in page.skeletons:
                changed = skeleton.update_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")
                table.add_row(
                    skeleton.name,
                    skeleton.title,
                    str(len(skeleton.keypoints)),
                    str(len(skeleton.edges)),
                    "shipped" if skeleton.shipped else "custom",
                    changed if skeleton.HasField("update_time") else "",
                )
            token = page.next_page_token
            if not token:
                break
    Console(markup=False, emoji=False).print(table)  # a name may look like markup


async def show(gateway: Target, name: str) -> None:
    """Print one skeleton as JSON that `create` takes.

    Raises:
        grpc.aio.AioRpcError: there is none, or the call failed.
    """
    async with _service(gateway) as service:
        answer = await service.GetSkeleton(pb.GetSkeletonRequest(name=name), timeout=_TIMEOUT_S)
    print(json.dumps(skeleton_data(read_skeleton(answer.skeleton)), ensure_ascii=False, indent=2))


async def create(gateway: Target, file: Path) -> None:
    """Create the skeleton that a file holds.

    Raises:
        BadFile: it does not hold a skeleton.
        grpc.aio.AioRpcError: the call failed.
    """
    message = skeleton_message(read_file(file))
    async with _service(gateway) as service:
        answer = await service.CreateSkeleton(pb.CreateSkeletonRequest(skeleton=message), timeout=_TIMEOUT_S)
    print(f"{answer.skeleton.name}: {len(answer.skeleton.keypoints)} keypoints, etag {answer.skeleton.etag}")


async def update(gateway: Target, file: Path, etag: str) -> None:
    """Replace the skeleton that has the name of the one in a file.

    Raises:
        BadFile: it does not hold a skeleton.
        grpc.aio.AioRpcError: there is none, it has changed since, or the call failed.
    """
    message = skeleton_message(read_file(file))
    message.etag = etag
    async with _service(gateway) as service:
        answer = await service.UpdateSkeleton(pb.UpdateSkeletonRequest(skeleton=message), timeout=_TIMEOUT_S)
    print(f"{answer.skeleton.name}: {len(answer.skeleton.keypoints)} keypoints, etag {answer.skeleton.etag}")


async def delete(gateway: Target, name: str, etag: str) -> None:
    """Remove a skeleton.

    Raises:
        grpc.aio.AioRpcError: there is none, or the call failed.
    """
    async with _service(gateway) as service:
        await service.DeleteSkeleton(pb.DeleteSkeletonRequest(name=name, etag=etag), timeout=_TIMEOUT_S)


def read_file(file: Path) -> Skeleton:
    """The skeleton in a file, in the form of the shipped ones.

    Raises:
        BadFile: it does not hold one; with every problem.
    """
    try:
        data = json.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise BadFile(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{file} is not JSON: {error}") from error
    try:
        skeleton = parse_skeleton(data)
    except InvalidRequest as error:
        problems = [f"  {item.field or 'the file'} {item.description}" for item in error.violations]
        raise BadFile("\n".join([f"{file} does not hold a skeleton:", *problems])) from error
    if skeleton.instances or any(edge.drawing_only for edge in skeleton.edges):
        raise BadFile(
            f"{file}: `instances` and `drawing_only` are for templates that ship, not for custom ones."
        )
    return skeleton


@asynccontextmanager
async def _service(gateway: Target) -> AsyncIterator[SkeletonServiceAsyncStub]:
    async with gateway.connect() as channel:
        yield SkeletonServiceStub(channel)
