"""Callers in a process of their own, and what became of their calls.

The process that breaks things and watches has to see health and memory without delay, so it makes no load
itself. It starts this module with a `Load` as JSON, reads the number of answers from its standard output as
they come, and ends it by closing its standard input; the last line is the outcome.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import grpc
import numpy as np

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import skeleton_service_pb2 as skeletons_pb
from posegate.v1 import types_pb2
from scripts.chaos_frames import FrameCaller
from service.client import connect

if TYPE_CHECKING:
    from grpc.aio import Channel

ROOT = Path(__file__).resolve().parent.parent
PICTURE = (ROOT / "tests" / "data" / "two_people.jpg").read_bytes()

_TELL_S = 0.02

_Call: TypeAlias = "Callable[[], Coroutine[Any, Any, None]]"

PLAIN = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]
"""Options of a channel that never tries again."""


@dataclass(frozen=True)
class Load:
    """What a process of callers does.

    Attributes:
        address: of the gateway, or of several.
        image: `photo` of two persons; `strip`, which costs the model a tenth; `noise`, whose answer, drawn by
            RenderPoses, has 8 MB; `batch`, 200 MB of what are no images; `frames`, a stream of three bare
            images of 147 MB.
        documented: by the documented client; otherwise by one that never tries again.
        frames: unary calls by prepared HTTP/2 frames instead, so that the callers' own delays do not count.
        at_once: so many calls in flight at all times; 0: at `per_s`.
        per_s: calls a second, at random moments, whether or not others are answered.
        calls: at least so many, where they are in flight at all times; then until the input ends.
        seconds: at most.
        timeout_s: of one call.
    """

    address: str
    image: str = "strip"
    documented: bool = True
    frames: bool = False
    at_once: int = 0
    per_s: float = 0.0
    calls: int = 0
    seconds: float = 3600.0
    timeout_s: float = 60.0


@dataclass
class Outcomes:
    """How calls ended.

    Attributes:
        codes: number of calls by code.
        answered_s: duration of those that were answered.
        failed_s: of those that were not.
        seconds: from the first call to the last answer.
        cpu_s: CPU time of the callers' process, where they have their own.
    """

    codes: Counter[str] = field(default_factory=Counter)
    answered_s: list[float] = field(default_factory=list)
    failed_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0

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
            self.count(error.code().name, time.perf_counter() - started)
        except asyncio.CancelledError:
            self.codes["CANCELLED"] += 1
        else:
            self.count("OK", time.perf_counter() - started)

    def count(self, code: str, seconds: float) -> None:
        """Count the end of a call."""
        self.codes[code] += 1
        (self.answered_s if code == "OK" else self.failed_s).append(seconds)

    def add(self, other: Outcomes) -> None:
        """Add the calls of another time."""
        self.codes.update(other.codes)
        self.answered_s += other.answered_s
        self.failed_s += other.failed_s
        self.seconds += other.seconds
        self.cpu_s += other.cpu_s

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


class Callers:
    """A process of callers, as seen by the one that started it.

    Attributes:
        answered: number of answers so far.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.answered = 0
        self._process = process
        self._progress = asyncio.Event()
        self._outcomes: Outcomes | None = None
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def until(self, answered: int) -> None:
        """Wait for so many answers, or the end of the process."""
        while self.answered < answered and not self._reading.done():
            self._progress.clear()
            await self._progress.wait()

    async def end(self) -> Outcomes:
        """Let the calls in flight end, and those that are still due; the outcomes of all."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._reading
        await self._process.wait()
        if self._outcomes is None:
            raise RuntimeError(f"the callers ended with {self._process.returncode} and no outcome")
        return self._outcomes

    async def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            async for line in self._process.stdout:
                told = json.loads(line)
                if isinstance(told, int):
                    self.answered = told
                else:
                    self._outcomes = Outcomes(**{**told, "codes": Counter(told["codes"])})
                self._progress.set()
        finally:
            self._progress.set()


@asynccontextmanager
async def calling(load: Load) -> AsyncIterator[Callers]:
    """Callers in a process of their own, which ends with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.chaos_callers", json.dumps(asdict(load))),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 26,
    )
    callers = Callers(process)
    try:
        yield callers
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def outcomes_of(load: Load) -> Outcomes:
    """What becomes of a load that ends by itself."""
    async with calling(load) as callers:
        return await callers.end()


async def main(load: Load) -> None:
    """Make the calls; tell the number of answers as they come, then all outcomes."""
    outcomes = Outcomes()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ended = asyncio.create_task(reader.read())
    telling = asyncio.create_task(_tell(outcomes))
    cpu_s = time.process_time()
    async with _calls(load, outcomes) as call:
        with outcomes.timed():
            if load.at_once:
                await _keep_in_flight(load, call, ended)
            else:
                await _send_at_rate(load, call)
    outcomes.cpu_s = time.process_time() - cpu_s
    telling.cancel()
    print(json.dumps(vars(outcomes)), flush=True)
    # Not the loop's own end: a thread may still wait for the input.
    os._exit(0)


