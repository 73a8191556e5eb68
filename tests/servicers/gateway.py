"""A gateway in this process: real gRPC and interceptors, a model that always finds the same people."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2
from numpy.typing import NDArray

from posegate.v1 import pose_service_pb2_grpc, skeleton_service_pb2_grpc, types_pb2
from posegate.v1 import skeleton_service_pb2 as pb
from service.core.angles import Thresholds
from service.core.model import Model
from service.core.poses import Poses
from service.core.skeleton.template import Skeleton
from service.errors import Unavailable
from service.media.image import ImageLimits, encode
from service.pipeline.estimator import Estimator
from service.server.interceptors import RequestInterceptor
from service.servicers.export import PoseExporter
from service.servicers.pose import PoseLimits, PoseServicer
from service.servicers.render import PoseRenderer, RenderLimits
from service.servicers.skeleton_lookup import SkeletonLookup
from service.skeletons import shipped
from service.triton.catalog import ModelCatalog
from tests.core.persons import random_people

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub
    from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceAsyncStub

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

SIZE = 640
IMAGE = ImageLimits(max_bytes=1_000_000, max_pixels=4_000_000)
MAX_EXPORT_BYTES = 2_000_000


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


MODELS = (model("body", "coco_17"), model("whole", "coco_wholebody_133"))


class Triton:
    """Finds two people everywhere: those of `found`."""

    async def models(self) -> Sequence[Model]:
        return MODELS

    async def server_version(self) -> str:
        return "0"

    async def infer(
        self,
        model: Model,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
        *,
        deadline: float,
        request_id: str = "",
    ) -> Mapping[str, NDArray[Any]]:
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


class CustomSkeletons:
    """The skeletons of tenant `default`; away while `away`."""

    def __init__(self, *skeletons: Skeleton) -> None:
        self._known = {skeleton.name: skeleton for skeleton in skeletons}
        self.away = False

    async def get(self, tenant: str, name: str) -> Skeleton | None:
        if self.away:
            raise Unavailable("The database is away.", retry_after_s=1.0)
        return self._known.get(name) if tenant == "default" else None


class _Skeletons(skeleton_service_pb2_grpc.SkeletonServiceServicer):
    def __init__(self, renderer: PoseRenderer, exporter: PoseExporter) -> None:
        self._renderer = renderer
        self._exporter = exporter

    async def RenderPoses(self, request: pb.RenderPosesRequest, context: Context) -> pb.RenderPosesResponse:  # noqa: N802
        return await self._renderer.render(request)

    async def ExportPoses(self, request: pb.ExportPosesRequest, context: Context) -> pb.ExportPosesResponse:  # noqa: N802
        return await self._exporter.export(request)


@asynccontextmanager
async def gateway(custom: CustomSkeletons) -> AsyncIterator[str]:
    """Its address."""
    triton = Triton()
    lookup = SkeletonLookup(shipped(), custom)
    catalog = ModelCatalog(triton, shipped(), "body")
    await catalog.refresh()
    with ThreadPoolExecutor(2) as workers:
        limits = PoseLimits(
            image=IMAGE,
            max_batch_size=4,
            max_persons=10,
            max_in_flight=10,
            max_in_flight_bytes=1 << 30,
            max_message_bytes=64 << 20,
            max_kept_images=2,
            max_batch_at_once=2,
            request_timeout_s=30.0,
            uri_hosts=frozenset(),
            max_skeletons=1000,
            angles=Thresholds(),
        )
        pose = PoseServicer(Estimator(triton, workers, 4), catalog, lookup, triton, limits)
        skeletons = _Skeletons(  # type: ignore[abstract]  # the other calls are UNIMPLEMENTED
            PoseRenderer(lookup, workers, RenderLimits(IMAGE, 10, frozenset())),
            PoseExporter(lookup, workers, MAX_EXPORT_BYTES),
        )
        options = [("grpc.max_receive_message_length", 64 << 20)]
        server = grpc.aio.server(interceptors=[RequestInterceptor(30.0)], options=options)
        pose_service_pb2_grpc.add_PoseServiceServicer_to_server(pose, server)
        skeleton_service_pb2_grpc.add_SkeletonServiceServicer_to_server(skeletons, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)


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
