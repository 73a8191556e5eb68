"""PoseService."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, nullcontext
from importlib.metadata import version
from typing import Protocol

import structlog

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import pose_service_pb2_grpc, types_pb2
from service.core.geometry import Rgb8
from service.core.model import PoseModel
from service.core.plan import allow
from service.core.poses import Poses
from service.core.skeleton.mapping import apply
from service.core.skeleton.template import Skeleton
from service.errors import Overloaded, Unavailable
from service.media.loading import Decode, Loading, in_thread
from service.pipeline.angles import measure_angles
from service.pipeline.answer_size import AnswerSize
from service.pipeline.estimator import Estimator
from service.pipeline.limits import Limits
from service.pipeline.overlay import Overlay, OverlayConfig, draw_overlay
from service.pipeline.rotation import FairPlaces
from service.servicers.context import Context
from service.servicers.requests.angles import read_measuring
from service.servicers.requests.images import loader
from service.servicers.requests.model_choice import choose_model
from service.servicers.requests.skeleton_choice import choose_skeleton
from service.servicers.requests.skeleton_lookup import SkeletonLookup
from service.servicers.requests.validation import Violations, read_detection, read_page
from service.servicers.responses import messages
from service.servicers.responses.angles import angles_response
from service.servicers.responses.error_status import to_status
from service.servicers.responses.limits import effective_limits
from service.servicers.responses.overlays import overlay_message
from service.servicers.streaming import StreamingMethods
from service.telemetry.call_context import StageTimer, current
from service.telemetry.caller_error import caller_error
from service.triton.catalog import ModelCatalog


class TritonVersion(Protocol):
    """Port: Triton's version."""

    async def server_version(self) -> str:
        """Triton's own version; Unavailable when it does not answer."""


