"""Use case AnalyzeVideo: an encoded video to the persons on its frames, while it is still being uploaded.

Four stages run concurrently, each bounded by the next: the upload is spooled to disk; a worker thread
decodes; up to `look_ahead` frames are at the model; and results leave in frame order, as fast as the caller
takes them. No frame is dropped.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Protocol

from service.media.frame_sampler import Sampling
from service.media.spool import Spool, SpoolSpace
from service.media.video_reader import VideoLimits, VideoReader
from service.media.video_writer import Mp4Writer
from service.pipeline.background import background
from service.pipeline.estimator import Estimator
from service.pipeline.limits import Limits
from service.pipeline.stream_limiter import StreamLimiter
from service.pipeline.video.annotator import Annotator, FrameWriter
from service.pipeline.video.events import Event, Summary
from service.pipeline.video.frame_source import FrameReader, FrameSource, UploadLimits
from service.pipeline.video.progress import ProgressReporter
from service.pipeline.video.request import VideoRequest
from service.pipeline.video.run import VideoRun
from service.pipeline.video.threads import RunThreads


class MakeReader(Protocol):
    """Makes the decoder of a spooled video, as `VideoReader`."""

    def __call__(
        self, spool: Spool, sampling: Sampling, limits: VideoLimits, threads: int = 1, *, strict: bool = False
    ) -> FrameReader:
        """A decoder that is not open yet."""


class MakeWriter(Protocol):
    """Makes the encoder of an annotated video, as `Mp4Writer`."""

    def __call__(self, size_wh: tuple[int, int], fps: float, *, encoder: str, threads: int) -> FrameWriter:
        """An encoder; raises NoEncoder where there is none of that name."""


class VideoAnalyzer:
    """Analyses videos.

    Args:
        estimator: estimates the poses on one frame.
        threads: for spooling, decoding and encoding; three for each stream, or streams block one another.
        limiter: bounds the memory of all videos, and says when the service stops.
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
            request: options of the video.

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

    def _run(self, request: VideoRequest) -> VideoRun:
        limits = self._limits
        threads = RunThreads(self._executor)
        spool = Spool(self._space, limits.video.max_bytes)
        length = _limits(limits.video, request.max_seconds)
        reader = self._make_reader(
            spool, request.sampling, length, limits.video_decode_threads, strict=request.strict
        )
        upload = UploadLimits(limits.stream_idle_s, limits.max_upload_s, limits.min_upload_bytes_per_s)
        make_writer = partial(
            self._make_writer, encoder=limits.video_encoder, threads=limits.video_encode_threads
        )
        return VideoRun(
            estimator=self._estimator,
            limiter=self._limiter,
            limits=limits,
            request=request,
            threads=threads,
            source=FrameSource(spool, reader, threads, upload, contended=lambda: self._limiter.is_full),
            annotator=None
            if request.overlay is None
            else Annotator(make_writer, request.sequence.plan.target, request.overlay),
        )


def _limits(limits: VideoLimits, max_seconds: float | None) -> VideoLimits:
    if max_seconds is None or max_seconds >= limits.max_seconds:
        return limits
    return replace(limits, max_seconds=max_seconds)
