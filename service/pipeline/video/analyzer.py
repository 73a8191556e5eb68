"""Use case AnalyzeVideo: an encoded video to the persons on its frames, while it is still being uploaded.

Four stages run concurrently, each bounded by the next: the upload is spooled to disk; a worker thread
decodes; up to `look_ahead` frames are at the model; and results leave in frame order, as fast as the caller
takes them. No frame is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from service.core.drawing.poses import OverlayStyle
from service.core.model import PoseModel
from service.media.spool import Spool, SpoolSpace
from service.media.video_reader import Sampling, VideoFacts, VideoFrame, VideoLimits, VideoReader
from service.media.video_writer import Mp4Writer
from service.pipeline.background import EventQueue, background
from service.pipeline.concurrency import ended
from service.pipeline.estimator import DetectionOptions, Estimate, Estimator, Prepared, prepare
from service.pipeline.limits import Limits
from service.pipeline.ordered_window import InFlight, OrderedWindow
from service.pipeline.patience import retry_unavailable
from service.pipeline.sequence_analyzer import SequenceAnalyzer, SequenceConfig
from service.pipeline.stream_limiter import StreamLimiter
from service.pipeline.video.annotator import Annotator, FrameWriter
from service.pipeline.video.events import AnnotatedChunk, Event, FrameDone, Started, Summary
from service.pipeline.video.frame_source import FrameReader, FrameSource, UploadLimits
from service.pipeline.video.progress import ProgressReporter, WorkDone
from service.pipeline.video.threads import RunThreads
from service.telemetry.call_context import StageTimer, current

CHUNK_BYTES = 1 << 20
_DEFAULT_FPS = 30.0  # of the annotated video, where the container does not say
_EVENTS = 2  # kept between the run and the caller


class MakeReader(Protocol):
    """Makes the decoder of a spooled video, as `VideoReader`."""

    def __call__(
        self, spool: Spool, sampling: Sampling, limits: VideoLimits, threads: int = 1
    ) -> FrameReader:
        """A decoder that is not open yet."""


class MakeWriter(Protocol):
    """Makes the encoder of an annotated video, as `Mp4Writer`."""

    def __call__(self, size_wh: tuple[int, int], fps: float, *, encoder: str, threads: int) -> FrameWriter:
        """An encoder; raises NoEncoder where there is none of that name."""


@dataclass(frozen=True)
class VideoRequest:
    """What a caller asks of one video.

    Attributes:
        model: estimates the poses.
        options: of the detection.
        sampling: which frames are analysed.
        sequence: tracking, smoothing and measurements.
        overlay: style of the annotated video; None for no such video.
    """

    model: PoseModel
    options: DetectionOptions
    sampling: Sampling
    sequence: SequenceConfig
    overlay: OverlayStyle | None

    @property
    def keeps_images(self) -> bool:
        """Whether frames are needed after they were fitted into the input of the first model."""
        return self.overlay is not None or self.model.detector is not None


class VideoAnalyzer:
    """Analyses videos.

    Args:
        estimator: estimates the poses on one frame.
        threads: for spooling, decoding and encoding; three for each stream, or streams block one another.
        limiter: memory of all videos, and the stop of the service.
        limits: of a video, its frames decoded ahead and the threads of FFmpeg.
        space: for the videos on disk.
        make_reader: decoder of a spooled video.
        make_writer: encoder of the annotated video.
    """

    def __init__(
        self,
        estimator: Estimator,
        threads: Executor,
        limiter: StreamLimiter,
        limits: Limits,
        space: SpoolSpace,
        *,
        make_reader: MakeReader = VideoReader,
        make_writer: MakeWriter = Mp4Writer,
    ) -> None:
        self._estimator = estimator
        self._executor = threads
        self._limiter = limiter
        self._limits = limits
        self._space = space
        self._make_reader = make_reader
        self._make_writer = make_writer

    async def analyze(
        self, chunks: AsyncIterator[bytes], request: VideoRequest
    ) -> AsyncGenerator[Event, None]:
        """Events as they occur; `Summary` is the last. Close the iterator to stop the work.

        Args:
            chunks: the bytes of the file; its errors become those of the analysis.
            request: what is asked for.

        Raises:
            VideoUndecodable, VideoTooLarge, VideoTooLong, DataLoss: as `VideoReader`.
            DeadlineExceeded: the upload paused or took too long.
            Overloaded: the disk or the memory for videos is full, or the model stays overloaded.
            Unavailable: the model stays unavailable, or the service stops.
            PosegateError: what `chunks` raises.
        """
        run = self._run(request)
        progress = ProgressReporter(request.sampling)
        async with background(run.execute(chunks)):
            while True:
                event = await run.events.next_within(progress.patience_s())
                if isinstance(event, Summary):
                    yield progress.final(run.done())
                    yield event
                    return
                if event is not None:
                    yield event
                if progress.is_due(run.done()):
                    yield progress.report(run.done())
                if self._limiter.ending:
                    yield progress.report(run.done())
                    raise StreamLimiter.stopping()

    def _run(self, request: VideoRequest) -> _Run:
        limits = self._limits
        threads = RunThreads(self._executor)
        spool = Spool(self._space, limits.video.max_bytes)
        reader = self._make_reader(spool, request.sampling, limits.video, limits.video_decode_threads)
        upload = UploadLimits(limits.stream_idle_s, limits.max_upload_s)
        make_writer = partial(
            self._make_writer, encoder=limits.video_encoder, threads=limits.video_encode_threads
        )
        return _Run(
            estimator=self._estimator,
            limiter=self._limiter,
            limits=limits,
            request=request,
            threads=threads,
            source=FrameSource(spool, reader, threads, upload),
            annotator=None
            if request.overlay is None
            else Annotator(make_writer, request.sequence.plan.target, request.overlay),
        )


@dataclass(frozen=True, eq=False)
class _ReadyFrame:
    """A frame fitted into the input of the first model."""

    index: int
    time_s: float
    prepared: Prepared


@dataclass(frozen=True, eq=False)
class _FrameAtModel:
    """A frame that the model works on."""

    index: int
    time_s: float
    timer: StageTimer
    ready_at: float


class _Run:
    """The analysis of one video."""

    def __init__(
        self,
        *,
        estimator: Estimator,
        limiter: StreamLimiter,
        limits: Limits,
        request: VideoRequest,
        threads: RunThreads,
        source: FrameSource,
        annotator: Annotator | None,
    ) -> None:
        self._estimator = estimator
        self._limiter = limiter
        self._limits = limits
        self._request = request
        self._threads = threads
        self._source = source
        self._annotator = annotator
        self._sequence = SequenceAnalyzer(request.sequence, request.model.skeleton)
        self._facts: VideoFacts | None = None
        self._frames_analyzed = self._frames_with_persons = 0
        self._last_time_s = 0.0
        self._started_at = time.perf_counter()
        self.events: EventQueue[Event] = EventQueue(_EVENTS)

    def done(self) -> WorkDone:
        """The state of the analysis."""
        return WorkDone(
            facts=self._facts,
            frames_analyzed=self._frames_analyzed,
            last_time_s=self._last_time_s,
            frames_seen=self._source.reader.frames_seen,
            bytes_decoded=self._source.reader.bytes_decoded,
            bytes_received=self._source.bytes_received,
            upload_complete=self._source.upload_complete,
        )

    async def execute(self, chunks: AsyncIterator[bytes]) -> None:
        """Analyse the video; the last event, the summary or an error, comes after the clean-up."""
        upload = asyncio.create_task(self._source.receive(chunks))
        with ExitStack() as held:
            try:
                last: Event | Exception = await self._analyze(held)
            except Exception as error:
                last = error
            finally:
                await ended(asyncio.create_task(self._clean_up(upload)))
        await self.events.put(last)

    async def _clean_up(self, upload: asyncio.Task[None]) -> None:
        """End the upload, and free what the threads worked on when none is inside FFmpeg any more."""
        self._source.interrupt()
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)
        await self._threads.idle()
        self._source.close()
        if self._annotator is not None:
            self._annotator.close()

    async def _analyze(self, held: ExitStack) -> Summary:
        self._facts = facts = await self._source.open()
        frame_bytes = self._frame_bytes(facts)
        size = max(1, min(self._limits.video_look_ahead, self._limits.video_look_ahead_bytes // frame_bytes))
        held.enter_context(self._limiter.holding(self._source.reader.decoder_bytes() + size * frame_bytes))
        if self._annotator is not None:
            await self._threads.run(self._annotator.open, facts.size_wh, self._annotated_fps(facts))
        await self.events.put(Started(facts))
        await self._analyze_frames(OrderedWindow(size))
        if self._annotator is not None:
            await self._put_annotated(await self._threads.run(self._annotator.finish))
        return self._summary(facts)

    async def _analyze_frames(self, window: OrderedWindow[_FrameAtModel, Estimate]) -> None:
        feed = asyncio.create_task(self._feed(window))
        try:
            while (item := await window.next()) is not None:
                with item.frame.timer:
                    await self._finish_frame(item)
                window.release()
        finally:
            feed.cancel()
            await window.cancel()
            await asyncio.gather(feed, return_exceptions=True)

    async def _feed(self, window: OrderedWindow[_FrameAtModel, Estimate]) -> None:
        """Decode ahead as far as the window has room, and send every frame to the model."""
        try:
            while True:
                await window.reserve()
                timer = current().stage_timer()
                ready = await self._source.next(partial(self._fit, timer))
                if ready is None:
                    break
                frame = _FrameAtModel(ready.index, ready.time_s, timer, time.perf_counter())
                window.start(frame, self._estimate(ready.prepared, timer))
                del ready  # or its image would be kept while the next one is decoded
        except Exception as error:
            window.finish(error)
        else:
            window.finish()

    def _fit(self, timer: StageTimer, frame: VideoFrame) -> _ReadyFrame:
        """A frame fitted into the input of the first model, in the thread that decoded it: what waits for the
        model is no larger than that, unless the image itself is needed again."""
        timer.add("decode", frame.decode_ms / 1e3)
        with timer.timed("preprocess"):
            prepared = prepare(frame.image, self._request.model, keep_image=self._request.keeps_images)
        timer.size_wh = prepared.size_wh
        return _ReadyFrame(frame.index, frame.time_s, prepared)

    def _frame_bytes(self, facts: VideoFacts) -> int:
        """Memory of one fitted frame, at most."""
        pixels = max(height * width for height, width in self._request.model.first.shapes_hw)
        return 3 * (pixels + self._request.keeps_images * facts.size_wh[0] * facts.size_wh[1])

    def _annotated_fps(self, facts: VideoFacts) -> float:
        sampling = self._request.sampling
        return sampling.target_fps or (facts.fps or _DEFAULT_FPS) / sampling.every_nth

    async def _estimate(self, prepared: Prepared, timer: StageTimer) -> Estimate:
        """The persons on one frame; waits for a model that is overloaded or unavailable for a moment."""
        timeout_s = self._limits.request_timeout_s
        call = partial(
            self._estimator.estimate_prepared,
            prepared,
            self._request.model,
            self._request.options,
            timeout_s=timeout_s,
            stream=self,
            timer=timer,
        )
        return await retry_unavailable(call, patience_s=timeout_s)

    async def _finish_frame(self, item: InFlight[_FrameAtModel, Estimate]) -> None:
        frame, estimate = item.frame, await item.result
        analysis = self._sequence.add_frame(estimate.poses, estimate.size_wh, frame.time_s)
        self._frames_analyzed += 1
        self._frames_with_persons += bool(len(estimate.poses))
        self._last_time_s = frame.time_s
        annotated = b""
        if self._annotator is not None and estimate.image is not None:
            with frame.timer.timed("draw"):
                annotated = await self._threads.run(
                    self._annotator.draw, estimate.image, analysis, frame.time_s
                )
        timings = frame.timer.timings()
        frame.timer.finish()  # the time until the caller takes the result is not the frame's
        total_ms = (time.perf_counter() - frame.ready_at) * 1e3 + timings.decode_ms + timings.preprocess_ms
        await self.events.put(FrameDone(frame.index, frame.time_s, analysis, timings, total_ms))
        await self._put_annotated(annotated)

    async def _put_annotated(self, content: bytes) -> None:
        for start in range(0, len(content), CHUNK_BYTES):
            await self.events.put(AnnotatedChunk(content[start : start + CHUNK_BYTES]))

    def _summary(self, facts: VideoFacts) -> Summary:
        reader = self._source.reader
        seconds = reader.last_time_s - (reader.first_time_s or 0.0)
        steps = reader.frames_seen - 1
        return Summary(
            fps=steps / seconds if steps > 0 and seconds > 0 else facts.fps or 0.0,
            size_wh=facts.size_wh,
            total_frames=reader.frames_seen,
            frames_analyzed=self._frames_analyzed,
            frames_with_persons=self._frames_with_persons,
            persons_tracked=self._sequence.persons_tracked,
            wall_s=time.perf_counter() - self._started_at,
            motions=self._sequence.summary(),
        )
