"""Find the people in a picture with an API key, and see what is left of the month.

pip install grpcio protobuf googleapis-common-protos   # and protos/ on PYTHONPATH
POSEGATE_API_KEY=pg_… python with_key.py picture.jpg [host:port] [ca.crt]
"""

import os
import sys
from pathlib import Path

import grpc
from google.rpc import error_details_pb2, status_pb2

from posegate.v1 import account_service_pb2, account_service_pb2_grpc, pose_service_pb2_grpc
from posegate.v1.pose_service_pb2 import DetectPosesRequest
from posegate.v1.types_pb2 import Image


def main(picture: str, address: str = "127.0.0.1:50051", ca: str = "") -> int:
    """Print the people in a picture and the account. Returns 0, or 1 where the service refused."""
    metadata = [("authorization", f"Bearer {os.environ['POSEGATE_API_KEY']}")]
    # A key is a secret: in clear text only to a service on this machine, or through a mesh that encrypts.
    if ca:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(Path(ca).read_bytes()))
    else:
        channel = grpc.insecure_channel(address)
    with channel:
        request = DetectPosesRequest(image=Image(content=Path(picture).read_bytes()))
        call = pose_service_pb2_grpc.PoseServiceStub(channel).DetectPoses
        try:
            answer, details = call.with_call(request, metadata=metadata, timeout=60)
        except grpc.RpcError as error:
            print(f"{error.code().name} {reason(error)}: {error.details()}")
            return 1
        left = dict(details.trailing_metadata()).get("ratelimit-remaining", "unlimited")
        print(f"{len(answer.persons)} people, {left} calls left this month")
        account = account_service_pb2_grpc.AccountServiceStub(channel).GetAccount(
            account_service_pb2.GetAccountRequest(), metadata=metadata, timeout=10
        )
        print(f"tenant {account.tenant}, plan {account.plan}")
    return 0


def reason(error: grpc.RpcError) -> str:
    """The reason of an error, such as QUOTA_EXCEEDED: stable, for programs."""
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            info = error_details_pb2.ErrorInfo()
            if any(detail.Unpack(info) for detail in status_pb2.Status.FromString(value).details):
                return info.reason
    return ""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
