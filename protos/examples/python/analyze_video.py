"""Uploads a video in chunks and prints the persons of each frame while the upload goes on.

Usage: python protos/examples/python/analyze_video.py [VIDEO]
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
CHUNK_BYTES = 1 << 18


async def upload(path: Path) -> AsyncIterator[pb.AnalyzeVideoRequest]:
    """The config, then the bytes of the file."""
    yield pb.AnalyzeVideoRequest(config=pb.VideoConfig(measurements=["knee_flexion"], target_fps=10))
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield pb.AnalyzeVideoRequest(chunk=chunk)


async def main(path: Path) -> None:
    """Call AnalyzeVideo. `summary` is the last message: without it the answer is incomplete."""
    complete = False
    async with connect(ADDRESS) as channel:
        async for response in PoseServiceStub(channel).AnalyzeVideo(upload(path)):
            match response.WhichOneof("response"):
                case "frame":
                    tracks = [person.track_id for person in response.frame.persons]
                    print(f"frame {response.frame.frame_index}: tracks {tracks}")
                case "progress":
                    print(f"{response.progress.percent:.0f} %, {response.progress.fps:.0f} frames/s")
                case "summary":
                    complete = True
                    print(f"{response.summary.frames_analyzed} frames analyzed")
    if not complete:
        sys.exit("the stream ended without a summary")


asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/two_people.mp4")))
