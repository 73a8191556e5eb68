"""A flood of wrong API keys at a gateway, from a process of its own, and right keys meanwhile from another.

    python -m scripts.benchmark_flood ADDRESS COUNT    the process that sends the wrong keys

The flood comes from several peers: each connects through a relay in the same process that has a loopback
address of its own. The process has the lowest priority: in earnest it is on other machines, and here it is
not to take the gateway's CPUs. Every fifth of the keys it prints a line, at the end what it was answered, as
JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import psutil

from posegate.v1 import skeleton_service_pb2, types_pb2
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from service.accounts.keys import new_key

DRAWING = skeleton_service_pb2.RenderPosesRequest(
    canvas=skeleton_service_pb2.Canvas(size=types_pb2.ImageSize(width=8, height=8)), skeleton="coco_17"
)
_PEERS = [f"127.0.0.{number}" for number in range(11, 19)]
_AT_ONCE = 64  # calls of each peer
_CALLS = 500  # with a right key, before and after
_PARTS = 5
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Flood:
    """What a flood did.

    Attributes:
        seconds: that it took.
        answers: number of refusals by code.
        queries: that the gateway sent to its database meanwhile.
        rss_mb: memory of the gateway before it and after every fifth of the keys.
        p50_ms, p99_ms: of a right key, by moment: before, meanwhile from another peer and from one of those
            that send wrong keys, after; both peers call at all these moments.
    """

    seconds: float
    answers: Mapping[str, int]
    queries: int
    rss_mb: Sequence[float]
    p50_ms: Mapping[str, float]
    p99_ms: Mapping[str, float]


async def flood(
    address: str, process: psutil.Process, key: str, count: int, queries: Callable[[], int]
) -> Flood:
    """Send wrong keys, and a right one before, meanwhile and after.

    Args:
        address: of the gateway.
        process: of the gateway.
        key: the right one.
        count: of wrong keys.
        queries: that the gateway has sent to its database so far.
    """
    rss: list[float] = []
    async with _channel(address) as other, _relay(address, _PEERS[0]) as relay, _channel(relay) as same:

        async def both(until: Callable[[int], bool]) -> Sequence[list[float]]:
            return await asyncio.gather(_right(other, key, until), _right(same, key, until))

        before, _ = await both(lambda done: done >= _CALLS)
        asked = queries()
        rss.append(process.memory_info().rss / 1e6)
        sender = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __spec__.name, address, str(count), stdout=asyncio.subprocess.PIPE
        )
        assert sender.stdout is not None  # noqa: S101 - it is a pipe
        await sender.stdout.readline()  # its connections are there
        began = time.perf_counter()
        ended = asyncio.create_task(_watch(sender.stdout, process, rss))
        meanwhile, same_peer = await both(lambda done: done > 0 and ended.done())
        answers, at_s = await ended
        await sender.wait()
        asked = queries() - asked
        after, _ = await both(lambda done: done >= _CALLS)
    took = {"before": before, "meanwhile": meanwhile, "same peer": same_peer, "after": after}
    return Flood(
        at_s - began,
        answers,
        asked,
        rss,
        {name: statistics.median(one) for name, one in took.items()},
        {name: sorted(one)[int(0.99 * len(one))] for name, one in took.items()},
    )


async def _right(channel: grpc.aio.Channel, key: str, until: Callable[[int], bool]) -> list[float]:
    """Milliseconds of calls with a right key, one after another."""
    stub = SkeletonServiceStub(channel)
    took: list[float] = []
    while not until(len(took)):
        began = time.perf_counter()
        await stub.RenderPoses(DRAWING, metadata=(("x-api-key", key),), timeout=60)
        took.append((time.perf_counter() - began) * 1e3)
    return took


async def _watch(
    lines: asyncio.StreamReader, process: psutil.Process, rss: list[float]
) -> tuple[Mapping[str, int], float]:
    """The answers that the sender counted, and when it ended; notes the memory at each of its lines."""
    while True:
        line = json.loads(await lines.readline())
        rss.append(process.memory_info().rss / 1e6)
        if line:
            return line, time.perf_counter()


async def _send(address: str, count: int) -> Mapping[str, int]:
    """Send wrong keys from every peer."""
    refused: Counter[str] = Counter()
    sent = 0

    async def wrong(channel: grpc.aio.Channel) -> None:
        nonlocal sent
        stub = SkeletonServiceStub(channel)
        while sent < count:
            sent += 1
            if sent % (count // _PARTS) == 0 and sent < count:
                print({}, flush=True)
            try:
                await stub.RenderPoses(DRAWING, metadata=(("x-api-key", new_key().text),), timeout=60)
            except grpc.aio.AioRpcError as error:
                refused[error.code().name] += 1

    async with AsyncExitStack() as stack:
        channels = []
        for peer in _PEERS:
            relay = await stack.enter_async_context(_relay(address, peer))
            channels.append(await stack.enter_async_context(_channel(relay)))
        await asyncio.gather(*(one.channel_ready() for one in channels))
        print(flush=True)
        await asyncio.gather(*(wrong(one) for one in channels for _ in range(_AT_ONCE)))
    return refused


def _channel(address: str) -> grpc.aio.Channel:
    """A channel with a connection of its own, and without retries."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    return grpc.aio.insecure_channel(address, options=options)


@asynccontextmanager
async def _relay(address: str, peer: str) -> AsyncIterator[str]:
    """The address of a relay to another address, which sees connections from `peer`."""
    host, _, port = address.rpartition(":")
    copying: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(host, int(port), local_addr=(peer, 0))
        for pair in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(_copy(*pair))
            copying.add(task)
            task.add_done_callback(copying.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tuple(copying):
            task.cancel()
        await asyncio.gather(*copying, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
    finally:
        writer.close()


def main() -> int:
    """Entry point of the process that sends the wrong keys."""
    parser = argparse.ArgumentParser(prog="python -m scripts.benchmark_flood")
    parser.add_argument("address")
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    os.nice(19)
    print(json.dumps(asyncio.run(_send(arguments.address, arguments.count))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
