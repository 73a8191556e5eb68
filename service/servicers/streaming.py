"""AnalyzeVideo and StreamPoses: messages to use cases and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import grpc
import numpy as np
import structlog
from google.protobuf import duration_pb2

from posegate.v1 import pose_service_pb2 as pb
from service.core.angles import Thresholds
from service.core.geometry import Rgb8
from service.core.model import Model
from service.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    ImageUndecodable,
    InvalidRequest,
    PosegateError,
    Violation,
)
from service.media.image import ImageLimits, decode
from service.media.video_reader import VideoLimits
from service.pipeline import stream as live
from service.pipeline.stream import LiveFrame, StreamAnalyzer, StreamRequest
from service.pipeline.stream_limiter import StreamLimiter
from service.pipeline.video import analyzer as video
from service.pipeline.video.analyzer import VideoAnalyzer, VideoRequest
from service.servicers.requests.validation import Violations
from service.servicers.requests.video_config import (
    StreamConfig,
    VideoConfig,
    duration,
    effective_stream,
    effective_video,
    read_duration,
    read_stream,
    read_video,
)
from service.servicers.responses import frames, messages
from service.servicers.responses.error_status import internal_error, to_status
from service.servicers.skeleton_choice import choose_skeleton
from service.servicers.skeleton_lookup import SkeletonLookup
from service.telemetry.call_context import current
from service.triton.catalog import ModelCatalog

_log = structlog.get_logger()

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic in its stubs only
T = TypeVar("T")
Request = TypeVar("Request", pb.AnalyzeVideoRequest, pb.StreamPosesRequest)

_CONFIG_S = 10.0  # that a caller has for the first message
_MAX_FRAME_ID = 128
_MAX_CAPTURE_S = 1e10  # 316 years: any clock, but not any number


@dataclass(frozen=True)
class RecordingLimits:
    """What is allowed of videos and streams.

    Attributes:
        video: of one video.
        image: of one picture of a stream.
        max_persons: in one answer.
        max_streams: at once.
        idle_s: pause of a caller who has to send something.
        stall_s: pause of a caller who has to take something.
        angles: where measurements draw the line.
    """

    video: VideoLimits
    image: ImageLimits
    max_persons: int
    max_streams: int
    idle_s: float
    stall_s: float
    angles: Thresholds


class Recordings:
    """Videos and live streams.

    Args:
        videos: the use case.
        live: the use case.
        catalog: the models there are.
        skeletons: finds the skeletons that configs name.
        streams: counts them.
        limits: what is allowed.
    """

    def __init__(
        self,
        videos: VideoAnalyzer,
        live: StreamAnalyzer,
        catalog: ModelCatalog,
        skeletons: SkeletonLookup,
        streams: StreamLimiter,
        limits: RecordingLimits,
    ) -> None:
        self._videos = videos
        self._live = live
        self._catalog = catalog
        self._skeletons = skeletons
        self._streams = streams
        self._limits = limits

    def limit_fields(self) -> dict[str, Any]:
        """The fields of `Limits` that are about videos and streams."""
        limits = self._limits
        return {
            "max_video_bytes": limits.video.max_bytes,
            "max_video_duration": duration(limits.video.max_seconds),
            "max_video_frames": limits.video.max_frames,
            "max_streams": limits.max_streams,
        }

    async def analyze_video(
        self, requests: AsyncIterator[pb.AnalyzeVideoRequest], context: Context
    ) -> AsyncGenerator[pb.AnalyzeVideoResponse, None]:
        """Answers as the contract has them."""
        requests = aiter(requests)
        with self._streams.arriving():
            config = (await self._first(requests, "chunks")).config
        wish = read_video(config, max_persons=self._limits.max_persons, thresholds=self._limits.angles)
        pose_model = self._catalog.pose_model(config.model, config.model_version)
        model = pose_model.model
        plan = await choose_skeleton(self._skeletons, self._catalog, config.skeleton, pose_model)
        effective = effective_video(config, wish, model, plan.target.name)
        current().uses(model.name)
        with self._streams.admitted():
            events = self._videos.analyze(
                _chunks(requests),
                VideoRequest(
                    model=pose_model,
                    options=wish.people.options,
                    sampling=wish.sampling,
                    following=wish.people.following(plan, prominent_only=wish.flat),
                    annotated=wish.annotated,
                ),
            )
            n_kpts = len(plan.target.keypoints)
            answers = _video_answers(events, wish, effective, model, n_kpts)
            async with aclosing(_taken(answers, self._limits.stall_s)) as taken:
                async for answer in taken:
                    yield answer

    async def stream_poses(
        self, requests: AsyncIterator[pb.StreamPosesRequest], context: Context
    ) -> AsyncGenerator[pb.StreamPosesResponse, None]:
        """Answers as the contract has them."""
        requests = aiter(requests)
        with self._streams.arriving():
            config = (await self._first(requests, "frames")).config
        wish = read_stream(config, max_persons=self._limits.max_persons, thresholds=self._limits.angles)
        pose_model = self._catalog.pose_model(config.model, config.model_version)
        model = pose_model.model
        plan = await choose_skeleton(self._skeletons, self._catalog, config.skeleton, pose_model)
        effective = effective_stream(config, wish, model, plan.target.name)
        current().uses(model.name)
        with self._streams.admitted():
            started = pb.StreamStarted(
                effective_config=effective,
                model=model.name,
                model_version=model.version,
                skeleton=plan.target.name,
                n_kpts=len(plan.target.keypoints),
            )
            events = self._live.analyze(
                _pictures(requests, self._limits.image),
                StreamRequest(
                    model=pose_model,
                    options=wish.people.options,
                    following=wish.people.following(plan, prominent_only=False),
                    policy=wish.policy,
                ),
            )
            answers = _live_answers(events, wish, started)
            async with aclosing(_taken(answers, self._limits.stall_s)) as taken:
                async for answer in taken:
                    yield answer

    async def _first(self, requests: AsyncIterator[Request], others: str) -> Request:
        """The message with the config; `others` are what comes after it."""
        patience_s = min(self._limits.idle_s, _CONFIG_S)
        try:
            async with asyncio.timeout(patience_s):
                first = await anext(requests)
        except StopAsyncIteration:
            raise _wrong_order("The first message must be the config: nothing was sent.") from None
        except TimeoutError:
            raise DeadlineExceeded(f"No config came within {patience_s:g} s.", reason="CONFIG_LATE") from None
        if first.WhichOneof("request") != "config":
            raise _wrong_order(f"The first message must be the config, and the {others} come after it.")
        return first


async def _taken(answers: AsyncGenerator[T, None], stall_s: float) -> AsyncGenerator[T, None]:
    """The answers; the call is given up when the caller takes none for so long."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - a call is a task
    async with aclosing(answers) as running:
        async for answer in running:
            timer = loop.call_later(stall_s, task.cancel)
            try:
                yield answer
            finally:
                timer.cancel()


