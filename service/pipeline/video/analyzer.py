"""The use case: a video to what is seen on its frames, while it is still on its way.

Four things go on at once, each bounded by the next: bytes are spooled to disk; a thread decodes; up to
`look_ahead` frames are at the model; and results leave in the order of the frames, as fast as the
caller takes them. Nothing is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

import structlog

from service.core.angles import goniometers
from service.core.drawing.angles import draw_angles
from service.core.drawing.poses import OverlayStyle, draw_poses
from service.core.geometry import Rgb8
from service.core.model import PoseModel
from service.core.skeleton.template import Skeleton
from service.errors import (
    DeadlineExceeded,
    Overloaded,
    PosegateError,
    Unavailable,
    Unimplemented,
)
from service.media.spool import Spool, SpoolSpace
from service.media.video_reader import Sampling, VideoFacts, VideoLimits, VideoReader
from service.media.video_writer import Mp4Writer, NoEncoder
from service.pipeline.concurrency import ended, next_within
from service.pipeline.estimator import DetectionOptions, Estimate, Estimator, Prepared, prepare
from service.pipeline.sequence_analyzer import (
    FrameAnalysis,
    MeasurementMotion,
    SequenceAnalyzer,
    SequenceConfig,
)
from service.pipeline.stream_limiter import StreamLimiter
from service.telemetry.call_context import StageTimer, Timings, current

P = ParamSpec("P")
T = TypeVar("T")

_log = structlog.get_logger()

PIECE_BYTES = 1 << 20
_PROGRESS_LEAST_S, _PROGRESS_MOST_S = 0.11, 1.0
_LATELY_S = 3.0
_ALMOST = 99.9  # percent; 100 is for the end only
_ENOUGH = 0.01  # of the work, to say from it how long the rest takes
_QUEUED = 2  # results between the work and the caller


@dataclass(frozen=True)
class VideoSettings:
    """How videos are worked on; see the settings of the same names."""

    limits: VideoLimits
    look_ahead: int
    look_ahead_bytes: int
    decode_threads: int
    encode_threads: int
    encoder: str
    spool: SpoolSpace
    idle_s: float
    max_upload_s: float
    frame_timeout_s: float


@dataclass(frozen=True)
class VideoRequest:
    """What is wanted of a video.

    Attributes:
        model: answers, with its detector and its skeleton.
        options: how.
        sampling: which frames.
        following: what becomes of the people.
        annotated: how they are drawn on the video that is sent back; None for no such video.
    """

    model: PoseModel
    options: DetectionOptions
    sampling: Sampling
    following: SequenceConfig
    annotated: OverlayStyle | None


@dataclass(frozen=True)
class Started:
    """The container could be read."""

    facts: VideoFacts


@dataclass(frozen=True, eq=False)
class FrameDone:
    """One frame."""

    index: int
    time_s: float
    followed: FrameAnalysis
    timings: Timings
    total_ms: float


@dataclass(frozen=True)
class Progress:
    """How far the work is; None where unknown."""

    frame: int
    total: int | None
    percent: float
    fps: float
    elapsed_s: float
    eta_s: float | None
    bytes_received: int


@dataclass(frozen=True)
class Piece:
    """The next bytes of the annotated video."""

    content: bytes


@dataclass(frozen=True)
class Summary:
    """The whole video."""

    fps: float
    size_wh: tuple[int, int]
    total_frames: int
    frames_analyzed: int
    frames_with_persons: int
    persons_tracked: int
    wall_s: float
    motions: list[MeasurementMotion]


Event = Started | FrameDone | Progress | Piece | Summary


class VideoAnalyzer:
    """Analyses videos.

    Args:
        estimator: pictures to people.
        threads: for reading, decoding and encoding; three for each stream, or they wait for one another.
        streams: says when to stop.
        settings: how.
    """

    def __init__(
        self, estimator: Estimator, threads: Executor, streams: StreamLimiter, settings: VideoSettings
    ) -> None:
        self._estimator = estimator
        self._threads = threads
        self._streams = streams
        self._settings = settings

    async def analyze(self, chunks: AsyncIterator[bytes], plan: VideoRequest) -> AsyncGenerator[Event, None]:
        """What is seen, as it is seen; `Summary` last. Close the iterator to stop the work.

        Args:
            chunks: the bytes of the file; its errors become those of the analysis.
            plan: what is wanted.

        Raises:
            VideoUndecodable, VideoTooLarge, VideoTooLong, DataLoss: as `VideoReader`.
            DeadlineExceeded: no bytes came for too long.
            Overloaded: the disk is full, or the model stays busy.
            Unavailable: the model stays away, or the service stops.
            PosegateError: whatever `chunks` raises.
        """
        job = _Run(self._estimator, self._threads, self._streams, self._settings, plan)
        work = asyncio.create_task(job.run(chunks))
        pace = _ProgressReporter(job)
        try:
            while True:
                event = await job.next_event(pace.patience_s())
                if isinstance(event, Exception):
                    raise event
                if event is not None:
                    yield event
                if isinstance(event, Progress):  # the last one: nothing may be said of it any more
                    continue
                if isinstance(event, Summary):
                    return
                if pace.is_due():
                    yield pace.progress()
                if self._streams.ending:
                    yield pace.progress()
                    raise StreamLimiter.stopping()
        finally:
            work.cancel()
            await ended(work)  # the place of this stream is free when its threads are through, and no sooner


class _Run:
    """One video under way."""

    def __init__(
        self,
        estimator: Estimator,
        threads: Executor,
        streams: StreamLimiter,
        settings: VideoSettings,
        plan: VideoRequest,
    ) -> None:
        self._estimator = estimator
        self._threads = threads
        self._streams = streams
        self._settings = settings
        self._plan = plan
        self._follower = SequenceAnalyzer(plan.following, plan.model.skeleton)
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue(_QUEUED)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._busy: set[asyncio.Future[Any]] = set()  # threads at work
        self._drawing: _Drawing | None = None
        self.spool = Spool(settings.spool, settings.limits.max_bytes)
        self.reader = VideoReader(self.spool, plan.sampling, settings.limits, settings.decode_threads)
        self.started_at = time.perf_counter()
        self.facts: VideoFacts | None = None
        self.analyzed = self._with_persons = 0
        self.last_time_s = 0.0

    async def next_event(self, patience_s: float) -> Event | Exception | None:
        """The next thing to tell; None if there is none in time."""
        return await next_within(self._events, patience_s)

    async def run(self, chunks: AsyncIterator[bytes]) -> None:
        """Do everything; the last event is the summary or an error, and comes when all is cleaned up."""
        self._begin(self._receive(chunks))
        with ExitStack() as held:
            try:
                last: Event | Exception = await self._analyze(held)
            except Exception as error:
                last = error
            finally:
                await ended(asyncio.create_task(self._clean_up()))
        await self._events.put(last)

    async def _clean_up(self) -> None:
        """End all that goes on; then free what it worked on. A thread may still be in FFmpeg, and its memory
        must not be freed under it."""
        self.spool.close()  # whoever waits for bytes wakes up
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*self._busy, return_exceptions=True)
        self.reader.close()
        if self._drawing is not None:
            self._drawing.close()

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Something that goes on beside, until it is through or the job ends."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _analyze(self, held: ExitStack) -> Summary:
        self.facts = await self._in_thread(self.reader.open)
        ahead = max(1, min(self._settings.look_ahead, self._settings.look_ahead_bytes // self._ready_bytes()))
        held.enter_context(self._streams.holding(self.reader.decoder_bytes() + ahead * self._ready_bytes()))
        self._drawing = drawing = await self._in_thread(self._make_drawing, self.facts)
        await self._events.put(Started(self.facts))
        window: asyncio.Queue[_AtModel | Exception | None] = asyncio.Queue()
        room = asyncio.Semaphore(ahead)
        self._begin(self._feed(window, room))
        while (item := await window.get()) is not None:
            if isinstance(item, Exception):
                raise item
            await self._finish_frame(item, drawing)
            room.release()
        if drawing is not None:
            await self._send(await self._in_thread(drawing.finish))
        await self._events.put(_ProgressReporter(self, done=True).progress())
        return self._summary(self.facts)

    async def _receive(self, chunks: AsyncIterator[bytes]) -> None:
        """The upload: from the network to the disk."""
        given_up_at = time.monotonic() + self._settings.max_upload_s
        try:
            while True:
                left_s = max(given_up_at - time.monotonic(), 0.0)
                try:
                    async with asyncio.timeout(min(self._settings.idle_s, left_s)):
                        chunk = await anext(chunks, None)
                except TimeoutError:
                    raise self._upload_late(left_s) from None
                if chunk is None:
                    self.spool.finish()
                    return
                await self._in_thread(self.spool.append, chunk)
        except PosegateError as error:
            self.spool.fail(error)
        except Exception as error:
            # Whoever waits for bytes must not wait for ever, and callers do not read what went wrong inside.
            _log.error("internal_error", exc_info=error)
            self.spool.fail(PosegateError("internal error"))

    def _upload_late(self, left_s: float) -> DeadlineExceeded:
        if left_s < self._settings.idle_s:
            limit_s, reason = self._settings.max_upload_s, "UPLOAD_TOO_SLOW"
            message = f"The upload took more than {limit_s:g} s: send the video faster, or in parts."
        else:
            limit_s, reason = self._settings.idle_s, "UPLOAD_IDLE"
            message = (
                f"No bytes of the video came for {limit_s:g} s: send them without pause, and half-close "
                "after the last."
            )
        return DeadlineExceeded(message, reason=reason, metadata={"limit_seconds": f"{limit_s:g}"})

    async def _feed(
        self, window: asyncio.Queue[_AtModel | Exception | None], room: asyncio.Semaphore
    ) -> None:
        """Decode ahead, as far as there is room, and send every frame to the model."""
        try:
            while True:
                await room.acquire()
                timer = current().stage_timer()
                ready = await self._in_thread(self._next_ready, timer)
                if ready is None:
                    window.put_nowait(None)
                    return
                task = self._begin(self._estimate(ready.prepared, timer))
                window.put_nowait(_AtModel(ready.index, ready.time_s, task, timer, time.perf_counter()))
                del ready  # or its picture would stay while the next one is decoded
        except Exception as error:  # told after the frames before it
            window.put_nowait(error)

    def _next_ready(self, timer: StageTimer) -> _Ready | None:
        """The next frame, fitted into the model's input by the thread that decoded it: what waits for its
        turn is no larger than that, unless the picture itself is needed again."""
        frame = self.reader.next_frame()
        if frame is None:
            return None
        timer.add("decode", frame.decode_ms / 1e3)
        with timer.timed("preprocess"):
            prepared = prepare(frame.image, self._plan.model, keep_image=self._keeps_images)
        timer.size_wh = prepared.size_wh
        return _Ready(frame.index, frame.time_s, prepared)

    def _ready_bytes(self) -> int:
        """Bytes of one frame that is ready, at most."""
        assert self.facts is not None  # noqa: S101 - the video is open
        pixels = max(height * width for height, width in self._plan.model.first.shapes_hw)
        return 3 * (pixels + self._keeps_images * self.facts.size_wh[0] * self.facts.size_wh[1])

    @property
    def _keeps_images(self) -> bool:
        """Whether the pictures themselves are needed after they were fitted into the model's input."""
        return self._plan.annotated is not None or self._plan.model.detector is not None

    async def _estimate(self, prepared: Prepared, timer: StageTimer) -> Estimate:
        """The people on one frame. A model that is busy or away for a moment is waited for."""
        timeout_s = self._settings.frame_timeout_s
        given_up_at: float | None = None
        while True:
            try:
                return await self._estimator.estimate_prepared(
                    prepared,
                    self._plan.model,
                    self._plan.options,
                    timeout_s=timeout_s,
                    stream=self,
                    timer=timer,
                )
            except (Overloaded, Unavailable) as error:
                now, pause_s = time.monotonic(), error.retry_after_s or 1.0
                given_up_at = given_up_at or now + timeout_s
                if now + pause_s >= given_up_at:
                    raise
                await asyncio.sleep(pause_s)

    async def _finish_frame(self, item: _AtModel, drawing: _Drawing | None) -> None:
        with item.timer:
            await self._tell_frame(item, drawing)

    async def _tell_frame(self, item: _AtModel, drawing: _Drawing | None) -> None:
        estimate = await item.task
        followed = self._follower.follow(estimate.poses, estimate.size_wh, item.time_s)
        self.analyzed += 1
        self._with_persons += bool(len(estimate.poses))
        self.last_time_s = item.time_s
        piece = b""
        if drawing is not None and estimate.image is not None:
            with item.timer.timed("draw"):
                piece = await self._in_thread(drawing.draw, estimate.image, followed, item.time_s)
        timings = item.timer.timings()
        item.timer.finish()  # the caller may take his time over it
        await self._events.put(
            FrameDone(
                index=item.index,
                time_s=item.time_s,
                followed=followed,
                timings=timings,
                total_ms=(time.perf_counter() - item.ready_at) * 1e3
                + timings.decode_ms
                + timings.preprocess_ms,
            )
        )
        await self._send(piece)

    def _make_drawing(self, facts: VideoFacts) -> _Drawing | None:
        style = self._plan.annotated
        if style is None:
            return None
        fps = self._plan.sampling.target_fps or (facts.fps or 30.0) / self._plan.sampling.every_nth
        try:
            writer = Mp4Writer(
                facts.size_wh, fps, encoder=self._settings.encoder, threads=self._settings.encode_threads
            )
        except NoEncoder as error:
            raise Unimplemented(
                "This service cannot encode video: leave `annotated_video` unset.", reason="NO_ENCODER"
            ) from error
        return _Drawing(writer, self._plan.following.plan.target, style)

    async def _send(self, content: bytes) -> None:
        for start in range(0, len(content), PIECE_BYTES):
            await self._events.put(Piece(content[start : start + PIECE_BYTES]))

    def _summary(self, facts: VideoFacts) -> Summary:
        reader = self.reader
        seconds = reader.last_time_s - (reader.first_time_s or 0.0)
        steps = reader.frames_seen - 1
        return Summary(
            fps=steps / seconds if steps > 0 and seconds > 0 else facts.fps or 0.0,
            size_wh=facts.size_wh,
            total_frames=reader.frames_seen,
            frames_analyzed=self.analyzed,
            frames_with_persons=self._with_persons,
            persons_tracked=self._follower.persons_tracked,
            wall_s=time.perf_counter() - self.started_at,
            motions=self._follower.summary(),
        )

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Blocking work in a thread, which is known to be busy until it is through, cancelled or not."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, lambda: work(*args, **kwargs))
        self._busy.add(future)
        future.add_done_callback(self._busy.discard)
        return await asyncio.shield(future)

    def total(self) -> int | None:
        """Frames to analyse in all, as far as the container can be believed."""
        if self.facts is None or self.facts.fps is None:
            return None
        seconds = self.seconds()
        sampling = self._plan.sampling
        if seconds is None:
            return None
        if self.last_time_s - sampling.start_s > seconds:  # the container lies about its length
            whole = self._whole()
            return None if whole is None else max(1, whole // sampling.every_nth, self.analyzed)
        frames = seconds * self.facts.fps
        if sampling.target_fps is not None:
            frames = min(frames, seconds * sampling.target_fps)
        else:
            frames /= sampling.every_nth
        return max(1, round(frames), self.analyzed)

    def seconds(self) -> float | None:
        """Length of the part that is looked at, as the container says."""
        if self.facts is None or self.facts.duration_s is None:
            return None
        sampling = self._plan.sampling
        end_s = min(self.facts.duration_s, sampling.end_s or self.facts.duration_s)
        return max(end_s - sampling.start_s, 0.0) or None

    def share(self) -> float | None:
        """How much of the work is done, 0 to 1: by time, where the length is known and can be believed; else
        by the number of frames, or by bytes once all are here. None where nothing of it is known."""
        seconds = self.seconds()
        done_s = self.last_time_s - self._plan.sampling.start_s
        if not self.analyzed:
            return None
        if seconds is not None and done_s <= seconds:
            return done_s / seconds
        whole = self._whole()
        if whole is not None and self.reader.frames_seen < whole:
            return self.reader.frames_seen / whole
        if self.spool.complete and 0 < self.reader.bytes_decoded < self.spool.size:
            return self.reader.bytes_decoded / self.spool.size
        return None

    def _whole(self) -> int | None:
        """Frames of the source, as the container says; None where only a part of it is looked at."""
        sampling = self._plan.sampling
        if self.facts is None or sampling.start_s > 0 or sampling.end_s is not None or sampling.target_fps:
            return None
        return self.facts.frame_count


@dataclass(frozen=True, eq=False)
class _Ready:
    """A frame that the model may look at."""

    index: int
    time_s: float
    prepared: Prepared


@dataclass(frozen=True, eq=False)
class _AtModel:
    """A frame that the model is looking at."""

    index: int
    time_s: float
    task: asyncio.Task[Estimate]
    timer: StageTimer
    ready_at: float


class _Drawing:
    """The annotated video. For a worker thread."""

    def __init__(self, writer: Mp4Writer, skeleton: Skeleton, style: OverlayStyle) -> None:
        self._writer = writer
        self._skeleton = skeleton
        self._style = style

    def draw(self, image: Rgb8, followed: FrameAnalysis, time_s: float) -> bytes:
        poses = followed.poses
        if followed.smoothed is not None and followed.measured is None:  # angles lie on the raw points
            poses = replace(poses, keypoints=followed.smoothed)
        numbers = None
        if followed.track_ids is not None:
            numbers = [followed.track_ids[followed.owner(place)] for place in range(len(poses))]
        drawn = draw_poses(image, poses, self._skeleton, self._style, numbers=numbers)
        if followed.measured is not None and len(followed.measured):
            dials = [
                dial for row in range(len(followed.measured)) for dial in goniometers(followed.measured, row)
            ]
            drawn = draw_angles(drawn, dials, labels=self._style.labels)
        return self._writer.add(drawn, time_s)

    def finish(self) -> bytes:
        return self._writer.finish()

    def close(self) -> None:
        self._writer.close()


class _ProgressReporter:
    """Says how far a job is: at most ten times a second, at least once, and never less than before."""

    def __init__(self, job: _Run, *, done: bool = False) -> None:
        self._job = job
        self._done = done
        self._percent = 0.0
        self._told_at = job.started_at
        self._lately: deque[tuple[float, int]] = deque([(job.started_at, 0)])

    def patience_s(self) -> float:
        """How long nothing may be said."""
        return max(self._told_at + _PROGRESS_MOST_S - time.perf_counter(), 0.0)

    def is_due(self) -> bool:
        """Whether it is time to say something: sooner while frames are done."""
        quiet_s = time.perf_counter() - self._told_at
        moved = self._job.analyzed > self._lately[-1][1]
        return quiet_s >= (_PROGRESS_LEAST_S if moved else _PROGRESS_MOST_S)

    def progress(self) -> Progress:
        job, now = self._job, time.perf_counter()
        self._told_at = now
        self._lately.append((now, job.analyzed))
        while len(self._lately) > 2 and self._lately[1][0] < now - _LATELY_S:
            self._lately.popleft()
        since, before = self._lately[0]
        elapsed_s = now - job.started_at
        share = job.share()
        self._percent = 100.0 if self._done else max(self._percent, min(100 * (share or 0.0), _ALMOST))
        known = share is not None and share >= _ENOUGH
        eta_s = elapsed_s * (1 - share) / share if known and share else None
        return Progress(
            frame=job.analyzed,
            total=job.analyzed if self._done else job.total(),
            percent=self._percent,
            fps=(job.analyzed - before) / (now - since) if now > since else 0.0,
            elapsed_s=elapsed_s,
            eta_s=0.0 if self._done else eta_s,
            bytes_received=job.spool.size,
        )
