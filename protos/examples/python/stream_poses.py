"""Streams images as a camera would and prints one line for each result.

Usage: python protos/examples/python/stream_poses.py [IMAGE ...]
The address of the service is POSEGATE_ADDRESS, or 127.0.0.1:50051.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.client import connect

ADDRESS = os.environ.get("POSEGATE_ADDRESS", "127.0.0.1:50051")


async def camera(paths: list[Path]) -> AsyncIterator[pb.StreamPosesRequest]:
    """The config, then images. For a live camera FRAME_POLICY_LATEST drops what comes too fast."""
    yield pb.StreamPosesRequest(config=pb.StreamConfig(frame_policy=pb.FRAME_POLICY_EVERY))
    for path in paths:
        yield pb.StreamPosesRequest(frame=pb.StreamFrame(frame_id=path.name, encoded=path.read_bytes()))


async def main(paths: list[Path]) -> None:
    """Call StreamPoses; an image that cannot be read is an error of its own result only."""
    async with connect(ADDRESS) as channel:
        async for response in PoseServiceStub(channel).StreamPoses(camera(paths)):
            match response.WhichOneof("response"):
                case "result" if response.result.HasField("error"):
                    print(f"{response.result.frame_id}: {response.result.error.message}")
                case "result":
                    result = response.result
                    print(
                        f"{result.frame_id}: {len(result.persons)} persons, {result.timings.total_ms:.0f} ms"
                    )
                case "summary":
                    print(f"{response.summary.frames_answered} of {response.summary.frames_received} images")


DEFAULT = ["tests/data/two_people.jpg", "tests/data/single_person.jpg"]
asyncio.run(main([Path(name) for name in sys.argv[1:] or DEFAULT]))
