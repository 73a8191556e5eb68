"""Prints the limits in force and the models that are served, each with the licence of its weights.

Usage: python protos/examples/python/server_info.py
The address of the service is POSEGATE_ADDRESS, or 127.0.0.1:50051.
"""

import asyncio
import os

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.client import connect

ADDRESS = os.environ.get("POSEGATE_ADDRESS", "127.0.0.1:50051")


async def main() -> None:
    """Call GetServerInfo, then ListModels page by page."""
    async with connect(ADDRESS) as channel:
        stub = PoseServiceStub(channel)
        info = await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=5)
        print(f"posegate {info.version}, Triton {info.triton_version}, default model {info.default_model}")
        print(f"at most {info.limits.max_image_bytes} bytes an image, {info.limits.max_batch_size} a batch")
        page_token = ""
        while True:
            page = await stub.ListModels(pb.ListModelsRequest(page_token=page_token), timeout=5)
            for model in page.models:
                print(f"{model.name} {model.version}: {model.skeleton}, weights under {model.licence}")
            page_token = page.next_page_token
            if not page_token:
                break


asyncio.run(main())
