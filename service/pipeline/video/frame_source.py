"""Frames of an upload: its bytes are spooled to disk while a worker thread decodes what has arrived."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from service.errors import DeadlineExceeded
from service.media.spool import Spool
from service.media.video_reader import VideoFacts, VideoFrame
from service.pipeline.patience import item_within
from service.pipeline.video.threads import RunThreads
from service.telemetry.caller_error import caller_error

T = TypeVar("T")


class FrameReader(Protocol):
    """A decoder of a spooled video, as `VideoReader`. Its methods block, but for `decoder_bytes`.

    Attributes:
        frames_seen: frames decoded between start and end, before sampling.
        frames_damaged: of those, and those lost with damaged packets.
        first_time_s, last_time_s: presentation times of the first and last of them.
    """

    frames_seen: int
    frames_damaged: int
    first_time_s: float | None
    last_time_s: float

    @property
    def bytes_decoded(self) -> int:
        """Position of the decoder in the file."""

    @property
    def gaps(self) -> int:
        """Places where bytes or packets are missing, or the clock of the container jumps."""

    def open(self) -> VideoFacts:
        """Open the container; waits for as many bytes as that needs."""

    def reduce_to(self, size_wh: tuple[int, int]) -> None:
        """Give frames in this size, px, from now on; not while another call is in a thread."""

    def next_frame(self) -> VideoFrame | None:
        """The next sampled frame; None after the last."""

    def decoder_bytes(self) -> int:
        """Memory that the decoder holds at most; known once the container is open."""

    def close(self) -> None:
        """Free everything; not while another call is in a thread."""


RATE_WINDOW_S = 20.0
"""Over which the least rate of an upload is measured: longer than a pause that a network makes."""


@dataclass(frozen=True)
class UploadLimits:
    """Time limits of an upload.

    Attributes:
        idle_s: pause between two chunks.
        max_upload_s: of the whole upload.
        min_bytes_per_s: over a window of `RATE_WINDOW_S`, while all places for videos are taken.
    """

    idle_s: float
    max_upload_s: float
    min_bytes_per_s: float = 0.0


class _LeastRate:
    """Measures the rate of an upload, window after window."""

    def __init__(self, limits: UploadLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._since, self._bytes = clock(), 0

    def is_kept(self, size: int) -> bool:
        """Count bytes; False where a window has ended with too few."""
        self._bytes += size
        seconds = self._clock() - self._since
        if seconds < RATE_WINDOW_S:
            return True
        kept = self._bytes >= self._limits.min_bytes_per_s * seconds
        self._since, self._bytes = self._clock(), 0
        return kept


class FrameSource:
    """Spools an upload and decodes its frames.

    Args:
        spool: where the bytes go.
        reader: decodes the spool.
        threads: of the run.
        limits: of the upload.
        clock: seconds.
        contended: whether other videos wait for the place that this upload holds.
    """

    def __init__(
        self,
        spool: Spool,
        reader: FrameReader,
        threads: RunThreads,
        limits: UploadLimits,
        clock: Callable[[], float] = time.monotonic,
        contended: Callable[[], bool] = lambda: False,
    ) -> None:
        self._contended = contended
        self._spool = spool
        self._reader = reader
        self._threads = threads
        self._limits = limits
        self._clock = clock

    @property
    def reader(self) -> FrameReader:
        """The decoder, for its counters."""
        return self._reader

    @property
    def bytes_received(self) -> int:
        """Of the upload."""
        return self._spool.size

    @property
    def upload_complete(self) -> bool:
        """Whether that is the whole file."""
        return self._spool.complete

    async def receive(self, chunks: AsyncIterator[bytes]) -> None:
        """Spool the upload to its end. An error does not raise here: the decoder raises it after the frames
        before it."""
        give_up_at = self._clock() + self._limits.max_upload_s
        rate = _LeastRate(self._limits, self._clock)
        try:
            while (chunk := await self._next_chunk(chunks, give_up_at)) is not None:
                if not rate.is_kept(len(chunk)) and self._contended():
                    raise self._below_least_rate()
                await self._threads.run(self._spool.append, chunk)
            self._spool.finish()
        except Exception as error:
            self._spool.fail(caller_error(error))  # or the decoder would wait for bytes for ever

    async def open(self) -> VideoFacts:
        """Open the container. Raises what the reader and the upload raise."""
        return await self._threads.run(self._reader.open)

    async def next(self, fit: Callable[[VideoFrame], T]) -> T | None:
        """The next sampled frame, decoded and fitted in one call of a worker thread; None after the last.

        Args:
            fit: makes of the frame what is kept of it; the frame itself is dropped.

        Raises:
            PosegateError: what the reader and the upload raise.
        """
        return await self._threads.run(self._next, fit)

    def interrupt(self) -> None:
        """Drop the spool: a thread that waits for its bytes returns."""
        self._spool.close()

    def close(self) -> None:
        """Free the decoder; after `interrupt`, and when the threads are idle."""
        self._reader.close()

    def _next(self, fit: Callable[[VideoFrame], T]) -> T | None:
        frame = self._reader.next_frame()
        return None if frame is None else fit(frame)

    async def _next_chunk(self, chunks: AsyncIterator[bytes], give_up_at: float) -> bytes | None:
        left_s = max(give_up_at - self._clock(), 0.0)
        if left_s < self._limits.idle_s:
            return await item_within(chunks, left_s, self._upload_too_slow)
        return await item_within(chunks, self._limits.idle_s, self._upload_idle)

    def _upload_too_slow(self) -> DeadlineExceeded:
        limit_s = self._limits.max_upload_s
        return DeadlineExceeded(
            f"The upload took more than {limit_s:g} s: send the video faster, or in parts.",
            reason="UPLOAD_TOO_SLOW",
            metadata={"limit_seconds": f"{limit_s:g}"},
        )

    def _below_least_rate(self) -> DeadlineExceeded:
        limit = self._limits.min_bytes_per_s
        return DeadlineExceeded(
            f"The upload was slower than {limit:g} bytes a second for {RATE_WINDOW_S:g} s, and all places "
            "for videos are taken: send the video faster, or from a file.",
            reason="UPLOAD_TOO_SLOW",
            metadata={"limit_bytes_per_second": f"{limit:g}"},
        )

    def _upload_idle(self) -> DeadlineExceeded:
        limit_s = self._limits.idle_s
        return DeadlineExceeded(
            f"No bytes of the video came for {limit_s:g} s: send them without pause, and half-close after "
            "the last.",
            reason="UPLOAD_IDLE",
            metadata={"limit_seconds": f"{limit_s:g}"},
        )
