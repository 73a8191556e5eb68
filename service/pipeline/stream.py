"""The use case: pictures as they are taken, to what is seen on them, in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

from service.core.geometry import Rgb8
from service.core.model import PoseModel
from service.errors import DeadlineExceeded
from service.pipeline.concurrency import ended, next_within
from service.pipeline.estimator import DetectionOptions, Estimate, Estimator
from service.pipeline.sequence_analyzer import (
    FrameAnalysis,
    MeasurementMotion,
    SequenceAnalyzer,
    SequenceConfig,
)
from service.pipeline.stream_limiter import StreamLimiter
from service.telemetry.call_context import StageTimer, Timings, current

Policy = Literal["every", "latest"]

_LOOK_S = 1.0  # between two looks at whether the service stops
# More at the model at once would only make every answer later.
_LATEST_AT_ONCE = 2


@dataclass(frozen=True)
class StreamRequest:
    """What is wanted of a stream of pictures.

    Attributes:
        model: answers, with its detector and its skeleton.
        options: how.
        following: what becomes of the people.
        policy: "every" answers all pictures; "latest" drops those that wait when a newer one comes.
    """

    model: PoseModel
    options: DetectionOptions
    following: SequenceConfig
    policy: Policy


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """One picture.

    Attributes:
        frame_id: the caller's name for it.
        load: gives the upright RGB picture; runs in a worker thread.
        capture_s: when it was taken; None for the time of arrival.
        echo: goes into its result as it is.
    """

    frame_id: str
    load: Callable[[], Rgb8]
    capture_s: float | None
    echo: object = None


@dataclass(frozen=True, eq=False)
class StreamResult:
    """What is seen on one picture, or why nothing can be said of it.

    Attributes:
        frame_id, capture_s, echo: of the picture.
        dropped: pictures dropped since the one before.
        size_wh, followed, timings: None where there is an error.
        total_ms: from arrival to answer.
        error: what is wrong with this picture; a stranger's error is not for the caller's eyes.
    """

    frame_id: str
    capture_s: float
    dropped: int
    total_ms: float
    size_wh: tuple[int, int] | None = None
    followed: FrameAnalysis | None = None
    timings: Timings | None = None
    error: Exception | None = None
    echo: object = None


@dataclass(frozen=True)
class Silence:
    """There was nothing to say for a while."""


@dataclass(frozen=True)
class LiveSummary:
    """The whole stream."""

    received: int
    answered: int
    dropped: int
    failed: int
    persons_tracked: int
    wall_s: float
    motions: list[MeasurementMotion]


Event = StreamResult | Silence | LiveSummary


class StreamAnalyzer:
    """Analyses streams of pictures.

    Args:
        estimator: pictures to people.
        streams: says when to stop.
        look_ahead: pictures of one stream at work at once.
        frame_timeout_s: for one picture.
        keep_alive_s: silence after which something is said.
        quiet_s: a stream without a picture for longer is ended.
    """

    def __init__(
        self,
        estimator: Estimator,
        streams: StreamLimiter,
        *,
        look_ahead: int,
        frame_timeout_s: float,
        keep_alive_s: float,
        quiet_s: float,
    ) -> None:
        self._estimator = estimator
        self._streams = streams
        self._look_ahead = look_ahead
        self._frame_timeout_s = frame_timeout_s
        self._keep_alive_s = keep_alive_s
        self._quiet_s = quiet_s

    async def analyze(
        self,
        frames: AsyncIterator[LiveFrame],
        plan: StreamRequest,
    ) -> AsyncGenerator[Event, None]:
        """What is seen, in order; `LiveSummary` last. Close the iterator to stop the work.

        Args:
            frames: pictures; its errors become those of the analysis.
            plan: what is wanted.

        Raises:
            Unavailable: the service stops.
            DeadlineExceeded: no picture came for too long.
            PosegateError: whatever `frames` raises.
        """
        at_once = _LATEST_AT_ONCE if plan.policy == "latest" else self._look_ahead
        job = _Run(self._estimator, plan, at_once, self._frame_timeout_s, self._quiet_s)
        work = asyncio.create_task(job.run(frames))
        told_at = time.monotonic()
        try:
            while True:
                event = await job.next_event(_LOOK_S)
                if isinstance(event, Exception):
                    raise event
                if event is not None:
                    told_at = time.monotonic()
                    yield event
                    if isinstance(event, LiveSummary):
                        return
                elif time.monotonic() - told_at >= self._keep_alive_s:
                    told_at = time.monotonic()
                    yield Silence()
                if self._streams.ending:
                    raise StreamLimiter.stopping()
        finally:
            work.cancel()
            await ended(work)


@dataclass(frozen=True, eq=False)
class _AtModel:
    """A picture that the model is looking at."""

    frame: LiveFrame
    arrived_at: float
    capture_s: float
    dropped: int
    task: asyncio.Task[Estimate]
    timer: StageTimer


class _Run:
    """One stream under way."""

    def __init__(
        self,
        estimator: Estimator,
        plan: StreamRequest,
        at_once: int,
        frame_timeout_s: float,
        quiet_s: float,
    ) -> None:
        self._estimator = estimator
        self._plan = plan
        self._at_once = at_once
        self._frame_timeout_s = frame_timeout_s
        self._quiet_s = quiet_s
        self._follower = SequenceAnalyzer(plan.following, plan.model.skeleton)
        self._ordered: asyncio.Queue[_AtModel | Exception | None] = asyncio.Queue()
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue(1)
        self._room = asyncio.Semaphore(at_once)
        self._at_work: set[asyncio.Task[Estimate]] = set()
        self._under_way = 0  # launched and not yet told
        self._pending: tuple[LiveFrame, float] | None = None
        self._dropped_lately = 0
        self._received = self._answered = self._dropped = self._failed = 0
        self._over = False
        self._started_at = time.perf_counter()
        self._last_s = 0.0

    async def next_event(self, patience_s: float) -> Event | Exception | None:
        """The next thing to tell; None if there is none in time."""
        return await next_within(self._events, patience_s)

    async def run(self, frames: AsyncIterator[LiveFrame]) -> None:
        """Do everything; the last event is the summary or an error."""
        intake = asyncio.create_task(self._take_in(frames))
        try:
            while (item := await self._ordered.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                await self._events.put(await self._finish(item))
                self._go_on()
            await self._events.put(self._summary())
        except Exception as error:  # the caller gets it where the events end
            await self._events.put(error)
        finally:
            intake.cancel()
            for task in self._at_work:
                task.cancel()
            await asyncio.gather(intake, *self._at_work, return_exceptions=True)

    async def _take_in(self, frames: AsyncIterator[LiveFrame]) -> None:
        try:
            while (frame := await self._next(frames)) is not None:
                self._received += 1
                arrived_at = time.perf_counter()
                if self._plan.policy == "every":
                    await self._room.acquire()  # and read no further meanwhile: that slows the sender down
                    self._launch(frame, arrived_at)
                elif self._under_way < self._at_once:
                    self._launch(frame, arrived_at)
                else:
                    if self._pending is not None:
                        self._dropped += 1
                        self._dropped_lately += 1
                    self._pending = frame, arrived_at
        except Exception as error:
            self._ordered.put_nowait(error)
            return
        self._over = True
        if self._pending is None:
            self._ordered.put_nowait(None)

    async def _next(self, frames: AsyncIterator[LiveFrame]) -> LiveFrame | None:
        try:
            async with asyncio.timeout(self._quiet_s):
                return await anext(frames, None)
        except TimeoutError:
            raise DeadlineExceeded(
                f"No picture came for {self._quiet_s:g} s: half-close a stream that is over, and open a new "
                "one when there are pictures again.",
                reason="STREAM_IDLE",
                metadata={"limit_seconds": f"{self._quiet_s:g}"},
            ) from None

    def _launch(self, frame: LiveFrame, arrived_at: float) -> None:
        capture_s = arrived_at - self._started_at if frame.capture_s is None else frame.capture_s
        timer = current().stage_timer()
        task = asyncio.create_task(
            self._estimator.estimate(
                frame.load,
                self._plan.model,
                self._plan.options,
                timeout_s=self._frame_timeout_s,
                stream=self,
                timer=timer,
            )
        )
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        self._under_way += 1
        self._ordered.put_nowait(_AtModel(frame, arrived_at, capture_s, self._dropped_lately, task, timer))
        self._dropped_lately = 0

    def _go_on(self) -> None:
        """One picture was told: there is room for the next."""
        self._under_way -= 1
        if self._plan.policy == "every":
            self._room.release()
        elif self._pending is not None:
            frame, arrived_at = self._pending
            self._pending = None
            self._launch(frame, arrived_at)
            if self._over:
                self._ordered.put_nowait(None)

    async def _finish(self, item: _AtModel) -> StreamResult:
        try:
            with item.timer:
                estimate = await item.task
        except Exception as error:  # of this picture alone
            self._failed += 1
            return StreamResult(
                item.frame.frame_id,
                item.capture_s,
                item.dropped,
                _ms_since(item.arrived_at),
                error=error,
                echo=item.frame.echo,
            )
        self._answered += 1
        self._last_s = max(self._last_s, item.capture_s)
        followed = self._follower.follow(estimate.poses, estimate.size_wh, self._last_s)
        return StreamResult(
            frame_id=item.frame.frame_id,
            capture_s=item.capture_s,
            dropped=item.dropped,
            total_ms=_ms_since(item.arrived_at),
            size_wh=estimate.size_wh,
            followed=followed,
            timings=estimate.timings,
            echo=item.frame.echo,
        )

    def _summary(self) -> LiveSummary:
        return LiveSummary(
            received=self._received,
            answered=self._answered,
            dropped=self._dropped,
            failed=self._failed,
            persons_tracked=self._follower.persons_tracked,
            wall_s=time.perf_counter() - self._started_at,
            motions=self._follower.summary(),
        )


def _ms_since(moment: float) -> float:
    return (time.perf_counter() - moment) * 1e3
