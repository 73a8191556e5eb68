"""Creates a custom skeleton, lists what there is, changes it and removes it again.

Usage: python protos/examples/python/skeletons.py
The address of the service is POSEGATE_ADDRESS, or 127.0.0.1:50051.
"""

import asyncio
import os

from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from service.client import connect

ADDRESS = os.environ.get("POSEGATE_ADDRESS", "127.0.0.1:50051")

SHOULDERS = ("left_shoulder", "right_shoulder")
UPPER_BODY = pb.Skeleton(
    name="example_upper_body",
    keypoints=[
        pb.SkeletonKeypoint(name="nose"),
        # Without such a name in the model: the mean of two of its keypoints.
        pb.SkeletonKeypoint(name="neck", sources=[pb.KeypointSource(name=name) for name in SHOULDERS]),
        *(pb.SkeletonKeypoint(name=name) for name in SHOULDERS),
    ],
    edges=[pb.SkeletonEdge(start="neck", end=end) for end in ("nose", *SHOULDERS)],
    flip_pairs=[pb.FlipPair(left=SHOULDERS[0], right=SHOULDERS[1])],
)


async def main() -> None:
    """Call the five RPCs that keep skeletons. The etag guards against overwriting another change."""
    async with connect(ADDRESS) as channel:
        stub = SkeletonServiceStub(channel)
        created = await stub.CreateSkeleton(pb.CreateSkeletonRequest(skeleton=UPPER_BODY), timeout=5)
        print(f"created {created.skeleton.name}")
        listed = await stub.ListSkeletons(pb.ListSkeletonsRequest(), timeout=5)
        print("listed", ", ".join(skeleton.name for skeleton in listed.skeletons))
        read = await stub.GetSkeleton(pb.GetSkeletonRequest(name=UPPER_BODY.name), timeout=5)
        read.skeleton.title = "Nose, neck and shoulders"
        updated = await stub.UpdateSkeleton(pb.UpdateSkeletonRequest(skeleton=read.skeleton), timeout=5)
        print(f"updated {updated.skeleton.title}")
        delete = pb.DeleteSkeletonRequest(name=UPPER_BODY.name, etag=updated.skeleton.etag)
        await stub.DeleteSkeleton(delete, timeout=5)
        print("deleted")


asyncio.run(main())
