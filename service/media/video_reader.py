"""Video reader: encoded video to upright RGB frames of square pixels, with their numbers and times.

FFmpeg, by way of PyAV, decodes. A reader is used by one worker thread at a time and works only when the next
frame is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from time import perf_counter
from typing import NoReturn

import av
from av.video.frame import VideoFrame as AvFrame

from service.core.geometry import Rgb8, resized
from service.errors import DataLoss, PosegateError, VideoTooLarge, VideoTooLong, VideoUndecodable
from service.media.demuxer import Demuxer
from service.media.frame_decoder import FRAMES_HELD, BrokenOff, DecodedFrame, FrameDecoder
from service.media.frame_pixels import FramePixels
from service.media.frame_sampler import FrameSampler, Sampling, nanoseconds
from service.media.spool import Spool, SpoolClosed


@dataclass(frozen=True)
class VideoLimits:
    """Upper limits of a video.

    Attributes:
        max_bytes: of the file.
        max_pixels: of one frame, as stored and as shown.
        max_seconds: of the part that is analysed.
        max_frames: that are analysed.
    """

    max_bytes: int
    max_pixels: int
    max_seconds: float
    max_frames: int


@dataclass(frozen=True)
class VideoFacts:
    """What the container says, true or not, and how its frames are made upright.

    Attributes:
        container, codec: short names.
        size_wh: of the upright frames of square pixels, px.
        rotation_deg: clockwise, applied after the mirroring.
        fps, duration_s, frame_count: None where unknown.
        mirrored: left and right of the stored frames were exchanged.
        pixel_aspect: width of a stored pixel by its height, before rotation.
        begin_s: how much later than the earliest track of the file the first frame is shown.
    """

    container: str
    codec: str
    size_wh: tuple[int, int]
    rotation_deg: int
    fps: float | None
    duration_s: float | None
    frame_count: int | None
    mirrored: bool = False
    pixel_aspect: Fraction = Fraction(1)
    begin_s: float = 0.0


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One frame.

    Attributes:
        index: zero-based number among the presented frames of the source.
        time_s: presentation time from the first frame, seconds.
        image: (H, W, 3) RGB, upright, square pixels; of the size of the video, or of that which
            `reduce_to` asked for.
        decode_ms: of this frame and of those before it that were not analysed.
        damaged: its data, or data that it depends on, were damaged; FFmpeg concealed what was missing.
        frames_damaged, gaps: of the reader when the frame was decoded.
    """

    index: int
    time_s: float
    image: Rgb8
    decode_ms: float
    damaged: bool = False
    frames_damaged: int = 0
    gaps: int = 0