async def _chunks(requests: AsyncIterator[pb.AnalyzeVideoRequest]) -> AsyncGenerator[bytes, None]:
    async for request in requests:
        kind = request.WhichOneof("request")
        if kind == "config":
            raise _wrong_order("The config may be sent once only: send chunks after it.")
        if kind is None:
            raise _wrong_order("A message must hold a chunk.")
        if request.chunk:
            yield request.chunk


async def _pictures(
    requests: AsyncIterator[pb.StreamPosesRequest], limits: ImageLimits
) -> AsyncGenerator[LiveFrame, None]:
    times = _CaptureTimes()
    async for request in requests:
        kind = request.WhichOneof("request")
        if kind == "config":
            raise _wrong_order("The config may be sent once only: send frames after it.")
        if kind is None:
            raise _wrong_order("A message must hold a frame.")
        frame = request.frame
        found = Violations("frame.")
        if len(frame.frame_id) > _MAX_FRAME_ID:
            found.add("frame_id", f"must have at most {_MAX_FRAME_ID} characters, not {len(frame.frame_id)}")
        capture_s = times.read(found, frame)
        try:
            found.raise_any()
        except InvalidRequest as error:  # of this picture alone
            yield LiveFrame(frame.frame_id[:_MAX_FRAME_ID], partial(_refused, error), capture_s)
        else:
            echo = frame.capture_time if capture_s is not None else None
            yield LiveFrame(frame.frame_id, partial(_picture, frame, limits), capture_s, echo)


