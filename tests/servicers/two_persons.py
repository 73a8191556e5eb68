"""A model server that finds the same two persons in every image, and what tests of skeletons say to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2

from posegate.v1 import pose_service_pb2_grpc, skeleton_service_pb2_grpc, types_pb2
from service.core.model import Model
from service.core.poses import Poses
from service.media.image import encode
from service.skeletons import shipped
from service.triton.shared_memory import Loan
from tests.core.persons import random_people
from tests.fakes import FakeTritonClient, Tensors

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub
    from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceAsyncStub

SIZE = 640


def model(name: str, skeleton: str) -> Model:
    return Model(
        name=name,
        version="1",
        family="yolo_pose",
        skeleton=skeleton,
        keypoint_count=len(shipped()[skeleton].keypoints),
        shapes_hw=((SIZE, SIZE),),
        ready=True,
    )


class TwoPersons(FakeTritonClient):
    """Serves the models `body` and `whole`, which find the persons of `found`."""

    def __init__(self) -> None:
        super().__init__()
        self.served = (model("body", "coco_17"), model("whole", "coco_wholebody_133"))

    async def infer(
        self,
        model: Model,
        inputs: Tensors,
        outputs: Sequence[str],
        *,
        deadline: float,
        request_id: str = "",
        loan: Loan | None = None,
    ) -> Tensors:
        poses = found(model.skeleton)
        corners = poses.boxes_xyxy
        boxes = np.hstack([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]])
        rows = np.hstack([boxes, poses.scores[:, None], poses.keypoints.reshape(len(poses), -1)])
        return {"candidates": rows[None].astype(np.float32)}


def found(skeleton: str) -> Poses:
    """The two people that every picture shows: one left, one right, the second without a left hand."""
    everybody = random_people(2, shipped()[skeleton], size=SIZE / 2)
    everybody.keypoints[1, :, 0] += SIZE / 2
    everybody.boxes_xyxy[1, [0, 2]] += SIZE / 2
    if skeleton == "coco_wholebody_133":
        everybody.keypoints[1, 91:112] = np.nan  # a model's slip: x = y = score = 0 in the answer
    return everybody


def pose_stub(channel: grpc.aio.Channel) -> PoseServiceAsyncStub:
    return pose_service_pb2_grpc.PoseServiceStub(channel)


def skeleton_stub(channel: grpc.aio.Channel) -> SkeletonServiceAsyncStub:
    return skeleton_service_pb2_grpc.SkeletonServiceStub(channel)


def grey(width: int = SIZE, height: int = SIZE) -> types_pb2.Image:
    return types_pb2.Image(content=encode(np.full((height, width, 3), 90, np.uint8), "png"))


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value)  # type: ignore[arg-type]  # -bin keys hold bytes
    raise AssertionError(f"no details came with {error}")


def violations_of(error: grpc.aio.AioRpcError) -> list[str]:
    """The fields that are wrong."""
    found = error_details_pb2.BadRequest()
    for detail in status_of(error).details:
        detail.Unpack(found)  # leaves it alone where it is another type
    return [violation.field for violation in found.field_violations]


def reason_of(error: grpc.aio.AioRpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    status_of(error).details[0].Unpack(info)
    return info.reason