class VideoReader:
    """The selected frames of a video that may still be on its way.

    Damaged packets are stepped over and counted; reading ends with an error where the file is cut short or
    cannot be read on, after all frames before that point.

    Args:
        spool: the file.
        sampling: which frames are selected.
        limits: what is allowed.
        threads: that FFmpeg decodes with.
        strict: end with DataLoss at the first damage or gap.

    Attributes:
        frames_seen: frames between start and end, selected or not.
        frames_damaged: frames between start and end that were damaged, or lost with a damaged packet.
        first_time_s, last_time_s: of the frames seen, seconds.

    Raises (from `open` and `next_frame`):
        VideoUndecodable: not a video, or none that can be read.
        VideoTooLarge, VideoTooLong, VideoTooCostly: more than allowed.
        DataLoss: the file is cut short or cannot be read on; with `strict` any damage.
        SpoolClosed: the spool was closed.
        PosegateError: what the spool was failed with.
    """

    def __init__(
        self, spool: Spool, sampling: Sampling, limits: VideoLimits, threads: int = 1, *, strict: bool = False
    ) -> None:
        self._spool = spool
        self._limits = limits
        self._threads = threads
        self._strict = strict
        self._sampling = sampling
        self._demuxer: Demuxer | None = None
        self._decoder: FrameDecoder | None = None
        self._pixels: FramePixels | None = None
        self._facts: VideoFacts | None = None
        self._frames: Iterator[VideoFrame] | None = None
        self._reduced_wh: tuple[int, int] | None = None
        self._given_time_s = 0.0  # of the last frame that is not lost
        self.frames_seen = 0
        self.frames_damaged = 0
        self.last_time_s = 0.0
        self.first_time_s: float | None = None

    @property
    def facts(self) -> VideoFacts:
        """What the container says; after `open`."""
        assert self._facts is not None  # noqa: S101 - open() comes first
        return self._facts

    @property
    def bytes_decoded(self) -> int:
        """Position in the file up to which it was decoded."""
        return self._demuxer.bytes_read if self._demuxer is not None else 0

    @property
    def gaps(self) -> int:
        """Places where bytes were passed over, packets are missing, or the container's clock jumps."""
        return self._decoder.gaps if self._decoder is not None else 0

    def open(self) -> VideoFacts:
        """Read the container's head and decode one frame; waits for as much of the file as that needs."""
        try:
            before, decoded = self._from_start(may_skip=self._sampling.start_ns > 0)
        except Exception as error:
            self._fail(error)
        self._frames = self._selected(chain(before, decoded))
        return self.facts

    def _from_start(self, *, may_skip: bool) -> tuple[list[DecodedFrame], Iterator[DecodedFrame]]:
        """Open the file. Frames that are decoded already, and those after them, from the start that was asked
        for or from any frame before it."""
        self._demuxer = demuxer = Demuxer(self._spool, self._limits.max_pixels)
        self._check_facts(demuxer)
        self._decoder = decoder = FrameDecoder(
            demuxer, max_pixels=self._limits.max_pixels, threads=self._threads, strict=self._strict
        )
        decoded = decoder.frames()
        before: list[DecodedFrame] = []
        for one in decoded:
            before.append(one)
            if one.frame is not None:
                self._facts = self._read_facts(demuxer, one.frame)
                break
        start_ns = self._sampling.start_ns
        if not may_skip or nanoseconds(before[-1].time) >= start_ns:
            return before, decoded
        with suppress(BrokenOff, av.FFmpegError):
            key_time = decoder.skip_to(start_ns)
            decoded = decoder.frames()  # the packets from here on
            if key_time is None:
                return before, decoded
            before = []
            for one in decoded:
                before.append(one)
                if one.time >= key_time:
                    break
            if before and before[-1].time == key_time and before[-1].frame is not None:
                return before, decoded
        # Not a key frame after all: a damaged packet looks like one, or a stream is refreshed bit by bit.
        demuxer.close()
        return self._from_start(may_skip=False)

    def reduce_to(self, size_wh: tuple[int, int]) -> None:
        """Give frames in this size, px, from now on."""
        self._reduced_wh = size_wh

    def next_frame(self) -> VideoFrame | None:
        """The next selected frame; None after the last."""
        assert self._frames is not None  # noqa: S101 - open() comes first
        try:
            return next(self._frames, None)
        except Exception as error:
            self._fail(error)

    def decoder_bytes(self) -> int:
        """Upper bound of the decoder's memory: the frames that one may refer to, and those in the making."""
        context = self._opened().stream.codec_context
        layout = context.format
        bits = layout.padded_bits_per_pixel if layout is not None else 24
        return context.width * context.height * max(bits, 12) // 8 * FRAMES_HELD

    def close(self) -> None:
        """Free what FFmpeg holds. Not while another thread is in `open` or `next_frame`."""
        self._frames = None
        if self._demuxer is not None:
            self._demuxer.close()

    def _opened(self) -> Demuxer:
        assert self._demuxer is not None  # noqa: S101 - open() comes first
        return self._demuxer

    def _check_facts(self, demuxer: Demuxer) -> None:
        """Check what the container says against the limits."""
        context = demuxer.stream.codec_context
        if context.width < 0 or context.height < 0:
            raise VideoUndecodable("The video's frames have no size: send a whole, valid file.")
        self._check_pixels(context.width, context.height)
        duration_s = demuxer.facts().duration_s
        if duration_s is not None:
            end_s = self._sampling.end_s
            self._check_length(min(duration_s, end_s or duration_s) - self._sampling.start_s)

    def _read_facts(self, demuxer: Demuxer, first: AvFrame) -> VideoFacts:
        """What the container says, with the size and the orientation of the first frame."""
        track = demuxer.facts()
        self._pixels = pixels = FramePixels(first, track.pixel_aspect)
        self._check_pixels(*pixels.size_wh)
        return VideoFacts(
            container=track.container,
            codec=track.codec,
            size_wh=pixels.size_wh,
            rotation_deg=pixels.orientation.rotation_deg,
            fps=track.fps,
            duration_s=track.duration_s,
            frame_count=track.frame_count,
            mirrored=pixels.orientation.mirrored,
            pixel_aspect=track.pixel_aspect,
            begin_s=track.begin_s,
        )

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._limits.max_pixels:
            raise VideoTooLarge(
                f"The video has {width}×{height} px; at most {self._limits.max_pixels} px are accepted: "
                "scale it down.",
                metadata={
                    "limit_pixels": str(self._limits.max_pixels),
                    "actual_pixels": str(width * height),
                },
            )

    def _check_length(self, seconds: float) -> None:
        if seconds > self._limits.max_seconds:
            raise VideoTooLong(
                f"{seconds:.1f} s of video were to be analysed; at most {self._limits.max_seconds:g} s are "
                "accepted: cut it, or set `start` and `end`.",
                metadata={
                    "limit_seconds": f"{self._limits.max_seconds:g}",
                    "actual_seconds": f"{seconds:.3f}",
                },
            )

    def _selected(self, decoded: Iterator[DecodedFrame]) -> Iterator[VideoFrame]:
        """The frames that the sampling selects, in RGB."""
        sampler = FrameSampler(self._sampling)
        given = 0
        started = perf_counter()
        for one in decoded:
            if sampler.is_before(one.time):
                continue
            if sampler.is_past(one.time):
                return
            time_s = float(one.time)
            if one.damaged:
                self.frames_damaged += 1
                if self._strict:
                    raise BrokenOff
            self.first_time_s = time_s if self.first_time_s is None else self.first_time_s
            self.last_time_s = time_s
            self.frames_seen += 1
            self._check_length(time_s - self.first_time_s)
            if one.frame is None:
                sampler.pass_over()
                continue
            self._given_time_s = time_s
            if not sampler.selects(one.time, one.duration):
                continue
            if given >= self._limits.max_frames:
                raise VideoTooLong(
                    f"The video has more than {self._limits.max_frames} frames to analyse, as many as are "
                    "accepted: sample fewer of them, or set `start` and `end`.",
                    metadata={
                        "limit_frames": str(self._limits.max_frames),
                        "actual_frames": f"more than {self._limits.max_frames}",
                    },
                )
            self._check_pixels(one.frame.width, one.frame.height)
            assert self._pixels is not None  # noqa: S101 - open() comes first
            image = self._pixels.image(one.frame)
            if self._reduced_wh is not None:
                image = resized(image, self._reduced_wh)
            given += 1
            yield VideoFrame(
                index=one.index,
                time_s=time_s,
                image=image,
                decode_ms=(perf_counter() - started) * 1e3,
                damaged=one.damaged,
                frames_damaged=self.frames_damaged,
                gaps=self.gaps,
            )
            started = perf_counter()

    def _data_loss(self) -> DataLoss:
        return DataLoss(
            f"The video is damaged or cut short after {self._given_time_s:.3f} s: the frames before were "
            "answered. Send the whole file.",
            metadata={"last_time_seconds": f"{self._given_time_s:.6f}", "frames": str(self.frames_seen)},
        )

    def _fail(self, error: Exception) -> NoReturn:
        if isinstance(error, (PosegateError, SpoolClosed)):
            raise error
        if isinstance(error, BrokenOff):
            raise self._data_loss() from error
        if self._demuxer is not None:
            self._demuxer.raise_failure(error)
        if self.frames_seen:
            raise self._data_loss() from error
        raise VideoUndecodable(
            "The bytes are not a video that can be read: send a whole MP4, MOV, MKV, WebM, TS, AVI or GIF."
        ) from error
