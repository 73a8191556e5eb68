"""Detects the persons in one image with an API key, and prints what is left of the month.

Usage: POSEGATE_API_KEY=pg_… python protos/examples/python/account.py [IMAGE]
The address of the service is POSEGATE_ADDRESS, or 127.0.0.1:50051. Beyond this host give `connect`
credentials, for a key is a secret: connect(ADDRESS, credentials=grpc.ssl_channel_credentials(), api_key=KEY).
"""

import asyncio
import os
import sys
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status.rpc_status import from_call

from posegate.v1 import account_service_pb2 as ab
from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.account_service_pb2_grpc import AccountServiceStub
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.client import connect

ADDRESS = os.environ.get("POSEGATE_ADDRESS", "127.0.0.1:50051")
KEY = os.environ.get("POSEGATE_API_KEY", "")


def reason(error: grpc.aio.AioRpcError) -> str:
    """The reason of an error, such as API_KEY_INVALID or QUOTA_EXCEEDED: stable, for programs."""
    info = error_details_pb2.ErrorInfo()
    status = from_call(error)  # type: ignore[arg-type]  # its stub knows synchronous calls only
    found = status is not None and any(detail.Unpack(info) for detail in status.details)
    return info.reason if found else ""


async def main(content: bytes) -> None:
    """Call DetectPoses and GetAccount; the key goes with both."""
    async with connect(ADDRESS, api_key=KEY) as channel:
        request = pb.DetectPosesRequest(image=types_pb2.Image(content=content))
        call = PoseServiceStub(channel).DetectPoses(request, timeout=10)
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            print(error.code().name, reason(error), error.details())
            raise SystemExit(1) from None
        trailing = dict(await call.trailing_metadata())
        left = str(trailing.get("ratelimit-remaining", "unlimited"))
        print(f"{len(response.persons)} persons; calls left this month: {left}")
        account = await AccountServiceStub(channel).GetAccount(ab.GetAccountRequest(), timeout=10)
    print(f"tenant {account.tenant}, plan {account.plan or 'none'}, {account.limits.max_batch_size} a batch")


path = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/two_people.jpg")
asyncio.run(main(path.read_bytes()))
