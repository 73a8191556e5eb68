"""Scenario of `scripts/chaos`: small requests that ask for much."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import skeleton_service_pb2 as skeletons_pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from scripts.chaos_callers import PICTURE, Outcomes
from scripts.chaos_service import MIB, watching
from scripts.chaos_world import Row, World, answered, bare_channel, health_below, memory, none_lost
from scripts.hostile_files import giant_tile, tracks, with_scans

_CALLERS_FAULT = {"INVALID_ARGUMENT", "UNIMPLEMENTED"}  # the second of compressed requests, by gRPC
_COMBINING = "a" + "\N{COMBINING ACUTE ACCENT}" * 60_000
_SEGMENTS = b"\xff\xd8" + b"\xff\xfe\x00\x02" * 2_000_000
_HUGE_PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x01\x00\x00\x00\x01\x00\x00\x08\x02\x00\x00\x00" + bytes(64)
)
_NAMES = b"\x12\x00" * (12 * MIB)
_ZEROS = bytes(200 * MIB)


async def bombs(world: World) -> Row:
    """Each is refused, and its neighbours are answered."""
    outcomes = Outcomes()
    async with bare_channel(world.up.address) as channel:
        kinds = _kinds(channel)
        refused = {kind: Outcomes() for kind in kinds}
        async with watching(world.up) as watched:
            for _ in range(world.count(3)):
                await asyncio.gather(
                    answered(world.up.address, outcomes, 3),
                    *(refused[kind].of(send()) for kind, send in kinds.items()),
                )
    taken = [kind for kind, seen in refused.items() if seen.answered]
    blamed = [kind for kind, seen in refused.items() if not set(seen.lost) <= _CALLERS_FAULT]
    return Row(
        f"bombs ({sum(seen.sent for seen in refused.values())} of {len(kinds)} kinds)",
        outcomes,
        watched,
        [
            none_lost(outcomes),
            (" ".join(["every bomb is refused", *taken]), not taken),
            (" ".join(["refused as the caller's fault", *blamed]), not blamed),
            health_below(watched, 1.0),
            memory(watched),
        ],
    )


def _kinds(channel: grpc.aio.Channel) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Makes the call of each kind."""
    stub = PoseServiceStub(channel)
    created = SkeletonServiceStub(channel).CreateSkeleton
    export: Any = channel.unary_unary("/posegate.v1.SkeletonService/ExportPoses")
    detect: Any = channel.unary_unary("/posegate.v1.PoseService/DetectPoses")

    def image(content: bytes, skeleton: str = "", **options: Any) -> Callable[[], Awaitable[Any]]:
        request = pb.DetectPosesRequest(image=types_pb2.Image(content=content), skeleton=skeleton)
        return lambda: stub.DetectPoses(request, timeout=30, **options)

    def video(content: bytes) -> Callable[[], Awaitable[Any]]:
        return lambda: _read(stub.AnalyzeVideo(_sent(content), timeout=30))

    named = skeletons_pb.CreateSkeletonRequest(skeleton=skeletons_pb.Skeleton(name=_COMBINING))
    return {
        "combining marks in a name": image(PICTURE, _COMBINING),
        "combining marks in a skeleton": lambda: created(named, timeout=30),
        "2 million segments in a JPEG": image(_SEGMENTS),
        "1,000 scans in a JPEG": image(with_scans(1000, (4000, 3000))),
        "a PNG of 65,536 px": image(_HUGE_PNG),
        "a tile of 30,000 px in a TIFF": image(giant_tile()),
        "12 million empty names": lambda: export(_NAMES, timeout=30),
        "a compressed request": image(PICTURE, compression=grpc.Compression.Gzip),
        "200 MB of zeros": lambda: detect(_ZEROS, timeout=30),
        "200 scans in each frame of a video": video(tracks("avi", 1, with_scans(200))),
        "a video of 200 tracks": video(tracks("mp4", 200, with_scans(10))),
    }


async def _read(answers: Any) -> None:
    async for _ in answers:
        pass


async def _sent(content: bytes) -> AsyncIterator[pb.AnalyzeVideoRequest]:
    yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())
    yield pb.AnalyzeVideoRequest(chunk=content)
