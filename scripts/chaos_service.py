"""What `scripts/chaos` breaks: the real service in processes of its own, and a look at its resources."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scripts.chaos_callers import PLAIN, ROOT
from scripts.ports import free_address

CLIP = (ROOT / "tests" / "data" / "two_people.mp4").read_bytes()
MIB = 1 << 20

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - POSIX shared memory
_LOOK_S = 0.05
_START_S = 180.0


@dataclass(eq=False)
class Process:
    """`posegate up` or `posegate serve` on fixed ports.

    Attributes:
        command: which of the two.
        address: of the gateway.
        health_address: of its health port.
        triton_url: of its Triton.
        folder: for logs.
    """

    command: str
    folder: Path
    triton_url: str
    address: str = field(default_factory=free_address)
    health_address: str = field(default_factory=free_address)
    environment: dict[str, str] = field(default_factory=dict)
    process: Any = None

    @property
    def spool(self) -> Path:
        """Its folder for videos that are being uploaded."""
        return self.folder / "spool"

    @property
    def log(self) -> Path:
        """What it wrote."""
        return self.folder / f"{self.command}-{self.address.rpartition(':')[2]}.log"

    async def start(self) -> None:
        """Start it and wait until it serves."""
        self.spool.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = psutil.Popen(
                [sys.executable, "-m", "service", self.command],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "POSEGATE_LISTEN": self.address,
                    "POSEGATE_HEALTH_LISTEN": self.health_address,
                    "POSEGATE_TRITON_URL": self.triton_url,
                    "POSEGATE_VIDEO_SPOOL": str(self.spool),
                    **self.environment,
                },
            )
        await self.serving()

    async def serving(self) -> float:
        """Wait until the health port says SERVING; the seconds."""
        started = time.monotonic()
        async with grpc.aio.insecure_channel(self.health_address, options=PLAIN) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            while time.monotonic() < started + _START_S:
                with suppress(grpc.aio.AioRpcError):
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2, wait_for_ready=True)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return time.monotonic() - started
                if self.process.poll() is not None:
                    raise RuntimeError(f"{self.command} ended with {self.process.returncode}")
                await asyncio.sleep(_LOOK_S)
        raise TimeoutError(f"{self.command} did not serve within {_START_S:g} s")

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return int(await asyncio.to_thread(self.process.wait, 60))

    def kill(self) -> None:
        """SIGKILL, where it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    async def triton(self, *, instead_of: int = 0) -> psutil.Process:
        """The bundled tritonserver, once there is one with another pid than `instead_of`."""
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            children: list[psutil.Process] = self.process.children()
            for one in children:
                with suppress(psutil.Error):
                    if one.pid != instead_of and "tritonserver" in " ".join(one.cmdline()):
                        return one
            await asyncio.sleep(_LOOK_S)
        raise TimeoutError("Triton was not started again")


@dataclass
class Watched:
    """What was seen of a gateway while a scenario ran.

    Attributes:
        health_s: duration of every health check that was answered.
        rss: of its process, bytes, at every look.
        fds: open file descriptors at the end.
        threads: at the end.
        shared_memory: regions in /dev/shm at the end.
        spool: bytes of videos that are being uploaded, at every look.
    """

    health_s: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    fds: int = 0
    threads: int = 0
    shared_memory: int = 0
    spool: list[int] = field(default_factory=list)


@asynccontextmanager
async def watching(gateway: Process, seen: Watched | None = None) -> AsyncIterator[Watched]:
    """Watch a gateway for the time of the block: health on its own port, memory.

    Args:
        gateway: it.
        seen: of an earlier block, to be added to.
    """
    seen = seen or Watched()

    async def look() -> None:
        async with grpc.aio.insecure_channel(gateway.health_address, options=PLAIN) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            while True:
                started = time.perf_counter()
                with suppress(grpc.aio.AioRpcError):
                    await stub.Check(health_pb2.HealthCheckRequest(service="liveness"), timeout=10)
                    seen.health_s.append(time.perf_counter() - started)
                with suppress(psutil.Error):
                    seen.rss.append(gateway.process.memory_info().rss)
                seen.spool.append(_spooled(gateway))
                await asyncio.sleep(_LOOK_S)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        seen.spool.append(_spooled(gateway))
        with suppress(psutil.Error):
            seen.fds = gateway.process.num_fds()
            seen.threads = gateway.process.num_threads()
        seen.shared_memory = await asyncio.to_thread(_regions)


def _spooled(gateway: Process) -> int:
    """Bytes of the files in the gateway's folder for videos, which have no name there."""
    count, folder = 0, str(gateway.spool)
    with suppress(OSError):
        for descriptor in Path(f"/proc/{gateway.process.pid}/fd").iterdir():
            with suppress(OSError):
                if str(descriptor.readlink()).startswith(folder):
                    count += descriptor.stat().st_size
    return count


def _regions() -> int:
    return sum(1 for _ in _SHARED_MEMORY.glob("posegate-*"))