class PoseServicer(pose_service_pb2_grpc.PoseServiceServicer):
    """RPC methods of PoseService.

    Args:
        estimator: estimates the poses in one image.
        catalog: models that are served.
        skeletons: skeletons by name.
        triton: gives its version.
        limits: of the service.
        streaming: the streaming RPCs.
        commit: of the build, hexadecimal; empty where it is not known.
        decode: how images are decoded.
    """

    def __init__(
        self,
        estimator: Estimator,
        catalog: ModelCatalog,
        skeletons: SkeletonLookup,
        triton: TritonVersion,
        limits: Limits,
        streaming: StreamingMethods,
        *,
        commit: str = "",
        decode: Decode = in_thread,
    ) -> None:
        self._decode = decode
        self._estimator = estimator
        self._catalog = catalog
        self._skeletons = skeletons
        self._triton = triton
        self._limits = limits
        self._streaming = streaming
        self._version = version("posegate")  # which reads files
        self._commit = commit
        # A decoded image can have 150 MB: only so many wait to be drawn on.
        self._kept_images = FairPlaces(limits.max_kept_images)

    async def DetectPoses(self, request: pb.DetectPosesRequest, context: Context) -> pb.DetectPosesResponse:
        """Estimate the poses of all persons in one image."""
        answer = await self._detect(request)
        structlog.contextvars.bind_contextvars(image_bytes=len(request.image.content))
        return answer

    async def BatchDetectPoses(
        self, request: pb.BatchDetectPosesRequest, context: Context
    ) -> pb.BatchDetectPosesResponse:
        """Estimate the poses in several images: a response or a status for each, in their order."""
        count, limit = len(request.requests), self._limits.max_batch_size
        violations = Violations()
        if not 1 <= count <= limit:
            violations.add("requests", f"must be 1 to {limit}, not {count}")
        violations.raise_any()
        allow(current().plan, "max_batch_size", count)
        room = asyncio.Semaphore(self._limits.max_inferences)

        size = AnswerSize(self._limits.max_message_bytes)

        async def one(item: pb.DetectPosesRequest) -> pb.BatchDetectPosesResult:
            async with room:
                result = await self._detect_or_status(item)
            size.add(result.ByteSize())
            return result

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(item)) for item in request.requests]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors  # AnswerTooLarge; all others are statuses
        responses = [task.result() for task in tasks]
        failed = sum(response.HasField("error") for response in responses)
        structlog.contextvars.bind_contextvars(
            pictures=count,
            failed=failed,
            image_bytes=sum(len(item.image.content) for item in request.requests),
        )
        return pb.BatchDetectPosesResponse(responses=responses)

    async def MeasureAngles(
        self, request: pb.MeasureAnglesRequest, context: Context
    ) -> pb.MeasureAnglesResponse:
        """Measure joint angles of selected persons; a value that cannot be measured has its reasons."""
        arrived = time.perf_counter()
        angles = read_measuring(request, max_persons=self._limits.max_persons, thresholds=self._limits.angles)
        model = await choose_model(
            self._catalog, request.model, request.model_version, longest_wait_s=self._limits.request_timeout_s
        )
        call = current()
        call.uses(model.model.name)
        with call.stage_timer() as timer:
            load = await self._loader(request.image, timer)
            async with self._keeping(model, angles.overlay, timer):
                estimate = await self._estimator.estimate(
                    load,
                    model,
                    angles.detection,
                    keep_image=angles.overlay is not None,
                    timer=timer,
                )
                each = len(angles.names) * len(estimate.poses) if angles.overlay_each else 0
                report = await self._estimator.draw(
                    0 if angles.overlay is None else (1 + each) * math.prod(estimate.size_wh),
                    timer,
                    measure_angles,
                    estimate,
                    model.skeleton,
                    angles,
                    timer,
                    AnswerSize(self._limits.max_message_bytes),
                )
        structlog.contextvars.bind_contextvars(
            measurements=len(angles.names), image_bytes=len(request.image.content)
        )
        total_ms = (time.perf_counter() - arrived) * 1e3
        return await self._estimator.run(angles_response, report, estimate, model, timer.timings(), total_ms)

    async def AnalyzeVideo(
        self, request_iterator: AsyncIterator[pb.AnalyzeVideoRequest], context: Context
    ) -> AsyncGenerator[pb.AnalyzeVideoResponse, None]:
        """Analyse the frames of a video while it is uploaded."""
        async with aclosing(self._streaming.analyze_video(request_iterator, context)) as answers:
            async for answer in answers:
                yield answer

    async def StreamPoses(
        self, request_iterator: AsyncIterator[pb.StreamPosesRequest], context: Context
    ) -> AsyncGenerator[pb.StreamPosesResponse, None]:
        """Analyse a stream of images as they are captured."""
        async with aclosing(self._streaming.stream_poses(request_iterator, context)) as answers:
            async for answer in answers:
                yield answer

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """List the models by name and version, a page at a time."""
        violations = Violations()
        start, length = read_page(violations, request.page_size, request.page_token)
        models = self._catalog.models(current().tenant)
        if start > len(models):
            violations.add("page_token", "must be a next_page_token of the page before, or empty")
        violations.raise_any()
        page = models[start : start + length]
        by_name = {one.name: one for one in models}
        return pb.ListModelsResponse(
            models=[
                messages.model(
                    one,
                    default=one.name == self._catalog.default_model,
                    detector=by_name.get(one.first_stage),
                )
                for one in page
            ],
            next_page_token=str(start + length) if start + length < len(models) else "",
        )

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        """Give build, limits and readiness; answers without Triton too."""
        try:
            triton_version = await self._triton.server_version()
        except Unavailable:
            triton_version = ""
        models = self._catalog.models(current().tenant)
        return pb.GetServerInfoResponse(
            version=self._version,
            commit=self._commit,
            limits=effective_limits(self._limits, current().plan),
            default_model=self._catalog.default_model,
            triton_version=triton_version,
            models_ready=sorted({model.name for model in models if model.ready}),
        )

    async def _detect_or_status(self, request: pb.DetectPosesRequest) -> pb.BatchDetectPosesResult:
        try:
            return pb.BatchDetectPosesResult(response=await self._detect(request))
        except Exception as error:
            if isinstance(error, Overloaded):
                current().observer.shed(error.reason)
            return pb.BatchDetectPosesResult(error=to_status(caller_error(error), current().request_id))

    async def _detect(self, request: pb.DetectPosesRequest) -> pb.DetectPosesResponse:
        arrived = time.perf_counter()
        config = read_detection(request, max_persons=self._limits.max_persons)
        pose_model = await choose_model(
            self._catalog, request.model, request.model_version, longest_wait_s=self._limits.request_timeout_s
        )
        model = pose_model.model
        if config.overlay is not None and config.overlay.space_panel and model.family != "top_down":
            violations = Violations()
            violations.add(
                "overlay.space_panel", f"needs positions, which model '{model.name}' does not give"
            )
            violations.raise_any()
        call = current()
        call.uses(model.name)
        plan = await choose_skeleton(self._skeletons, self._catalog, request.skeleton, pose_model)
        overlay = None
        with call.stage_timer() as timer:
            load = await self._loader(request.image, timer)
            async with self._keeping(pose_model, config.overlay, timer):
                estimated = await self._estimator.estimate(
                    load,
                    pose_model,
                    config.options,
                    keep_image=config.overlay is not None,
                    timer=timer,
                )
                with timer.timed("postprocess"):
                    poses = apply(plan, estimated.poses)
                if config.overlay is not None and estimated.image is not None:
                    overlay = await self._estimator.draw(
                        math.prod(estimated.size_wh),
                        timer,
                        _drawn,
                        timer,
                        estimated.image,
                        poses,
                        plan.target,
                        config.overlay,
                    )
        return pb.DetectPosesResponse(
            persons=messages.persons(
                poses,
                min_keypoint_score=config.min_keypoint_score,
                include_positions=request.include_positions,
            ),
            image_size=messages.size(estimated.size_wh),
            skeleton=plan.target.name,
            model=model.name,
            model_version=model.version,
            overlay=overlay_message(overlay) if overlay is not None else None,
            timings=messages.timings(timer.timings(), total_ms=(time.perf_counter() - arrived) * 1e3),
        )

    def _keeping(
        self, model: PoseModel, overlay: OverlayConfig | None, timer: StageTimer
    ) -> AbstractAsyncContextManager[None]:
        """Hold a place for a decoded image, where one is kept: to draw on, or to cut crops out of."""
        return nullcontext() if overlay is None and model.detector is None else self._place(timer)

    @asynccontextmanager
    async def _place(self, timer: StageTimer) -> AsyncIterator[None]:
        async with AsyncExitStack() as held:
            with timer.timed("queue"):
                await held.enter_async_context(self._kept_images.place(current().party))
            yield

    async def _loader(self, image: types_pb2.Image, timer: StageTimer) -> Loading:
        fetch = timer.timed("decode") if image.uri else nullcontext()  # it is part of decoding
        with fetch:
            return await loader(image, self._limits, self._decode)


def _drawn(
    timer: StageTimer, image: Rgb8, poses: Poses, skeleton: Skeleton, config: OverlayConfig
) -> Overlay:
    """As `draw_overlay`, timed; for a worker thread."""
    with timer.timed("draw"):
        return draw_overlay(image, poses, skeleton, config)
