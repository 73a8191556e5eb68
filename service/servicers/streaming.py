"""The streaming RPCs: AnalyzeVideo and StreamPoses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace

import structlog

from posegate.v1 import pose_service_pb2 as pb
from service.media.loading import Decode, in_thread
from service.pipeline.limits import Limits
from service.pipeline.stream import StreamAnalyzer, StreamSummary
from service.pipeline.stream_limiter import StreamLimiter
from service.pipeline.video.analyzer import VideoAnalyzer
from service.servicers.context import Context
from service.servicers.plan_length import frames_within_plan, refused_by_plan
from service.servicers.requests.model_choice import choose_model
from service.servicers.requests.skeleton_choice import choose_skeleton
from service.servicers.requests.skeleton_lookup import SkeletonLookup
from service.servicers.requests.uploads import first_message, stream_frames, video_chunks
from service.servicers.requests.video_config import read_stream, read_video
from service.servicers.responses.effective_config import effective_stream, effective_video
from service.servicers.responses.stream_events import StreamResponses
from service.servicers.responses.video_events import VideoResponses
from service.telemetry.call_context import current
from service.triton.catalog import ModelCatalog

_CONFIG_S = 10.0  # time for the first message, at most


class StreamingMethods:
    """The streaming RPCs of PoseService.

    Args:
        videos: use case of AnalyzeVideo.
        streams: use case of StreamPoses.
        catalog: models that are served.
        skeletons: skeletons by name.
        limiter: number of videos and streams at once.
        limits: of each.
        decode: how frames of StreamPoses are decoded.
    """

    def __init__(
        self,
        videos: VideoAnalyzer,
        streams: StreamAnalyzer,
        catalog: ModelCatalog,
        skeletons: SkeletonLookup,
        limiter: StreamLimiter,
        limits: Limits,
        decode: Decode = in_thread,
    ) -> None:
        self._decode = decode
        self._videos = videos
        self._streams = streams
        self._catalog = catalog
        self._skeletons = skeletons
        self._limiter = limiter
        self._limits = limits

    async def analyze_video(
        self, requests: AsyncIterator[pb.AnalyzeVideoRequest], context: Context
    ) -> AsyncGenerator[pb.AnalyzeVideoResponse, None]:
        """Config and chunks in; frames, progress, the annotated video and a summary out."""
        requests = aiter(requests)
        with self._limiter.arriving():
            config = (await first_message(requests, "chunks", self._config_s)).config
            options = read_video(config, max_persons=self._limits.max_persons, thresholds=self._limits.angles)
            model = await choose_model(
                self._catalog,
                config.model,
                config.model_version,
                longest_wait_s=self._limits.request_timeout_s,
            )
        plan = await choose_skeleton(self._skeletons, self._catalog, config.skeleton, model)
        effective = effective_video(config, options, model.model, plan.target.name)
        responses = VideoResponses(options, effective, model.model, len(plan.target.keypoints))
        current().uses(model.model.name)
        with self._limiter.admitted():
            tier = current().plan
            request = options.request(model, plan)
            if tier is not None:
                request = replace(request, max_seconds=tier.max_video_seconds)
            analysis = self._videos.analyze(video_chunks(requests), request)
            async with aclosing(refused_by_plan(analysis, tier)) as events:
                async for event in events:
                    with _stall_limit(self._limits.stream_stall_s):
                        yield responses.response(event)

    async def stream_poses(
        self, requests: AsyncIterator[pb.StreamPosesRequest], context: Context
    ) -> AsyncGenerator[pb.StreamPosesResponse, None]:
        """Config and frames in; a result for every frame and a summary out."""
        requests = aiter(requests)
        with self._limiter.arriving():
            config = (await first_message(requests, "frames", self._config_s)).config
            options = read_stream(
                config, max_persons=self._limits.max_persons, thresholds=self._limits.angles
            )
            model = await choose_model(
                self._catalog,
                config.model,
                config.model_version,
                longest_wait_s=self._limits.request_timeout_s,
            )
        plan = await choose_skeleton(self._skeletons, self._catalog, config.skeleton, model)
        effective = effective_stream(config, options, model.model, plan.target.name)
        responses = StreamResponses(options, effective, model.model, len(plan.target.keypoints))
        current().uses(model.model.name)
        with self._limiter.admitted():
            with _stall_limit(self._limits.stream_stall_s):
                yield responses.started()
            frames = frames_within_plan(
                stream_frames(requests, self._limits.image, self._decode), current().plan
            )
            async with aclosing(self._streams.analyze(frames, options.request(model, plan))) as events:
                async for event in events:
                    if isinstance(event, StreamSummary):
                        structlog.contextvars.bind_contextvars(
                            received=event.received, dropped=event.dropped, failed=event.failed
                        )
                    with _stall_limit(self._limits.stream_stall_s):
                        yield responses.response(event)

    @property
    def _config_s(self) -> float:
        return min(self._limits.stream_idle_s, _CONFIG_S)


@contextmanager
def _stall_limit(seconds: float) -> Iterator[None]:
    """Cancel the call if the caller does not take the response that is sent in the block within so long."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a call is a task
    timer = asyncio.get_running_loop().call_later(seconds, task.cancel)
    try:
        yield
    finally:
        timer.cancel()