def photo() -> pb.DetectPosesRequest:
    """A photograph of two persons."""
    return pb.DetectPosesRequest(image=types_pb2.Image(content=PICTURE))


def strip() -> pb.DetectPosesRequest:
    """A strip of it, for which the model needs a tenth of the time."""
    image: Any = cv2.imdecode(np.frombuffer(PICTURE, np.uint8), cv2.IMREAD_COLOR)
    return pb.DetectPosesRequest(image=types_pb2.Image(content=_jpeg(cv2.resize(image, (640, 64)))))


def noise() -> skeletons_pb.RenderPosesRequest:
    """An image that compresses badly, to draw nobody on."""
    image = np.random.default_rng(1).integers(0, 256, (3000, 4000, 3), np.uint8)
    request = skeletons_pb.RenderPosesRequest(image=types_pb2.Image(content=_jpeg(image)), skeleton="coco_17")
    request.overlay.format = types_pb2.OVERLAY_FORMAT_JPEG
    return request


def batch() -> pb.BatchDetectPosesRequest:
    """As many bytes as fit into a message, which no decoder knows."""
    image = types_pb2.Image(content=bytes(20_000_000))
    return pb.BatchDetectPosesRequest(requests=[pb.DetectPosesRequest(image=image)] * 10)


def _jpeg(image: Any) -> bytes:
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1])


def _channel(load: Load) -> Channel:
    if load.documented:
        return connect(load.address)
    return grpc.aio.insecure_channel(load.address, options=PLAIN)


@asynccontextmanager
async def _calls(load: Load, outcomes: Outcomes) -> AsyncIterator[_Call]:
    """What makes one call and counts its end. The request is serialised once, and no answer is parsed:
    callers share the CPUs with the service that is measured."""
    if load.frames:
        async with FrameCaller(load.address, *_unary(load), timeout_s=load.timeout_s) as caller:

            async def by_frames() -> None:
                outcomes.count(*await caller.call())

            yield by_frames
        return
    async with _channel(load) as channel:
        call = _stream_call(channel, load) if load.image == "frames" else _unary_call(channel, load)
        yield lambda: outcomes.of(call())


def _unary(load: Load) -> tuple[str, bytes]:
    """Method and request."""
    method, request = {
        "photo": ("PoseService/DetectPoses", photo),
        "strip": ("PoseService/DetectPoses", strip),
        "noise": ("SkeletonService/RenderPoses", noise),
        "batch": ("PoseService/BatchDetectPoses", batch),
    }[load.image]
    return f"/posegate.v1.{method}", request().SerializeToString()


def _unary_call(channel: Channel, load: Load) -> Any:
    method, content = _unary(load)
    stub: Any = channel.unary_unary(method)
    return lambda: stub(content, timeout=load.timeout_s)


def _stream_call(channel: Channel, load: Load) -> Any:
    size = types_pb2.ImageSize(width=7000, height=7000)
    image = pb.RawImage(rgb=bytes(3 * size.width * size.height), size=size)
    frame = pb.StreamPosesRequest(frame=pb.StreamFrame(raw=image)).SerializeToString()
    config = pb.StreamPosesRequest(config=pb.StreamConfig()).SerializeToString()
    stub: Any = channel.stream_stream("/posegate.v1.PoseService/StreamPoses")

    async def call() -> None:
        answers = [one async for one in stub(iter((config, frame, frame, frame)), timeout=load.timeout_s)]
        summary = pb.StreamPosesResponse.FromString(answers[-1]).summary
        if summary.frames_answered != 3:  # an image that is refused ends no stream
            raise RuntimeError(f"not all images were answered: {summary}")

    return call


async def _keep_in_flight(load: Load, call: _Call, ended: asyncio.Task[bytes]) -> None:
    loop = asyncio.get_running_loop()
    begun, end = 0, loop.time() + load.seconds

    async def one() -> None:
        nonlocal begun
        while loop.time() < end and (begun < load.calls or not ended.done()):
            begun += 1
            await call()

    await asyncio.gather(*(one() for _ in range(load.at_once)))


async def _send_at_rate(load: Load, call: _Call) -> None:
    calls = set()
    started = due = time.monotonic()
    while due < started + load.seconds:
        due += random.expovariate(load.per_s)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        one = asyncio.create_task(call())
        calls.add(one)
        one.add_done_callback(calls.discard)
    await asyncio.gather(*calls)


async def _tell(outcomes: Outcomes) -> None:
    told = -1
    while True:
        if outcomes.answered != told:
            told = outcomes.answered
            print(told, flush=True)
        await asyncio.sleep(_TELL_S)


if __name__ == "__main__":
    asyncio.run(main(Load(**json.loads(sys.argv[1]))))