class _CaptureTimes:
    """Reads when pictures were taken: all of a stream say so or none does, and they never fall."""

    def __init__(self) -> None:
        self._given: bool | None = None
        self._last_s = 0.0

    def read(self, found: Violations, frame: pb.StreamFrame) -> float | None:
        """Seconds; None for the time of arrival, or for a picture that is refused."""
        given = frame.HasField("capture_time")
        self._given = given if self._given is None else self._given
        if given is not self._given:
            found.add("capture_time", "must be set in all frames of a stream, or in none")
        if not given or not self._given:
            return None
        seconds = read_duration(found, "capture_time", frame.capture_time)
        if seconds > _MAX_CAPTURE_S:
            found.add("capture_time", f"must be at most {_MAX_CAPTURE_S:.0f} s")
        elif seconds < self._last_s:
            found.add("capture_time", f"must not be before that of an earlier frame, {self._last_s:g} s")
        if found:
            return None
        self._last_s = seconds
        return seconds


def _refused(error: InvalidRequest) -> Rgb8:
    raise error


def _picture(frame: pb.StreamFrame, limits: ImageLimits) -> Rgb8:
    """The pixels of one picture of a stream. For a worker thread."""
    kind = frame.WhichOneof("picture")
    if kind == "encoded":
        return decode(frame.encoded, limits)
    if kind is None:
        raise ImageUndecodable("The frame holds no picture: set `encoded` or `raw`.")
    width, height, rgb = frame.raw.size.width, frame.raw.size.height, frame.raw.rgb
    if width < 1 or height < 1:
        raise ImageUndecodable("The raw picture needs its size: width and height of 1 or more.")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"The picture has {width}×{height} px; at most {limits.max_pixels} px are accepted: "
            "scale it down.",
            metadata={"limit_pixels": str(limits.max_pixels), "actual_pixels": str(width * height)},
        )
    if len(rgb) != width * height * 3:
        raise ImageUndecodable(
            f"A raw picture of {width}×{height} px has {width * height * 3} bytes of RGB, not {len(rgb)}."
        )
    return np.frombuffer(rgb, np.uint8).reshape(height, width, 3)


async def _video_answers(
    events: AsyncGenerator[video.Event, None],
    wish: VideoConfig,
    effective: pb.VideoConfig,
    model: Model,
    n_kpts: int,
) -> AsyncGenerator[pb.AnalyzeVideoResponse, None]:
    async with aclosing(events) as running:
        async for event in running:
            match event:
                case video.FrameDone():
                    yield pb.AnalyzeVideoResponse(frame=_frame(event, wish, n_kpts))
                case video.Progress():
                    yield pb.AnalyzeVideoResponse(progress=_progress(event))
                case video.Piece(content):
                    yield pb.AnalyzeVideoResponse(annotated_chunk=content)
                case video.Started(facts):
                    started = pb.VideoStarted(
                        video=pb.VideoInfo(
                            container=facts.container,
                            codec=facts.codec,
                            frame_size=messages.size(facts.size_wh),
                            rotation_deg=facts.rotation_deg,
                            fps=facts.fps,
                            duration=duration(facts.duration_s) if facts.duration_s is not None else None,
                            frame_count=facts.frame_count,
                        ),
                        effective_config=effective,
                        model=model.name,
                        model_version=model.version,
                        skeleton=effective.skeleton,
                        n_kpts=n_kpts,
                    )
                    yield pb.AnalyzeVideoResponse(started=started)
                case video.Summary():
                    yield pb.AnalyzeVideoResponse(summary=_video_summary(event, n_kpts))


