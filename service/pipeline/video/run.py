"""The analysis of one video: decode ahead, estimate in a window of frames in flight, deliver in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from service.core.geometry import ScaledImage, choose_shape, fitted_wh
from service.media.video_reader import VideoFacts, VideoFrame
from service.pipeline.background import EventQueue
from service.pipeline.concurrency import ended
from service.pipeline.estimator import Estimate, Estimator
from service.pipeline.limits import Limits
from service.pipeline.ordered_window import InFlight, OrderedWindow
from service.pipeline.patience import retry_unavailable
from service.pipeline.preparation import Prepared, prepare
from service.pipeline.sequence_analyzer import SequenceAnalyzer
from service.pipeline.stream_limiter import StreamLimiter
from service.pipeline.video.annotator import Annotator
from service.pipeline.video.events import AnnotatedChunk, DecodedFrame, Event, FrameDone, Started, Summary
from service.pipeline.video.frame_source import FrameSource
from service.pipeline.video.progress import WorkDone
from service.pipeline.video.request import VideoRequest
from service.pipeline.video.threads import RunThreads
from service.telemetry.call_context import StageTimer, current

CHUNK_BYTES = 1 << 20
_DEFAULT_FPS = 30.0  # of the annotated video, where the container does not say
_EVENTS = 2  # kept between the run and the caller


@dataclass(frozen=True, eq=False)
class _ReadyFrame:
    """A frame fitted into the input of the first model."""

    source: DecodedFrame
    prepared: Prepared


@dataclass(frozen=True, eq=False)
class _FrameAtModel:
    """A frame that the model works on."""

    source: DecodedFrame
    timer: StageTimer
    ready_at: float


class VideoRun:
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
        self._shown_wh = (0, 0)  # of the frames, once the video is open
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
            frames_damaged=self._source.reader.frames_damaged,
            gaps=self._source.reader.gaps,
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
        try:
            await self.events.put(last)
        finally:
            del last  # else an error and this frame would keep each other, and the frames of the video

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
        self._shown_wh = facts.size_wh
        reduced_wh = self._reduced_wh(facts)
        if reduced_wh is not None:
            self._source.reader.reduce_to(reduced_wh)
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
            item = None  # of a frame that failed it knows the error, which knows this frame of the stack
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
                frame = _FrameAtModel(ready.source, timer, time.perf_counter())
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
            image = ScaledImage.reduced(frame.image, self._shown_wh)
            prepared = prepare(image, self._request.model, keep_image=self._request.keeps_images)
        timer.size_wh = prepared.size_wh
        source = DecodedFrame(frame.index, frame.time_s, frame.damaged, frame.frames_damaged, frame.gaps)
        return _ReadyFrame(source, prepared)

    def _reduced_wh(self, facts: VideoFacts) -> tuple[int, int] | None:
        """The size in which the model sees frames, where nothing else needs them and they are larger: the
        decoder hands over a fraction of the bytes then. None for frames as they are."""
        if self._request.keeps_images or self._request.options.region_xyxy is not None:
            return None
        shape_hw = choose_shape(facts.size_wh, self._request.model.first.shapes_hw)
        width, height = fitted_wh(facts.size_wh, shape_hw)
        return (width, height) if width < facts.size_wh[0] and height < facts.size_wh[1] else None

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
        frame = item.frame
        try:
            estimate = await item.result
        finally:
            del item  # as above
        time_s = frame.source.time_s
        analysis = self._sequence.add_frame(estimate.poses, estimate.size_wh, time_s)
        self._frames_analyzed += 1
        self._frames_with_persons += bool(len(estimate.poses))
        self._last_time_s = time_s
        annotated = b""
        if self._annotator is not None and estimate.image is not None:
            with frame.timer.timed("draw"):
                annotated = await self._threads.run(self._annotator.draw, estimate.image, analysis, time_s)
        timings = frame.timer.timings()
        frame.timer.finish()  # the time until the caller takes the result is not the frame's
        total_ms = (time.perf_counter() - frame.ready_at) * 1e3 + timings.decode_ms + timings.preprocess_ms
        await self.events.put(FrameDone(frame.source, analysis, timings, total_ms))
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
            frames_damaged=reader.frames_damaged,
            gaps=reader.gaps,
            persons_tracked=self._sequence.persons_tracked,
            wall_s=time.perf_counter() - self._started_at,
            motions=self._sequence.summary(),
        )
