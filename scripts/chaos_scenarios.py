"""The scenarios of `scripts/chaos`, each a coroutine that breaks something and gives a `Row`."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import skeleton_service_pb2 as skeletons_pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from scripts.chaos_service import (
    CLIP,
    MIB,
    PICTURE,
    Outcomes,
    Process,
    Watched,
    bare_callers,
    callers,
    detect_request,
    keep_in_flight,
    quantile,
    send_at_rate,
    watching,
)
from service.client import connect

MAX_RSS = 3 << 30  # the smallest limit that the chart sets for a gateway


@dataclass(frozen=True)
class Row:
    """What one scenario showed.

    Attributes:
        scenario: its name.
        outcomes: of the calls.
        watched: of the gateway.
        bounds: what has to hold, and whether it does.
    """

    scenario: str
    outcomes: Outcomes
    watched: Watched
    bounds: Sequence[tuple[str, bool]]

    @property
    def holds(self) -> bool:
        """Whether every bound does."""
        return all(holds for _, holds in self.bounds)


@dataclass(eq=False)
class World:
    """What the scenarios share.

    Attributes:
        up: `posegate up`.
        folder: for logs.
        scale: 1 for the whole run, less for the short one.
        soak_s: seconds of `soak`.
        rows: so far.
    """

    up: Process
    folder: Path
    scale: float
    soak_s: float
    rows: list[Row] = field(default_factory=list)

    def beside(self) -> Process:
        """Another gateway on the same Triton."""
        return Process("serve", self.folder, self.up.triton_url)


def none_lost(outcomes: Outcomes) -> tuple[str, bool]:
    """Every call was answered."""
    return "0 lost", outcomes.sent > 0 and not outcomes.lost


def memory(watched: Watched) -> tuple[str, bool]:
    """The gateway stayed below the limit of its memory."""
    return f"RSS < {MAX_RSS >> 20} MiB", max(watched.rss, default=0) < MAX_RSS


def health_below(watched: Watched, seconds: float) -> tuple[str, bool]:
    """Health was answered in time."""
    return f"health p99 < {seconds * 1000:g} ms", 0 < quantile(watched.health_s, 0.99) < seconds


async def kill(world: World) -> Row:
    """Triton gets SIGKILL, again and again, under calls of the documented client."""
    return await _harm_triton(world, "kill", signal.SIGKILL, times=max(1, round(3 * world.scale)))


async def stop(world: World) -> Row:
    """Triton gets SIGSTOP: it is there and does not answer."""
    return await _harm_triton(world, "stop", signal.SIGSTOP, times=1)


async def _harm_triton(world: World, name: str, number: signal.Signals, times: int) -> Row:
    busy, away_s, load_outcomes = True, list[float](), Outcomes()
    async with watching(world.up) as watched, callers(world.up.address) as stub:
        load = asyncio.create_task(
            keep_in_flight(stub, 8, lambda: busy, timeout_s=60, outcomes=load_outcomes)
        )
        for _ in range(times):
            await asyncio.sleep(1)
            triton = await world.up.triton()
            triton.send_signal(number)
            broken = time.monotonic()
            await world.up.triton(instead_of=triton.pid)
            answered = len(load_outcomes.answered_s)
            while len(load_outcomes.answered_s) == answered:  # noqa: ASYNC110 - calls set no event
                await asyncio.sleep(0.05)
            away_s.append(time.monotonic() - broken)
        await asyncio.sleep(2)
        busy = False
        outcomes = await load
    away = " ".join(f"{seconds:.1f}" for seconds in away_s)
    return Row(f"{name} (away {away} s)", outcomes, watched, [none_lost(outcomes), memory(watched)])


async def restart(world: World) -> Row:
    """A gateway stops and starts again on its port."""
    gateway, busy = world.beside(), True
    await gateway.start()
    try:
        async with watching(gateway) as watched, callers(gateway.address) as stub:
            load = asyncio.create_task(keep_in_flight(stub, 8, lambda: busy))
            for _ in range(max(1, round(3 * world.scale))):
                await asyncio.sleep(1)
                await gateway.stop()
                await gateway.start()
            await asyncio.sleep(1)
            busy = False
            outcomes = await load
    finally:
        gateway.kill()
    return Row("restart", outcomes, watched, [none_lost(outcomes), memory(watched)])


async def roll(world: World) -> Row:
    """Two gateways behind one name are replaced one after the other."""
    gateways, busy = [world.beside(), world.beside()], True
    try:
        for one in gateways:
            await one.start()
        address = "ipv4:" + ",".join(one.address for one in gateways)
        async with watching(gateways[0]) as watched, callers(address) as stub:
            load = asyncio.create_task(keep_in_flight(stub, 8, lambda: busy))
            for _ in range(max(1, round(2 * world.scale))):
                for one in gateways:
                    await asyncio.sleep(1)
                    await one.stop()
                    await one.start()
            busy = False
            outcomes = await load
    finally:
        for one in gateways:
            one.kill()
    return Row("roll", outcomes, watched, [none_lost(outcomes), memory(watched)])


async def overload(world: World) -> Row:
    """Ten times as many calls as the service can answer, by callers that never try again."""
    async with bare_callers(world.up.address) as stub:
        left = max(40, round(200 * world.scale))

        def go_on() -> bool:
            nonlocal left
            left -= 1
            return left >= 0

        peak = (await keep_in_flight(stub, 16, go_on)).goodput
        async with watching(world.up) as watched:
            outcomes = await send_at_rate(stub, 10 * peak, max(4.0, 15 * world.scale))
    refused_s = quantile(outcomes.failed_s, 0.99)
    return Row(
        f"overload 10× ({10 * peak:.0f}/s)",
        outcomes,
        watched,
        [
            # The callers share the CPUs with the service here, which costs some of its answers.
            ("goodput ≥ 0.6 of the peak", outcomes.goodput >= 0.6 * peak),
            (f"refused p99 < 500 ms ({refused_s * 1000:.0f})", refused_s < 0.5),
            ("nothing but refusals", set(outcomes.lost) <= {"RESOURCE_EXHAUSTED"}),
            health_below(watched, 0.1),
            memory(watched),
        ],
    )


async def burst(world: World) -> Row:
    """150 calls at one moment, by the documented client."""
    outcomes = Outcomes()
    async with watching(world.up) as watched, callers(world.up.address) as stub:
        with outcomes.timed():
            calls = [outcomes.of(stub.DetectPoses(detect_request(), timeout=60)) for _ in range(150)]
            await asyncio.gather(*calls)
    return Row("burst of 150", outcomes, watched, [none_lost(outcomes), memory(watched)])


async def half_open(world: World) -> Row:
    """Connections that begin a request and never go on."""
    host, _, port = world.up.address.rpartition(":")
    held: list[socket.socket] = []
    outcomes = Outcomes()
    async with watching(world.up) as watched:
        try:
            for _ in range(round(300 * world.scale)):
                one = socket.create_connection((host, int(port)), 5)
                one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x10")
                held.append(one)
            await _answered(world, outcomes, 10)
        finally:
            for one in held:
                one.close()
    return Row(f"half-open ({len(held)})", outcomes, watched, [none_lost(outcomes), memory(watched)])


async def slow(world: World) -> Row:
    """Uploads of a byte a second on every place for streams; then one of a caller in earnest."""

    async def trickle() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())
        for byte in CLIP:
            yield pb.AnalyzeVideoRequest(chunk=bytes([byte]))
            await asyncio.sleep(1)

    async def read(requests: AsyncIterator[pb.AnalyzeVideoRequest], timeout_s: float) -> None:
        async with connect(world.up.address) as channel:
            call = PoseServiceStub(channel).AnalyzeVideo(requests, timeout=timeout_s)
            async for _ in call:
                pass

    outcomes = Outcomes()
    async with watching(world.up) as watched:
        slow_ones = [asyncio.create_task(read(trickle(), 300)) for _ in range(16)]
        try:
            await asyncio.sleep(1)
            deadline = asyncio.get_running_loop().time() + 40
            while asyncio.get_running_loop().time() < deadline:
                trial = Outcomes()
                with outcomes.timed():
                    await trial.of(read(_clip(), 30))
                if trial.answered:
                    outcomes.codes.update(trial.codes)
                    outcomes.answered_s += trial.answered_s
                    break
                await asyncio.sleep(1)
            else:
                outcomes.codes.update(trial.codes)
        finally:
            for one in slow_ones:
                one.cancel()
            await asyncio.gather(*slow_ones, return_exceptions=True)
    return Row(
        "slow uploads (16)",
        outcomes,
        watched,
        [("a video gets a place within 40 s", outcomes.answered == 1), memory(watched)],
    )


async def bombs(world: World) -> Row:
    """Small requests that ask for much: each is refused, and its neighbours are answered."""
    rounds = max(1, round(3 * world.scale))
    combining = "a" + "́" * 60_000
    segments = b"\xff\xd8" + b"\xff\xfe\x00\x02" * 2_000_000
    huge_png = (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x01\x00\x00\x00\x01\x00\x00\x08\x02\x00\x00\x00" + bytes(64)
    )
    empty_poses = b"\x12\x00" * (12 * MIB)
    outcomes, refused = Outcomes(), Outcomes()

    def detect(content: bytes, skeleton: str = "") -> pb.DetectPosesRequest:
        return pb.DetectPosesRequest(image=types_pb2.Image(content=content), skeleton=skeleton)

    async with watching(world.up) as watched, bare_channel(world) as channel:
        stub = PoseServiceStub(channel)
        export: Any = channel.unary_unary("/posegate.v1.SkeletonService/ExportPoses")
        created = SkeletonServiceStub(channel).CreateSkeleton
        for _ in range(rounds):
            await asyncio.gather(
                refused.of(stub.DetectPoses(detect(PICTURE, combining), timeout=30)),
                refused.of(stub.DetectPoses(detect(segments), timeout=30)),
                refused.of(stub.DetectPoses(detect(huge_png), timeout=30)),
                refused.of(export(empty_poses, timeout=30)),
                refused.of(stub.DetectPoses(detect(PICTURE), timeout=30, compression=grpc.Compression.Gzip)),
                refused.of(
                    created(
                        skeletons_pb.CreateSkeletonRequest(skeleton=skeletons_pb.Skeleton(name=combining)),
                        timeout=30,
                    )
                ),
                _answered(world, outcomes, 3),
            )
    return Row(
        f"bombs ({refused.sent})",
        outcomes,
        watched,
        [
            none_lost(outcomes),
            ("every bomb is refused", not refused.answered),
            ("refused as the caller's fault", not {"INTERNAL", "UNKNOWN"} & set(refused.lost)),
            health_below(watched, 1.0),
            memory(watched),
        ],
    )


async def cancelled(world: World) -> Row:
    """Callers that leave: unary calls and videos; nothing of them stays."""
    outcomes = Outcomes()
    async with bare_channel(world) as channel:
        stub = PoseServiceStub(channel)
        await _answered(world, Outcomes(), 1)
        before = world.up.process.num_fds(), world.up.process.num_threads()
        async with watching(world.up) as watched:
            for _ in range(round(20 * world.scale)):
                calls = [stub.DetectPoses(detect_request(), timeout=30) for _ in range(100)]
                videos = [stub.AnalyzeVideo(_clip(), timeout=30) for _ in range(15)]
                await asyncio.sleep(0.05)
                for call in (*calls, *videos):
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
            await asyncio.sleep(2)
            await _answered(world, outcomes, 10)
        after = watched.fds, watched.threads
    grown = f"fds {before[0]} → {after[0]}, threads {before[1]} → {after[1]}"
    few = after[0] - before[0] < 50 and after[1] - before[1] < 100
    return Row("cancelled", outcomes, watched, [none_lost(outcomes), (grown, few), memory(watched)])


async def soak(world: World) -> Row:
    """Ordinary load for long: memory does not grow."""
    async with watching(world.up) as watched, callers(world.up.address) as stub:
        loop = asyncio.get_running_loop()
        end = loop.time() + world.soak_s
        outcomes = await keep_in_flight(stub, 4, lambda: loop.time() < end)
    quarter = len(watched.rss) // 4
    early, late = max(watched.rss[: 2 * quarter], default=0), max(watched.rss[-quarter:], default=0)
    return Row(
        "soak",
        outcomes,
        watched,
        [none_lost(outcomes), ("RSS grows < 64 MiB", late - early < 64 * MIB), memory(watched)],
    )


Scenario = Callable[[World], Awaitable[Row]]
SCENARIOS: dict[str, Scenario] = {
    one.__name__: one
    for one in (kill, stop, restart, roll, overload, burst, half_open, slow, bombs, cancelled, soak)
}
SHORT = ("kill", "restart", "burst", "half_open", "bombs", "cancelled")


def bare_channel(world: World) -> grpc.aio.Channel:
    """A channel that never tries again."""
    return grpc.aio.insecure_channel(
        world.up.address,
        options=[("grpc.enable_retries", 0), ("grpc.max_send_message_length", -1)],
    )


async def _answered(world: World, outcomes: Outcomes, count: int) -> None:
    """Calls of an ordinary caller."""
    async with callers(world.up.address) as stub:
        with outcomes.timed():
            for _ in range(count):
                await outcomes.of(stub.DetectPoses(detect_request(), timeout=30))


async def _clip() -> AsyncIterator[pb.AnalyzeVideoRequest]:
    yield pb.AnalyzeVideoRequest(config=pb.VideoConfig(target_fps=2))
    yield pb.AnalyzeVideoRequest(chunk=CLIP)
