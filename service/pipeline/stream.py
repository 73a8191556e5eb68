"""Use case StreamPoses: images as they are captured, to the persons on them, in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from service.core.model import PoseModel
from service.core.sequence.recording import MeasurementMotion
from service.errors import DeadlineExceeded
from service.media.loading import Load
from service.pipeline.background import EventQueue, background
from service.pipeline.estimator import DetectionOptions, Estimate, Estimator
from service.pipeline.ordered_window import InFlight, OrderedWindow
from service.pipeline.patience import item_within
from service.pipeline.sequence_analyzer import (
    FrameAnalysis,
    SequenceAnalyzer,
    SequenceConfig,
)
from service.pipeline.stream_limiter import StreamLimiter
from service.telemetry.call_context import StageTimer, Timings, current

FramePolicy = Literal["every", "latest"]

_DRAIN_CHECK_S = 1.0
# With more frames of one stream at the model at once every result would only come later.
_LATEST_IN_FLIGHT = 2


@dataclass(frozen=True)
class StreamRequest:
    """What a caller asks of one stream.

    Attributes:
        model: estimates the poses.
        options: of the detection.
        sequence: tracking, smoothing and measurements.
        policy: "every" answers all frames; "latest" drops a frame that waits when a newer one comes.
    """

    model: PoseModel
    options: DetectionOptions
    sequence: SequenceConfig
    policy: FramePolicy


@dataclass(frozen=True, eq=False)
class StreamFrame:
    """One frame of a stream.

    Attributes:
        frame_id: identifier from the caller.
        load: gives the upright image; for a worker thread.
        capture_ns: capture time on the caller's clock; None for the time of arrival.
        size: bytes that it holds.
    """

    frame_id: str
    load: Load
    capture_ns: int | None
    size: int = 0


@dataclass(frozen=True, eq=False)
class FrameAnswer:
    """The persons on one frame.

    Attributes:
        size_wh: of the upright image, px.
        analysis: the persons on it.
        timings: by stage.
    """

    size_wh: tuple[int, int]
    analysis: FrameAnalysis
    timings: Timings


@dataclass(frozen=True, eq=False)
class StreamResult:
    """The result of one frame.

    Attributes:
        frame_id: of the frame.
        capture_ns: of the frame, or its time of arrival since the start of the stream.
        dropped: frames dropped since the previous result.
        total_ms: from arrival to result.
        answer: the persons on it, or the error of this frame alone. Errors other than PosegateError are
            internal: they are logged, not sent.
    """

    frame_id: str
    capture_ns: int
    dropped: int
    total_ms: float
    answer: FrameAnswer | Exception


@dataclass(frozen=True)
class KeepAlive:
    """No result for the keep-alive interval."""


@dataclass(frozen=True)
class StreamSummary:
    """Totals of the whole stream; the last event. `wall_s` is its duration."""

    received: int
    answered: int
    dropped: int
    failed: int
    persons_tracked: int
    wall_s: float
    motions: list[MeasurementMotion]


Event: TypeAlias = StreamResult | KeepAlive | StreamSummary


class StreamAnalyzer:
    """Analyses streams of images.

    Args:
        estimator: estimates the poses on one frame.
        limiter: says when the service stops.
        look_ahead: frames of one stream in flight.
        look_ahead_bytes: of those frames; one is always allowed.
        frame_timeout_s: of one frame at the model.
        keep_alive_s: interval without a result after which a keep-alive is sent.
        quiet_s: a stream without a frame for longer is ended.
        clock: seconds.
    """

    def __init__(
        self,
        estimator: Estimator,
        limiter: StreamLimiter,
        *,
        look_ahead: int,
        look_ahead_bytes: int,
        frame_timeout_s: float,
        keep_alive_s: float,
        quiet_s: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._estimator = estimator
        self._limiter = limiter
        self._look_ahead = look_ahead
        self._look_ahead_bytes = look_ahead_bytes
        self._frame_timeout_s = frame_timeout_s
        self._keep_alive_s = keep_alive_s
        self._quiet_s = quiet_s
        self._clock = clock

    async def analyze(
        self, frames: AsyncIterator[StreamFrame], request: StreamRequest
    ) -> AsyncGenerator[Event, None]:
        """Results in the order of the frames; `StreamSummary` is the last event. Close the iterator to stop
        the work.

        Args:
            frames: the stream; its errors become those of the analysis.
            request: options of the stream.

        Raises:
            Unavailable: the service stops.
            DeadlineExceeded: no frame came for too long.
            PosegateError: what `frames` raises.
        """
        run = _Run(
            estimator=self._estimator,
            request=request,
            in_flight=_LATEST_IN_FLIGHT if request.policy == "latest" else self._look_ahead,
            in_flight_bytes=self._look_ahead_bytes,
            frame_timeout_s=self._frame_timeout_s,
            quiet_s=self._quiet_s,
            clock=self._clock,
        )
        last_sent_at = self._clock()
        async with background(run.execute(frames)):
            while True:
                event = await run.events.next_within(min(_DRAIN_CHECK_S, self._keep_alive_s))
                if event is None and self._clock() - last_sent_at >= self._keep_alive_s:
                    event = KeepAlive()
                if event is not None:
                    last_sent_at = self._clock()
                    yield event
                if isinstance(event, StreamSummary):
                    return
                if self._limiter.ending:
                    raise StreamLimiter.stopping()


@dataclass(frozen=True, eq=False)
class _FrameAtModel:
    """A frame that the model works on."""

    frame: StreamFrame
    arrived_at: float
    capture_ns: int
    dropped: int
    timer: StageTimer


class _Run:
    """The analysis of one stream."""

    def __init__(
        self,
        *,
        estimator: Estimator,
        request: StreamRequest,
        in_flight: int,
        in_flight_bytes: int,
        frame_timeout_s: float,
        quiet_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._estimator = estimator
        self._request = request
        self._frame_timeout_s = frame_timeout_s
        self._quiet_s = quiet_s
        self._clock = clock
        self._sequence = SequenceAnalyzer(request.sequence, request.model.skeleton)
        self._window: OrderedWindow[_FrameAtModel, Estimate] = OrderedWindow(in_flight)
        self._max_bytes = in_flight_bytes
        self._bytes = 0  # of the frames in flight
        self._freed = asyncio.Event()
        self._waiting: tuple[StreamFrame, float] | None = None  # for a place, with its time of arrival
        self._input_ended = False
        self._dropped_before_next = 0
        self._received = self._answered = self._dropped = self._failed = 0
        self._started_at = clock()
        self._last_s = 0.0
        self.events: EventQueue[Event] = EventQueue(1)

    async def execute(self, frames: AsyncIterator[StreamFrame]) -> None:
        """Analyse the stream; the last event is the summary or an error."""
        intake = asyncio.create_task(self._take_in(frames))
        try:
            while (item := await self._window.next()) is not None:
                await self.events.put(await self._finish(item))
                self._window.release()
                self._bytes -= item.frame.frame.size
                del item  # or its frame would be kept until the next one is done
                self._freed.set()
                self._start_waiting()
            await self.events.put(self._summary())
        except Exception as error:
            await self.events.put(error)
        finally:
            intake.cancel()
            await self._window.cancel()
            await asyncio.gather(intake, return_exceptions=True)

    async def _take_in(self, frames: AsyncIterator[StreamFrame]) -> None:
        try:
            while (frame := await item_within(frames, self._quiet_s, self._idle)) is not None:
                self._received += 1
                arrived_at = self._clock()
                if self._request.policy == "every":
                    while not self._has_room(frame):  # no further frame is read meanwhile: back-pressure
                        self._freed.clear()
                        await self._freed.wait()
                    await self._window.reserve()
                    self._start(frame, arrived_at)
                elif self._waiting is None and self._has_room(frame) and self._window.try_reserve():
                    self._start(frame, arrived_at)
                else:
                    if self._waiting is not None:
                        self._dropped += 1
                        self._dropped_before_next += 1
                    self._waiting = frame, arrived_at
        except Exception as error:
            self._window.finish(error)
            return
        self._input_ended = True
        if self._waiting is None:
            self._window.finish()

    def _start_waiting(self) -> None:
        """Start the frame that waits for a place, now that one is free."""
        if self._waiting is None or not self._has_room(self._waiting[0]) or not self._window.try_reserve():
            return
        frame, arrived_at = self._waiting
        self._waiting = None
        self._start(frame, arrived_at)
        if self._input_ended:
            self._window.finish()

    def _has_room(self, frame: StreamFrame) -> bool:
        """Whether the frames in flight hold few enough bytes for another one."""
        return not self._bytes or self._bytes + frame.size <= self._max_bytes

    def _start(self, frame: StreamFrame, arrived_at: float) -> None:
        """Send a frame to the model, in a reserved place."""
        capture_ns = frame.capture_ns
        if capture_ns is None:
            capture_ns = round((arrived_at - self._started_at) * 1e9)
        timer = current().stage_timer()
        self._bytes += frame.size
        self._window.start(
            _FrameAtModel(frame, arrived_at, capture_ns, self._dropped_before_next, timer),
            self._estimator.estimate(
                frame.load,
                self._request.model,
                self._request.options,
                timeout_s=self._frame_timeout_s,
                stream=self,
                timer=timer,
            ),
        )
        self._dropped_before_next = 0

    async def _finish(self, item: InFlight[_FrameAtModel, Estimate]) -> StreamResult:
        frame, answering = item.frame, self._answer(item)
        del item
        # From Python 3.13 on an error's traceback leads to this frame of the stack, too: it has no name here.
        return StreamResult(
            answer=await answering,
            frame_id=frame.frame.frame_id,
            capture_ns=frame.capture_ns,
            dropped=frame.dropped,
            total_ms=(self._clock() - frame.arrived_at) * 1e3,
        )

    async def _answer(self, item: InFlight[_FrameAtModel, Estimate]) -> FrameAnswer | Exception:
        frame = item.frame
        try:
            with frame.timer:
                estimate = await item.result
        except Exception as error:  # of this frame alone
            self._failed += 1
            return error
        finally:
            del item  # else an error and this frame of the stack would keep each other, and the image
        self._answered += 1
        self._last_s = max(self._last_s, frame.capture_ns / 1e9)
        analysis = self._sequence.add_frame(estimate.poses, estimate.size_wh, self._last_s)
        return FrameAnswer(estimate.size_wh, analysis, estimate.timings)

    def _idle(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"No image came for {self._quiet_s:g} s: half-close a stream that is over, and open a new "
            "one when there are images again.",
            reason="STREAM_IDLE",
            metadata={"limit_seconds": f"{self._quiet_s:g}"},
        )

    def _summary(self) -> StreamSummary:
        return StreamSummary(
            received=self._received,
            answered=self._answered,
            dropped=self._dropped,
            failed=self._failed,
            persons_tracked=self._sequence.persons_tracked,
            wall_s=self._clock() - self._started_at,
            motions=self._sequence.summary(),
        )
