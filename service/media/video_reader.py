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
from typing import NoReturn, cast

import av
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame as AvFrame
from av.video.reformatter import VideoReformatter
from numpy.lib.stride_tricks import as_strided

from service.core.geometry import Rgb8
from service.errors import DataLoss, PosegateError, VideoTooLarge, VideoTooLong, VideoUndecodable
from service.media.demuxer import DEFAULT_FPS, Demuxer, VideoPacket, frame_rate
from service.media.frame_sampler import NANOSECONDS, FrameSampler, Sampling
from service.media.orientation import Orientation, from_display_matrix, upright
from service.media.spool import Spool, SpoolClosed
from service.media.timestamps import PacketClock, PresentationOrder, PresentationTimes

_GROUP_BYTES = 64 << 20  # packets kept from the last key frame on while passing over the start
_FRAMES_HELD = 16 + 4  # H.264 and HEVC refer to 16 frames at most
_VP8_SHOWN = 0x10  # of the first byte of a frame (RFC 6386, 9.1)
_REST_S = 0.5  # that the stated end may lie behind the last frame
_MAX_BEFORE_KEY = 300  # packets; a track without any key frame is then decoded all the same


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
        image: (H, W, 3) RGB, upright, square pixels.
        decode_ms: of this frame and of those before it that were not analysed.
        damaged: its data, or data that it depends on, were damaged; FFmpeg concealed what was missing.
    """

    index: int
    time_s: float
    image: Rgb8
    decode_ms: float
    damaged: bool = False


@dataclass(frozen=True, eq=False)
class _Decoded:
    """A frame before its conversion to RGB; `time` in seconds."""

    index: int
    time: Fraction
    duration: Fraction
    frame: AvFrame
    damaged: bool


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
        self._facts: VideoFacts | None = None
        self._orientation = Orientation()
        self._shown_wh = (0, 0)  # of a frame as it is stored, with square pixels
        self._converter = VideoReformatter()
        self._order = PresentationOrder(by_decoding=False)
        self._times = PresentationTimes(Fraction(1), Fraction(1))
        self._packets: Iterator[VideoPacket] = iter(())
        self._frames: Iterator[VideoFrame] | None = None
        self._jumps = 0
        self._last_was_partial = False  # packet
        self._after_damage = False
        self._begun = False  # with a key frame
        self._before_key = 0  # packets
        self._any = False  # frame was decoded
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
        return self._jumps + (self._demuxer.gaps if self._demuxer is not None else 0)

    def open(self) -> VideoFacts:
        """Read the container's head and decode one frame; waits for as much of the file as that needs."""
        try:
            before, decoded = self._from_start(may_skip=self._sampling.start_ns > 0)
        except Exception as error:
            self._fail(error)
        self._frames = self._selected(chain(before, decoded))
        return self.facts

    def _from_start(self, *, may_skip: bool) -> tuple[list[_Decoded], Iterator[_Decoded]]:
        """Open the file. Frames that are decoded already, and those after them, from the start that was asked
        for or from any frame before it."""
        self._demuxer = demuxer = Demuxer(self._spool, self._limits.max_pixels)
        self._prepare(demuxer)
        decoded = self._decode()
        first = next(decoded)
        self._facts = self._read_facts(demuxer, first.frame)
        if not may_skip:
            return [first], decoded
        key_time = self._skip_to_start(demuxer)
        decoded = self._decode()  # the packets from here on
        if key_time is None:
            return [first], decoded
        before: list[_Decoded] = []
        with suppress(DataLoss):
            for one in decoded:
                before.append(one)
                if one.time >= key_time:
                    break
        if before and before[-1].time == key_time:
            return before, decoded
        # Not a key frame after all: a damaged packet looks like one, or a stream is refreshed bit by bit.
        demuxer.close()
        return self._from_start(may_skip=False)

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
        return context.width * context.height * max(bits, 12) // 8 * _FRAMES_HELD

    def close(self) -> None:
        """Free what FFmpeg holds. Not while another thread is in `open` or `next_frame`."""
        self._frames = None
        self._packets = iter(())
        if self._demuxer is not None:
            self._demuxer.close()

    def _opened(self) -> Demuxer:
        assert self._demuxer is not None  # noqa: S101 - open() comes first
        return self._demuxer

    def _prepare(self, demuxer: Demuxer) -> None:
        """Set the decoder up, and check what the container says against the limits."""
        context = demuxer.stream.codec_context
        if context.width < 0 or context.height < 0:
            raise VideoUndecodable("The video's frames have no size: send a whole, valid file.")
        self._check_pixels(context.width, context.height)
        context.options = {**context.options, "max_pixels": str(self._limits.max_pixels)}
        context.thread_count = self._threads
        context.thread_type = "AUTO" if self._threads > 1 else "NONE"
        duration_s = demuxer.facts().duration_s
        if duration_s is not None:
            end_s = self._sampling.end_s
            self._check_length(min(duration_s, end_s or duration_s) - self._sampling.start_s)
        frame = 1 / (frame_rate(demuxer.stream) or DEFAULT_FPS)
        self._order = PresentationOrder(by_decoding=demuxer.is_without_presentation_stamps)
        self._times = PresentationTimes(demuxer.time_base, frame)
        self._packets = self._stamped(demuxer, demuxer.packets())
        self._begun = self._any = self._last_was_partial = self._after_damage = False
        self._before_key = self._jumps = self.frames_damaged = 0

    def _read_facts(self, demuxer: Demuxer, first: AvFrame) -> VideoFacts:
        """What the container says, with the size and the orientation of the first frame."""
        track = demuxer.facts()
        self._orientation = _orientation(first)
        self._shown_wh = _square_pixels((first.width, first.height), track.pixel_aspect)
        self._check_pixels(*self._shown_wh)
        width, height = self._shown_wh
        return VideoFacts(
            container=track.container,
            codec=track.codec,
            size_wh=(height, width) if self._orientation.swaps_sides else (width, height),
            rotation_deg=self._orientation.rotation_deg,
            fps=track.fps,
            duration_s=track.duration_s,
            frame_count=track.frame_count,
            mirrored=self._orientation.mirrored,
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

    def _selected(self, decoded: Iterator[_Decoded]) -> Iterator[VideoFrame]:
        """The frames that the sampling selects, in RGB."""
        sampler = FrameSampler(self._sampling)
        given = 0
        started = perf_counter()
        for one in decoded:
            if sampler.is_before(one.time):
                continue
            if sampler.is_past(one.time):
                return
            if one.damaged:
                self.frames_damaged += 1
                if self._strict:
                    raise self._data_loss()
            time_s = float(one.time)
            self.first_time_s = time_s if self.first_time_s is None else self.first_time_s
            self.last_time_s = time_s
            self.frames_seen += 1
            self._check_length(time_s - self.first_time_s)
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
            image = upright(_pixels(one.frame, self._shown_wh, self._converter), self._orientation)
            given += 1
            yield VideoFrame(one.index, time_s, image, (perf_counter() - started) * 1e3, one.damaged)
            started = perf_counter()

    def _decode(self) -> Iterator[_Decoded]:
        """Decoded frames in the order of presentation, to the end of the file. Ends with an error where the
        video is longer than the file."""
        demuxer = self._opened()
        for packet in self._packets:
            self._begun = self._begun or packet.is_keyframe
            if packet.size and not self._begun:  # a recording that starts within a group of pictures
                self._before_key += 1
                self._begun = self._before_key >= _MAX_BEFORE_KEY
                continue
            if self._strict and self.gaps:
                yield from map(self._placed, self._drained(demuxer))
                raise self._data_loss()
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):
                frames = []
                if packet.size:
                    self._lose(packet)
            if self._strict and self.frames_damaged:
                frames = self._drained(demuxer)
            for frame in frames:
                yield self._placed(frame)
            if self._strict and self.frames_damaged:
                raise self._data_loss()
        if not self._any:
            raise VideoUndecodable(
                "Not one frame of the video could be decoded: send a whole, valid file."
            ) from demuxer.damage
        if demuxer.is_cut_short(last_is_partial=self._last_was_partial) or self._is_rest_lost():
            raise self._data_loss() from demuxer.damage
        if demuxer.is_ragged():
            self._jumps += 1
            if self._strict:
                raise self._data_loss()

    def _is_rest_lost(self) -> bool:
        """Whether the last frame is damaged and lies well before the end that the container states, so that
        the demuxer found nothing more that it could read."""
        last, duration_s = self._times.last, self.facts.duration_s
        if not self._after_damage or last is None or duration_s is None:
            return False
        return float(last) + _REST_S < duration_s

    def _placed(self, frame: AvFrame) -> _Decoded:
        """The frame with its number and its time."""
        self._any = True
        stamp = frame.pts if frame.pts is not None else frame.dts
        if stamp is None:
            stamp = self._order.next_stamp(self._opened().frame_ticks)
        number, shown = self._order.place(stamp, key_frame=frame.key_frame)
        last, step = self._times.last, self._times.duration
        time = self._times.at(shown, frame.duration)
        # Behind damage a leap of the times is bytes that the demuxer passed over in silence.
        self._jumps += self._after_damage and last is not None and time - last > 2 * step
        self._after_damage = frame.is_corrupt
        return _Decoded(number, time, self._times.duration, frame, frame.is_corrupt)

    def _lose(self, packet: VideoPacket) -> None:
        """A packet could not be decoded."""
        stamp = packet.pts
        if stamp is None:
            return
        self._order.lost(stamp)
        self._after_damage = True
        sampler = FrameSampler(self._sampling)
        time = self._times.seconds(stamp)
        if not packet.is_discard and not sampler.is_before(time) and not sampler.is_past(time):
            self.frames_damaged += 1

    def _drained(self, demuxer: Demuxer) -> list[AvFrame]:
        """The frames that the decoder still holds."""
        try:
            return demuxer.stream.codec_context.decode(None)
        except (av.FFmpegError, ValueError):
            return []

    def _stamped(self, demuxer: Demuxer, packets: Iterator[VideoPacket]) -> Iterator[VideoPacket]:
        """The packets with stamps that rise over jumps, each registered for the numbers of the frames."""
        clock = PacketClock(demuxer.time_base, demuxer.frame_ticks, may_jump=demuxer.clock_may_jump)
        by_decoding = demuxer.is_without_presentation_stamps
        hides_frames = demuxer.stream.codec_context.name == "vp8"
        was_interrupted = False
        for packet in packets:
            if packet.size:
                stamps = clock.read(packet.pts, packet.dts, packet.duration)
                stamp = stamps.dts if by_decoding or stamps.pts is None else stamps.pts
                packet.pts, packet.dts = stamp, stamps.dts
                hidden = packet.is_discard or (hides_frames and not memoryview(packet)[0] & _VP8_SHOWN)
                if stamp is not None and not hidden:
                    self._order.sent(stamp)
                interrupted = stamps.jumped or packet.is_corrupt
                self._jumps += interrupted and not was_interrupted
                self._last_was_partial, was_interrupted = packet.is_corrupt, interrupted
            yield packet

    def _skip_to_start(self, demuxer: Demuxer) -> Fraction | None:
        """Go on at the last key frame up to the start. Its time; None where nothing was passed over."""
        context, times = demuxer.stream.codec_context, self._times
        if demuxer.is_without_presentation_stamps and context.has_b_frames:
            return None  # which frame a key frame is, only decoding can tell
        start = Fraction(self._sampling.start_ns, NANOSECONDS)
        sought = demuxer.seek((times.zero or 0) + int(start / demuxer.time_base))
        if sought is not None:
            passed, packets = sought
            self._order.restart(passed)
            times.restart()
            packets = self._stamped(demuxer, packets)
            key = next(packets, None)
            self._packets = packets if key is None else chain((key,), packets)
            return times.seconds(key.pts) if key is not None and key.pts is not None else None
        key_time, group = self._passed_over(FrameSampler(self._sampling), start)
        if key_time is not None:
            context.flush_buffers()
        self._packets = chain(group, self._packets)
        return key_time

    def _passed_over(
        self, sampler: FrameSampler, start: Fraction
    ) -> tuple[Fraction | None, list[VideoPacket]]:
        """Read on, without decoding, until the start. Time of the last key frame up to it, and the packets
        from there on; None and all packets where there was no key frame."""
        group: list[VideoPacket] = []
        size = 0
        key_time: Fraction | None = None
        for packet in self._packets:
            stamp = packet.pts
            time = None if stamp is None else self._times.seconds(stamp)
            if packet.is_keyframe and time is not None and (sampler.is_before(time) or time == start):
                group, size, key_time = [], 0, time
            group.append(packet)
            size += packet.size
            decoded_at = packet.dts if packet.dts is not None else stamp
            reached = decoded_at is not None and not sampler.is_before(self._times.seconds(decoded_at))
            if reached or size > _GROUP_BYTES:
                break
        return key_time, group

    def _data_loss(self) -> DataLoss:
        return DataLoss(
            f"The video is damaged or cut short after {self.last_time_s:.3f} s: the frames before were "
            "answered. Send the whole file.",
            metadata={"last_time_seconds": f"{self.last_time_s:.6f}", "frames": str(self.frames_seen)},
        )

    def _fail(self, error: Exception) -> NoReturn:
        if isinstance(error, (PosegateError, SpoolClosed)):
            raise error
        if self._demuxer is not None:
            self._demuxer.raise_failure(error)
        if self.frames_seen:
            raise self._data_loss() from error
        raise VideoUndecodable(
            "The bytes are not a video that can be read: send a whole MP4, MOV, MKV, WebM, TS, AVI or GIF."
        ) from error


def _orientation(frame: AvFrame) -> Orientation:
    """Of the display matrix that the container or the codec (SEI, EXIF) gives the frame."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV cannot name some other kind of data on the frame: then without mirroring
        return Orientation(-round(frame.rotation / 90) * 90 % 360)
    return Orientation() if matrix is None else from_display_matrix(bytes(cast("SideData", matrix)))


def _square_pixels(stored_wh: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    """Size with square pixels: the shorter side of a pixel grows, so that no detail is lost."""
    width, height = stored_wh
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))


def _pixels(frame: AvFrame, size_wh: tuple[int, int], converter: VideoReformatter) -> Rgb8:
    """The frame in RGB and in that size, in FFmpeg's memory: a copy would cost as much as the conversion. One
    converter for the whole video is set up once; the one of a frame is set up for every frame."""
    rgb = converter.reformat(frame, *size_wh, format="rgb24", threads=1)
    plane = rgb.planes[0]
    samples = np.frombuffer(memoryview(plane), np.uint8)
    return as_strided(samples, (rgb.height, rgb.width, 3), (plane.line_size, 3, 1))
