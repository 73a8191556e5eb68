"""Detects persons, draws them on a blank canvas, and writes them as COCO keypoints.

Usage: python protos/examples/python/render_and_export.py [IMAGE] [FOLDER]
The address of the service is POSEGATE_ADDRESS, or 127.0.0.1:50051.
"""

import asyncio
import os
import sys
from pathlib import Path

from posegate.v1 import pose_service_pb2 as poses_pb
from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from service.client import connect

ADDRESS = os.environ.get("POSEGATE_ADDRESS", "127.0.0.1:50051")


async def main(name: str, content: bytes) -> dict[str, bytes]:
    """Call DetectPoses, RenderPoses and ExportPoses; the last two need no model. The files by name."""
    async with connect(ADDRESS) as channel:
        detect = poses_pb.DetectPosesRequest(image=types_pb2.Image(content=content))
        found = await PoseServiceStub(channel).DetectPoses(detect, timeout=10)
        stub = SkeletonServiceStub(channel)
        render = pb.RenderPosesRequest(
            canvas=pb.Canvas(size=found.image_size, color="#202020"),
            skeleton=found.skeleton,
            persons=found.persons,
        )
        drawn = await stub.RenderPoses(render, timeout=10)
        export = pb.ExportPosesRequest(
            format=pb.EXPORT_FORMAT_COCO_JSON,
            skeleton=found.skeleton,
            items=[pb.ExportItem(file_name=name, image_size=found.image_size, persons=found.persons)],
        )
        exported = await stub.ExportPoses(export, timeout=10)
    return {"canvas.png": drawn.overlay.content, **{file.name: file.content for file in exported.files}}


image = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/two_people.jpg")
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "out")
folder.mkdir(parents=True, exist_ok=True)
for file_name, file_content in asyncio.run(main(image.name, image.read_bytes())).items():
    (folder / file_name).write_bytes(file_content)
    print(f"wrote {folder / file_name}")
