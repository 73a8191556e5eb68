"""What `scripts/chaos` breaks: the real service in processes of its own, callers, and a look at resources."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.client import connect

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub

ROOT = Path(__file__).resolve().parent.parent
PICTURE = (ROOT / "tests" / "data" / "two_people.jpg").read_bytes()
CLIP = (ROOT / "tests" / "data" / "two_people.mp4").read_bytes()
MIB = 1 << 20

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - POSIX shared memory
_LOOK_S = 0.05
_START_S = 180.0


def detect_request() -> pb.DetectPosesRequest:
    """A photograph of two persons."""
    return pb.DetectPosesRequest(image=types_pb2.Image(content=PICTURE))


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


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
    address: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    health_address: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    environment: dict[str, str] = field(default_factory=dict)
    process: Any = None

    async def start(self) -> None:
        """Start it and wait until it serves."""
        with (self.folder / f"{self.command}-{self.address.rpartition(':')[2]}.log").open("ab") as log:
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
                    **self.environment,
                },
            )
        await self.serving()

    async def serving(self) -> float:
        """Wait until the health port says SERVING; the seconds."""
        started = time.monotonic()
        async with grpc.aio.insecure_channel(self.health_address, options=_PLAIN) as channel:
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


_PLAIN = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]


@dataclass
class Watched:
    """What was seen of a gateway while a scenario ran.

    Attributes:
        health_s: duration of every health check that was answered.
        rss: of its process, bytes, at every look.
        fds: open file descriptors at the end.
        threads: at the end.
        shared_memory: regions in /dev/shm at the end.
    """

    health_s: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    fds: int = 0
    threads: int = 0
    shared_memory: int = 0


@asynccontextmanager
async def watching(gateway: Process) -> AsyncIterator[Watched]:
    """Watch a gateway for the time of the block: health on its own port, memory."""
    seen = Watched()

    async def look() -> None:
        async with grpc.aio.insecure_channel(gateway.health_address, options=_PLAIN) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            while True:
                started = time.perf_counter()
                with suppress(grpc.aio.AioRpcError):
                    await stub.Check(health_pb2.HealthCheckRequest(service="liveness"), timeout=10)
                    seen.health_s.append(time.perf_counter() - started)
                with suppress(psutil.Error):
                    seen.rss.append(gateway.process.memory_info().rss)
                await asyncio.sleep(_LOOK_S)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        with suppress(psutil.Error):
            seen.fds = gateway.process.num_fds()
            seen.threads = gateway.process.num_threads()
        seen.shared_memory = await asyncio.to_thread(_regions)


def _regions() -> int:
    return sum(1 for _ in _SHARED_MEMORY.glob("posegate-*"))


@dataclass
class Outcomes:
    """How calls ended.

    Attributes:
        codes: number of calls by code.
        answered_s: duration of those that were answered.
        failed_s: of those that were not.
        seconds: from the first call to the last answer.
    """

    codes: Counter[str] = field(default_factory=Counter)
    answered_s: list[float] = field(default_factory=list)
    failed_s: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def sent(self) -> int:
        """Number of calls that ended."""
        return sum(self.codes.values())

    @property
    def answered(self) -> int:
        """Number of answers."""
        return self.codes["OK"]

    @property
    def lost(self) -> dict[str, int]:
        """Number of calls without an answer, by code."""
        return {code: count for code, count in self.codes.items() if code != "OK"}

    @property
    def goodput(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds if self.seconds else 0.0

    async def of(self, call: Awaitable[Any]) -> None:
        """Wait for a call and count its end."""
        started = time.perf_counter()
        try:
            await call
        except grpc.aio.AioRpcError as error:
            self.codes[error.code().name] += 1
            self.failed_s.append(time.perf_counter() - started)
        except asyncio.CancelledError:
            self.codes["CANCELLED"] += 1
        else:
            self.codes["OK"] += 1
            self.answered_s.append(time.perf_counter() - started)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the block's time."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started


def quantile(values: list[float], share: float) -> float:
    """A quantile; 0 of nothing."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=1000, method="inclusive")[min(998, int(share * 1000) - 1)]


@asynccontextmanager
async def callers(address: str) -> AsyncIterator[PoseServiceAsyncStub]:
    """The documented client."""
    async with connect(address) as channel:
        yield PoseServiceStub(channel)


@asynccontextmanager
async def bare_callers(address: str) -> AsyncIterator[PoseServiceAsyncStub]:
    """A client that never tries again."""
    async with grpc.aio.insecure_channel(address, options=_PLAIN) as channel:
        yield PoseServiceStub(channel)


async def keep_in_flight(
    stub: PoseServiceAsyncStub,
    at_once: int,
    go_on: Callable[[], bool],
    *,
    timeout_s: float = 30.0,
    outcomes: Outcomes | None = None,
) -> Outcomes:
    """Keep so many calls in flight for as long as `go_on` says; counted in `outcomes`."""
    outcomes = outcomes or Outcomes()

    async def one() -> None:
        while go_on():
            await outcomes.of(stub.DetectPoses(detect_request(), timeout=timeout_s))

    with outcomes.timed():
        await asyncio.gather(*(one() for _ in range(at_once)))
    return outcomes


async def send_at_rate(
    stub: PoseServiceAsyncStub, per_s: float, seconds: float, *, timeout_s: float = 30.0
) -> Outcomes:
    """Send calls at random moments, so many a second on average, whether or not others are answered."""
    outcomes, calls = Outcomes(), set()
    with outcomes.timed():
        started = due = time.monotonic()
        while due < started + seconds:
            due += random.expovariate(per_s)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            call = asyncio.create_task(outcomes.of(stub.DetectPoses(detect_request(), timeout=timeout_s)))
            calls.add(call)
            call.add_done_callback(calls.discard)
        await asyncio.gather(*calls)
    return outcomes
