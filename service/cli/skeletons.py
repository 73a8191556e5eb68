"""`posegate skeletons list|show|create|update|delete`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from service.cli.connection import Target
from service.core.skeleton.json_format import parse_skeleton, skeleton_data
from service.core.skeleton.template import Skeleton
from service.errors import InvalidRequest
from service.servicers.requests.skeletons import read_skeleton
from service.servicers.responses.skeletons import skeleton_message

if TYPE_CHECKING:
    from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceAsyncStub

_TIMEOUT_S = 30.0


class BadFile(Exception):
    """The file does not hold a skeleton; one problem a line."""


async def list_skeletons(gateway: Target) -> None:
    """Print every skeleton in a table.

    Raises:
        grpc.aio.AioRpcError: the gateway did not answer.
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
    Console(markup=False, emoji=False).print(table)  # names are anyone's


async def show(gateway: Target, name: str) -> None:
    """Print one skeleton as JSON that `create` takes.

    Raises:
        grpc.aio.AioRpcError: there is none, or the gateway did not answer.
    """
    async with _service(gateway) as service:
        answer = await service.GetSkeleton(pb.GetSkeletonRequest(name=name), timeout=_TIMEOUT_S)
    print(json.dumps(skeleton_data(read_skeleton(answer.skeleton)), ensure_ascii=False, indent=2))


async def create(gateway: Target, file: Path) -> None:
    """Keep the skeleton in a file.

    Raises:
        BadFile: it does not hold a skeleton.
        grpc.aio.AioRpcError: the gateway refused it, or did not answer.
    """
    message = skeleton_message(read_file(file))
    async with _service(gateway) as service:
        answer = await service.CreateSkeleton(pb.CreateSkeletonRequest(skeleton=message), timeout=_TIMEOUT_S)
    print(f"{answer.skeleton.name}: {len(answer.skeleton.keypoints)} keypoints, etag {answer.skeleton.etag}")


async def update(gateway: Target, file: Path, etag: str) -> None:
    """Replace the skeleton that has the name of the one in a file.

    Raises:
        BadFile: it does not hold a skeleton.
        grpc.aio.AioRpcError: there is none, it was changed meanwhile, or the gateway did not answer.
    """
    message = skeleton_message(read_file(file))
    message.etag = etag
    async with _service(gateway) as service:
        answer = await service.UpdateSkeleton(pb.UpdateSkeletonRequest(skeleton=message), timeout=_TIMEOUT_S)
    print(f"{answer.skeleton.name}: {len(answer.skeleton.keypoints)} keypoints, etag {answer.skeleton.etag}")


async def delete(gateway: Target, name: str, etag: str) -> None:
    """Remove a skeleton.

    Raises:
        grpc.aio.AioRpcError: there is none, or the gateway did not answer.
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
        raise BadFile(f"{file}: `instances` and `drawing_only` are for shipped skeletons only.")
    return skeleton


@asynccontextmanager
async def _service(gateway: Target) -> AsyncIterator[SkeletonServiceAsyncStub]:
    async with gateway.connect() as channel:
        yield SkeletonServiceStub(channel)
