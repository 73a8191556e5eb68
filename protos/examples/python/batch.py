"""Detects the persons in several images with one call; one unreadable image does not fail the others.

Usage: python protos/examples/python/batch.py [IMAGE ...]
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


async def main(paths: list[Path]) -> None:
    """Call BatchDetectPoses: responses come in the order of the requests, each a result or a status."""
    requests = [pb.DetectPosesRequest(image=types_pb2.Image(content=path.read_bytes())) for path in paths]
    async with connect(ADDRESS) as channel:
        batch = pb.BatchDetectPosesRequest(requests=requests)
        answer = await PoseServiceStub(channel).BatchDetectPoses(batch, timeout=30)
    for path, result in zip(paths, answer.responses, strict=True):
        if result.WhichOneof("outcome") == "error":
            print(f"{path.name}: {result.error.message}")
        else:
            print(f"{path.name}: {len(result.response.persons)} persons")


DEFAULT = ["tests/data/single_person.jpg", "tests/data/two_people.jpg", "README.md"]
asyncio.run(main([Path(name) for name in sys.argv[1:] or DEFAULT]))