def _frame(done: video.FrameDone, wish: VideoConfig, n_kpts: int) -> pb.FrameResult:
    result = pb.FrameResult(
        frame_index=done.index,
        time=duration(done.time_s),
        angles=frames.frame_angles(done.followed, flat=wish.flat),
        timings=messages.timings(done.timings, total_ms=done.total_ms),
    )
    if wish.flat:
        raw, smoothed = frames.flat_values(done.followed, wish.people, n_kpts)
        result.values.extend(raw)
        result.smoothed_values.extend(smoothed)
    else:
        result.persons.extend(frames.followed_persons(done.followed, wish.people))
    return result


def _progress(told: video.Progress) -> pb.VideoProgress:
    return pb.VideoProgress(
        frame=told.frame,
        total=told.total,
        percent=told.percent,
        fps=told.fps,
        elapsed=duration(told.elapsed_s),
        eta=duration(told.eta_s) if told.eta_s is not None else None,
        bytes_received=told.bytes_received,
    )


def _video_summary(told: video.Summary, n_kpts: int) -> pb.VideoSummary:
    return pb.VideoSummary(
        fps=told.fps,
        frame_width=told.size_wh[0],
        frame_height=told.size_wh[1],
        total_frames=told.total_frames,
        n_kpts=n_kpts,
        frames_analyzed=told.frames_analyzed,
        frames_with_persons=told.frames_with_persons,
        persons_tracked=told.persons_tracked,
        wall_time=duration(told.wall_s),
        measurements=frames.motions(told.motions),
    )


async def _live_answers(
    events: AsyncGenerator[live.Event, None], wish: StreamConfig, started: pb.StreamStarted
) -> AsyncGenerator[pb.StreamPosesResponse, None]:
    async with aclosing(events) as running:
        yield pb.StreamPosesResponse(started=started)
        async for event in running:
            match event:
                case live.StreamResult():
                    yield pb.StreamPosesResponse(result=_result(event, wish))
                case live.Silence():
                    yield pb.StreamPosesResponse(keep_alive=pb.StreamKeepAlive())
                case live.LiveSummary():
                    structlog.contextvars.bind_contextvars(
                        received=event.received, dropped=event.dropped, failed=event.failed
                    )
                    summary = pb.StreamSummary(
                        frames_received=event.received,
                        frames_answered=event.answered,
                        frames_dropped=event.dropped,
                        frames_failed=event.failed,
                        persons_tracked=event.persons_tracked,
                        wall_time=duration(event.wall_s),
                        measurements=frames.motions(event.motions),
                    )
                    yield pb.StreamPosesResponse(summary=summary)


def _result(told: live.StreamResult, wish: StreamConfig) -> pb.StreamResult:
    result = pb.StreamResult(frame_id=told.frame_id, dropped_frames=told.dropped, capture_time=_echoed(told))
    if told.followed is not None and told.size_wh is not None and told.timings is not None:
        result.persons.extend(frames.followed_persons(told.followed, wish.people))
        result.angles.extend(frames.frame_angles(told.followed, flat=False))
        result.image_size.CopyFrom(messages.size(told.size_wh))
        result.timings.CopyFrom(messages.timings(told.timings, total_ms=told.total_ms))
    elif told.error is not None:
        result.timings.total_ms = told.total_ms
        error = told.error
        if not isinstance(error, PosegateError):
            _log.error("internal_error", exc_info=error)
            error = internal_error(current().request_id)
        result.error.CopyFrom(to_status(error, current().request_id))
    return result


def _echoed(told: live.StreamResult) -> duration_pb2.Duration:
    return told.echo if isinstance(told.echo, duration_pb2.Duration) else duration(told.capture_s)


def _wrong_order(message: str) -> InvalidRequest:
    return InvalidRequest(message, violations=[Violation("request", message)])
