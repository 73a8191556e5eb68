"""Measures joint angles of the largest person in one image.

Usage: python protos/examples/python/measure_angles.py [IMAGE]
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
    """Call MeasureAngles; a measurement that cannot be taken has a status and reasons, and no number."""
    request = pb.MeasureAnglesRequest(
        image=types_pb2.Image(content=content),
        measurements=["shoulder_abduction", "knee_flexion"],
    )
    async with connect(ADDRESS) as channel:
        response = await PoseServiceStub(channel).MeasureAngles(request, timeout=10)
    for person in response.persons:
        for measured in person.measurements:
            for side, value in (("left", measured.left), ("right", measured.right)):
                degrees = "-"
                if value.HasField("degrees"):
                    degrees = f"{value.degrees:.0f} ± {value.std_error_deg:.0f}"
                print(measured.name, side, degrees, pb.AngleStatus.Name(value.status), *value.reasons)


path = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/single_person.jpg")
asyncio.run(main(path.read_bytes()))
