"""Gateways with accounts, each a process of its own, on one database; without Triton, since to draw people on
a blank canvas needs none."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc

from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from scripts.ports import free_address
from service.accounts.administration import Administration
from service.store.address import parse
from service.store.database import Database
from service.store.tenants import TenantStore

PLANS = """
[test]
calls_per_month = 300
max_batch_size = 2
max_skeletons = 2
max_video_seconds = 2
own_models = false
calls_at_once = "unlimited"
streams_at_once = 1
calls_per_second = "unlimited"
burst = 1

[other]
calls_per_month = 7
max_batch_size = 2
max_skeletons = 0
max_video_seconds = 2
own_models = true
calls_at_once = 2
streams_at_once = 1
calls_per_second = 1000
burst = 1000
"""
DRAWING = pb.RenderPosesRequest(
    canvas=pb.Canvas(size=types_pb2.ImageSize(width=8, height=8)), skeleton="coco_17"
)


@dataclass(frozen=True)
class Process:
    """A gateway.

    Attributes:
        address: where it listens.
        process: it.
    """

    address: str
    process: asyncio.subprocess.Process

    def channel(self) -> grpc.aio.Channel:
        """A channel that never retries."""
        return grpc.aio.insecure_channel(self.address, options=[("grpc.enable_retries", 0)])


@asynccontextmanager
async def gateways(count: int, url: str, folder: Path, **settings: str) -> AsyncIterator[Sequence[Process]]:
    """So many gateways, ready for calls; ended by SIGTERM where they still run."""
    plans = folder / "plans.toml"
    plans.write_text(PLANS)
    started: list[Process] = []
    try:
        for _ in range(count):
            address = free_address()
            environment = {
                **os.environ,
                "POSEGATE_LISTEN": address,
                "POSEGATE_AUTH": "keys",
                "POSEGATE_AUTH_REFRESH_S": "0.5",
                "POSEGATE_USAGE_WRITE_S": "1",
                "POSEGATE_PLANS": str(plans),
                "POSEGATE_DATABASE_URL": url,
                "POSEGATE_DATABASE_TIMEOUT_S": "20",
                "POSEGATE_TRITON_URL": "127.0.0.1:9",
                "POSEGATE_DRAIN_DELAY_S": "0",
                "POSEGATE_LOG_LEVEL": "warning",
                **settings,
            }
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "service", "serve", env=environment, stdout=asyncio.subprocess.DEVNULL
            )
            started.append(Process(address, process))
        for one in started:
            async with one.channel() as channel:
                await asyncio.wait_for(channel.channel_ready(), 300)
        yield started
    finally:
        for one in started:
            if one.process.returncode is None:
                one.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*(asyncio.wait_for(one.process.wait(), 120) for one in started))


@asynccontextmanager
async def administration(url: str) -> AsyncIterator[tuple[Administration, Database]]:
    """What the commands of operators work with."""
    database = Database(parse(url), connections=2, timeout_s=60)
    try:
        yield Administration(TenantStore(database), ["test", "other"], operator="tests"), database
    finally:
        await database.close()


async def new_key(url: str, tenant: str = "acme", plan: str = "test") -> str:
    """A key of a new tenant."""
    async with administration(url) as (desk, _):
        await desk.create_tenant(tenant, plan)
        return (await desk.create_key(tenant, "", None)).text


async def draw(channel: grpc.aio.Channel, key: str) -> str:
    """Make a call that counts: OK, or the code and message it failed with."""
    stub = SkeletonServiceStub(channel)
    try:
        await stub.RenderPoses(DRAWING, metadata=(("x-api-key", key),), timeout=120)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


def month() -> str:
    """The month at hand."""
    return datetime.now(UTC).strftime("%Y-%m")
