"""Scenarios of `scripts/chaos`: callers that hold what they can, ask for much with little, or leave."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psutil

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import skeleton_service_pb2 as skeletons_pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from scripts.chaos_callers import PICTURE, Load, Outcomes, calling, photo
from scripts.chaos_service import CLIP, MIB, watching
from scripts.chaos_world import (
    Row,
    World,
    answered,
    bare_channel,
    clip,
    health_below,
    memory,
    none_lost,
)
from service.client import connect

_UNREAD_S = 5


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


async def unread(world: World) -> Row:
    """Callers that take none of their large answers: their connection ends, and others are answered."""
    gateway, outcomes = world.beside(POSEGATE_UNREAD_S=str(_UNREAD_S)), Outcomes()
    count = world.count(40, 8)
    await gateway.start()
    try:
        async with watching(gateway) as watched:
            load = Load(gateway.address, "noise", documented=False, at_once=count, calls=count)
            async with calling(load) as callers:
                await callers.until(1)
                os.kill(callers.pid, signal.SIGSTOP)
                held = _ports(psutil.Process(callers.pid), local=True) & _ports(gateway.process, local=False)
                await answered(gateway.address, outcomes, 10)
                end = time.monotonic() + 60
                while held & _ports(gateway.process, local=False) and time.monotonic() < end:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                ended = bool(held) and not held & _ports(gateway.process, local=False)
            await answered(gateway.address, outcomes, 3)
            await asyncio.sleep(3)  # freed memory goes back two seconds after the last call
        after = watched.rss[-1] - watched.rss[0]
    finally:
        gateway.kill()
    return Row(
        f"unread ({count} × 8 MB)",
        outcomes,
        watched,
        [
            none_lost(outcomes),
            ("their connection is ended", ended),
            (f"RSS after < before + 200 MiB (+{after // MIB})", after < 200 * MIB),
            memory(watched),
        ],
    )


def _ports(process: psutil.Process, *, local: bool) -> set[int]:
    """Of the established connections of a process, at its end or at the other."""
    return {
        (one.laddr if local else one.raddr).port
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_ESTABLISHED
    }


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


async def bombs(world: World) -> Row:
    """Small requests that ask for much: each is refused, and its neighbours are answered."""
    rounds = world.count(3)
    combining = "a" + "́" * 60_000
    segments = b"\xff\xd8" + b"\xff\xfe\x00\x02" * 2_000_000
    huge_png = (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x01\x00\x00\x00\x01\x00\x00\x08\x02\x00\x00\x00" + bytes(64)
    )
    empty_poses = b"\x12\x00" * (12 * MIB)
    outcomes, refused = Outcomes(), Outcomes()

    def detect(content: bytes, skeleton: str = "") -> pb.DetectPosesRequest:
        return pb.DetectPosesRequest(image=types_pb2.Image(content=content), skeleton=skeleton)

    async with watching(world.up) as watched, bare_channel(world.up.address) as channel:
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
                answered(world.up.address, outcomes, 3),
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
