"""The HTTP door against gRPC on the same image, in one run; and its memory while a long video goes through.

Blocks of calls by gRPC and by HTTP alternate, so that a machine that gets slower hits both. Both callers are
kept small: a gRPC stub, and an HTTP/1.1 connection kept alive without a library.

Figures of a busy machine are noise: read the differences and ratios, which come from one run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from scripts.ports import free_address
from service.cli.connection import Target
from service.cli.health import health
from service.client import connect

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "tests" / "data" / "two_people.jpg"
VIDEO = ROOT / "tests" / "data" / "single_person.mp4"
_PIECE = 1 << 20

Call = Callable[[], Awaitable[None]]


class HttpConnection:
    """One connection to the door, kept alive."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, head: bytes, body: bytes) -> bytes:
        """The answer's body; RuntimeError where it is not 200."""
        self._writer.write(head)
        self._writer.write(body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        content = await self._reader.readexactly(length)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(content.decode())
        return content

    def close(self) -> None:
        """Close it."""
        self._writer.close()


@asynccontextmanager
async def command(*arguments: str, **environment: str) -> AsyncIterator[psutil.Process]:
    """A `posegate` process for the time of the block."""
    process = psutil.Popen(
        [sys.executable, "-m", "service", *arguments],
        cwd=ROOT,
        env={**os.environ, "POSEGATE_LOG_LEVEL": "warning", **environment},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


async def blocks(calls: dict[str, list[Call]], seconds: float, rounds: int) -> dict[str, list[list[float]]]:
    """Latencies in ms, block by block: each way calls for so long, in turn, with all its callers at once."""
    found: dict[str, list[list[float]]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, callers in calls.items():
            times: list[float] = []
            until = time.perf_counter() + (seconds if number else 1.0)

            async def caller(call: Call, until: float = until, times: list[float] = times) -> None:
                while time.perf_counter() < until:
                    started = time.perf_counter()
                    await call()
                    times.append((time.perf_counter() - started) * 1e3)

            await asyncio.gather(*(caller(call) for call in callers))
            if number:  # the first block warms up
                found[name].append(times)
    return found


async def pictures(console: Console, gateway: str, web: str, options: argparse.Namespace) -> None:
    """Latency and throughput of both ways at each number in flight."""
    content = PICTURE.read_bytes()
    host, _, port = web.rpartition(":")
    head = (
        f"POST /v1/pose HTTP/1.1\r\nhost: {web}\r\ncontent-type: image/jpeg\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    ).encode()
    table = Table("in flight", "way", "p50 ms", "p95 ms", "images/s", "HTTP against gRPC")
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(connect(gateway))
        stub = PoseServiceStub(channel)
        request = pb.DetectPosesRequest(image=types_pb2.Image(content=content))

        async def by_grpc() -> None:
            await stub.DetectPoses(request, timeout=60)

        for in_flight in options.in_flight:
            connections = [
                HttpConnection(*await asyncio.open_connection(host, int(port))) for _ in range(in_flight)
            ]
            by_http: list[Call] = [
                lambda connection=connection: connection.post(head, content)  # type: ignore[misc]
                for connection in connections
            ]
            calls: dict[str, list[Call]] = {"gRPC": [by_grpc] * in_flight, "HTTP": by_http}
            found = await blocks(calls, options.seconds, options.rounds)
            for connection in connections:
                connection.close()
            rates = {
                name: statistics.median(len(block) / options.seconds for block in given)
                for name, given in found.items()
            }
            medians = {
                name: statistics.median(time_ms for block in given for time_ms in block)
                for name, given in found.items()
            }
            for name, given in found.items():
                every = [time_ms for block in given for time_ms in block]
                compared = ""
                if name == "HTTP":
                    compared = (
                        f"{medians['HTTP'] - medians['gRPC']:+.1f} ms at p50, "
                        f"{rates['HTTP'] / rates['gRPC']:.2f} of the throughput"
                    )
                table.add_row(
                    str(in_flight),
                    name,
                    f"{medians[name]:.1f}",
                    f"{statistics.quantiles(every, n=20)[-1]:.1f}",
                    f"{rates[name]:.1f}",
                    compared,
                )
    console.print(table)


async def video(console: Console, web: str, door: psutil.Process, megabytes: int) -> None:
    """Peak memory of the door while a video with so many bytes goes through it."""
    clip = VIDEO.read_bytes()
    padding = megabytes * 1_000_000 - len(clip)
    free_box = (padding).to_bytes(4, "big") + b"free"  # a box that every reader of MP4 passes over
    host, _, port = web.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /v1/video/upload?every_nth_frame=20 HTTP/1.1\r\nhost: {web}\r\ncontent-type: video/mp4\r\n"
        f"accept: application/x-ndjson\r\ncontent-length: {len(clip) + padding}\r\n\r\n"
    ).encode()
    before = door.memory_info().rss
    peak = before
    started = time.perf_counter()
    writer.write(head + clip + free_box)
    left = padding - len(free_box)
    while left > 0:
        writer.write(bytes(min(_PIECE, left)))
        await writer.drain()
        left -= _PIECE
        peak = max(peak, door.memory_info().rss)
    sent_s = time.perf_counter() - started
    answer = b""
    while b'"type":"summary"' not in answer and b'"type":"error"' not in answer:
        piece = await reader.read(1 << 16)
        if not piece:
            break
        answer += piece
        peak = max(peak, door.memory_info().rss)
    writer.close()
    outcome = "summary" if b'"type":"summary"' in answer else answer[-300:].decode(errors="replace")
    console.print(
        f"a video of {megabytes} MB went through in {sent_s:.1f} s ({outcome}); the door held "
        f"{before / 1e6:.0f} MB before it and {peak / 1e6:.0f} MB at most while it went"
    )


async def main(options: argparse.Namespace) -> None:
    """Start what is missing, and measure."""
    console = Console()
    async with AsyncExitStack() as stack:
        gateway = options.gateway
        if not gateway:
            gateway = free_address()
            await stack.enter_async_context(command("up", POSEGATE_LISTEN=gateway))
            while await health(Target(gateway)) != "SERVING":  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.5)
        web = free_address()
        door = await stack.enter_async_context(
            command("web", POSEGATE_WEB_LISTEN=web, POSEGATE_WEB_GATEWAY=gateway)
        )
        for _ in range(240):
            try:
                with socket.create_connection(("127.0.0.1", int(web.rpartition(":")[2])), timeout=1):
                    break
            except OSError:
                await asyncio.sleep(0.25)
        await pictures(console, gateway, web, options)
        if options.video_mb:
            await video(console, web, door, options.video_mb)


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", default="", help="host:port of a running gateway; empty: one is started")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8], help="calls at once")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one block")
    parser.add_argument("--rounds", type=int, default=4, help="blocks of each way")
    parser.add_argument("--video-mb", type=int, default=500, help="size of the video; 0: none")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
