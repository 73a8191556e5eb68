"""Sends a request with two wrong fields and prints what the error says.

Usage: python protos/examples/python/errors.py
The address of the service is POSEGATE_ADDRESS, or 127.0.0.1:50051.
"""

import asyncio
import os

import grpc
from google.rpc import error_details_pb2, status_pb2

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.client import connect

ADDRESS = os.environ.get("POSEGATE_ADDRESS", "127.0.0.1:50051")


async def main() -> None:
    """Read code, reason and every wrong field of a failed call."""
    image = types_pb2.Image(content=b"not an image")
    request = pb.DetectPosesRequest(image=image, min_score=2.0, iou_threshold=-1.0)
    async with connect(ADDRESS) as channel:
        try:
            await PoseServiceStub(channel).DetectPoses(request, timeout=10)
        except grpc.aio.AioRpcError as error:
            explain(error)


def explain(error: grpc.aio.AioRpcError) -> None:
    """Print the code, and the details of the google.rpc.Status that came with it."""
    print(error.code().name, error.details())
    metadata = dict(error.trailing_metadata() or ())
    print("request id", metadata.get("x-request-id"))
    packed = metadata.get("grpc-status-details-bin", b"")
    status = status_pb2.Status.FromString(packed if isinstance(packed, bytes) else b"")
    info = error_details_pb2.ErrorInfo()
    fields = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            print("reason", info.reason)
        elif detail.Unpack(fields):
            for violation in fields.field_violations:
                print(f"{violation.field}: {violation.description}")
        elif detail.Unpack(retry):
            print("retry after", retry.retry_delay.ToTimedelta())


asyncio.run(main())
