"""Peers of the decoder and the encoder of a video."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from service.core.geometry import Rgb8, resized
from service.media.frame_sampler import Sampling
from service.media.spool import Spool
from service.media.video_reader import VideoFacts, VideoFrame, VideoLimits

SIZE_WH = (64, 48)
FACTS = VideoFacts(
    container="mp4", codec="h264", size_wh=SIZE_WH, rotation_deg=0, fps=25.0, duration_s=0.4, frame_count=10
)


def grey(number: int) -> Rgb8:
    """The image of a frame; its grey level tells it apart."""
    return np.full((SIZE_WH[1], SIZE_WH[0], 3), 10 + 5 * (number % 40), np.uint8)


def uneven(number: int, size_wh: tuple[int, int]) -> Rgb8:
    """The image of a frame that is not the same everywhere."""
    noise = np.random.default_rng(number).integers(0, 256, (size_wh[1] // 8, size_wh[0] // 8, 3), np.uint8)
    return resized(noise, size_wh)


class FakeReader:
    """A peer of VideoReader: frames of 25 per second. Every step waits for the byte of its frame.

    Attributes:
        errors: by the number of the step that raises it; step -1 is `open`.
        gate: steps wait in their thread until it is set; it is, to begin with.
        entered: set as soon as a step waits at the gate.
        closed: how often `close` was called.
        reduced_wh: what `reduce_to` asked for.
        closed_inside: whether that happened while a step was in a thread.
    """

    def __init__(
        self,
        spool: Spool,
        count: int = 10,
        errors: dict[int, Exception] | None = None,
        *,
        decoder_bytes: int = 1,
        damaged: frozenset[int] = frozenset(),
        size_wh: tuple[int, int] = SIZE_WH,
    ) -> None:
        self._size_wh = size_wh
        self.reduced_wh: tuple[int, int] | None = None
        self._spool = spool
        self._damaged = damaged
        self._count = count
        self._errors = errors or {}
        self._decoder_bytes = decoder_bytes
        self._inside = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.closed = 0
        self.closed_inside = False
        self.frames_seen = 0
        self.frames_damaged = 0
        self.gaps = 0
        self.first_time_s: float | None = None
        self.last_time_s = 0.0

    @property
    def bytes_decoded(self) -> int:
        return self.frames_seen

    def open(self) -> VideoFacts:
        self._spool.wait(1)
        if -1 in self._errors:
            raise self._errors[-1]
        return replace(FACTS, size_wh=self._size_wh)

    def reduce_to(self, size_wh: tuple[int, int]) -> None:
        self.reduced_wh = size_wh

    def next_frame(self) -> VideoFrame | None:
        self._inside += 1
        self.entered.set()
        try:
            assert self.gate.wait(20)
            return self._step()
        finally:
            self._inside -= 1

    def _step(self) -> VideoFrame | None:
        number = self.frames_seen
        if number in self._errors:
            raise self._errors[number]
        if number == self._count:
            return None
        self._spool.wait(number + 1)
        self.frames_seen += 1
        self.last_time_s = number / 25
        self.first_time_s = self.first_time_s or 0.0
        damaged = number in self._damaged
        self.frames_damaged += damaged
        self.gaps += damaged
        image = grey(number)
        if self._size_wh != SIZE_WH:
            image = uneven(number, self._size_wh)
        if self.reduced_wh is not None:
            image = resized(image, self.reduced_wh)
        return VideoFrame(number, number / 25, image, 1.0, damaged)

    def decoder_bytes(self) -> int:
        return self._decoder_bytes

    def close(self) -> None:
        self.closed += 1
        self.closed_inside |= self._inside > 0


class MakeFakeReader:
    """Makes fake readers and keeps them.

    Attributes:
        made: so far.
        arguments, strict: what each was made with.
        hold: readers made from now on stop at their gate.
    """

    def __init__(
        self,
        count: int = 10,
        errors: dict[int, Exception] | None = None,
        *,
        decoder_bytes: int = 1,
        damaged: frozenset[int] = frozenset(),
        size_wh: tuple[int, int] = SIZE_WH,
    ) -> None:
        self._size_wh = size_wh
        self._damaged = damaged
        self._count = count
        self._errors = errors
        self._decoder_bytes = decoder_bytes
        self.made: list[FakeReader] = []
        self.arguments: list[tuple[Sampling, VideoLimits, int]] = []
        self.strict: list[bool] = []
        self.hold = False

    def __call__(
        self, spool: Spool, sampling: Sampling, limits: VideoLimits, threads: int = 1, *, strict: bool = False
    ) -> FakeReader:
        reader = FakeReader(
            spool,
            self._count,
            self._errors,
            decoder_bytes=self._decoder_bytes,
            damaged=self._damaged,
            size_wh=self._size_wh,
        )
        self.strict.append(strict)
        if self.hold:
            reader.gate.clear()
        self.made.append(reader)
        self.arguments.append((sampling, limits, threads))
        return reader

    @property
    def only(self) -> FakeReader:
        (reader,) = self.made
        return reader


class FakeWriter:
    """A peer of Mp4Writer: `bytes_per_frame` bytes for every frame, whose value is its number.

    Attributes:
        added: images and times.
        closed: how often `close` was called.
    """

    def __init__(self, size_wh: tuple[int, int], fps: float, *, bytes_per_frame: int = 4) -> None:
        self.size_wh = size_wh
        self.fps = fps
        self._bytes_per_frame = bytes_per_frame
        self.added: list[tuple[Rgb8, float]] = []
        self.closed = 0

    def add(self, image: Rgb8, time_s: float) -> bytes:
        self.added.append((image, time_s))
        return bytes([len(self.added)]) * self._bytes_per_frame

    def finish(self) -> bytes:
        return b"end"

    def close(self) -> None:
        self.closed += 1


class MakeFakeWriter:
    """Makes fake writers and keeps them, or raises an error."""

    def __init__(self, error: Exception | None = None, *, bytes_per_frame: int = 4) -> None:
        self._error = error
        self._bytes_per_frame = bytes_per_frame
        self.made: list[FakeWriter] = []
        self.encoders: Sequence[tuple[str, int]] = ()

    def __call__(self, size_wh: tuple[int, int], fps: float, *, encoder: str, threads: int) -> FakeWriter:
        if self._error is not None:
            raise self._error
        self.encoders = [*self.encoders, (encoder, threads)]
        self.made.append(FakeWriter(size_wh, fps, bytes_per_frame=self._bytes_per_frame))
        return self.made[-1]
