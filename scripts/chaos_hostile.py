"""Scenarios of `scripts/chaos`: callers that hold connections and places, or leave."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from scripts.chaos_callers import Outcomes, photo
from scripts.chaos_service import CLIP, watching
from scripts.chaos_world import (
    Row,
    World,
    answered,
    bare_channel,
    clip,
    memory,
    none_lost,
)
from service.client import connect


async def half_open(world: World) -> Row:
    """Connections that begin a request and never go on."""
    host, _, port = world.up.address.rpartition(":")
    held: list[socket.socket] = []
    outcomes = Outcomes()
    async with watching(world.up) as watched:
        try:
            for _ in range(world.count(300)):
                one = socket.create_connection((host, int(port)), 5)
                one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x10")
                held.append(one)
            await answered(world.up.address, outcomes, 10)
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
                    await trial.of(read(clip(), 30))
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


async def cancelled(world: World) -> Row:
    """Callers that leave: unary calls and videos; nothing of them stays."""
    outcomes = Outcomes()
    async with bare_channel(world.up.address) as channel:
        stub = PoseServiceStub(channel)
        await answered(world.up.address, Outcomes(), 1)
        before = world.up.process.num_fds(), world.up.process.num_threads()
        async with watching(world.up) as watched:
            for _ in range(world.count(20)):
                calls = [stub.DetectPoses(photo(), timeout=30) for _ in range(100)]
                videos = [stub.AnalyzeVideo(clip(), timeout=30) for _ in range(15)]
                await asyncio.sleep(0.05)
                for call in (*calls, *videos):
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
            await asyncio.sleep(2)
            await answered(world.up.address, outcomes, 10)
        after = watched.fds, watched.threads
    grown = f"fds {before[0]} → {after[0]}, threads {before[1]} → {after[1]}"
    few = after[0] - before[0] < 50 and after[1] - before[1] < 100
    return Row("cancelled", outcomes, watched, [none_lost(outcomes), (grown, few), memory(watched)])
