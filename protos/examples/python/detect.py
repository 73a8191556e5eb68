"""Detects the persons in one image and prints where each nose is.

Usage: python protos/examples/python/detect.py [IMAGE]
The address of the service is POSEGATE_ADDRESS, or 127.0.0.1:50051.
"""

import asyncio
import os
import sys
from pathlib import Path

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.client import connect

ADDRESS = os.environ.get("POSEGATE_ADDRESS", "127.0.0.1:50051")


async def main(content: bytes) -> None:
    """Call DetectPoses with the bytes of an image file."""
    async with connect(ADDRESS) as channel:
        image = types_pb2.Image(content=content)
        request = pb.DetectPosesRequest(image=image)
        response = await PoseServiceStub(channel).DetectPoses(request, timeout=10)
    for person in response.persons:
        nose = person.keypoints[0]
        print(f"person {person.score:.2f}: nose at ({nose.x:.0f}, {nose.y:.0f}), score {nose.score:.2f}")


path = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/two_people.jpg")
asyncio.run(main(path.read_bytes()))
