"""Encoded video to upright RGB frames with their times. FFmpeg, by way of PyAV, reads and decodes.

A reader lives in one worker thread at a time and does nothing unless it is asked for the next frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from time import perf_counter
from typing import Any, NoReturn, cast

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame as AvFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.lib.stride_tricks import as_strided

from service.core.geometry import Rgb8
from service.errors import (
    DataLoss,
    PosegateError,
    VideoTooLarge,
    VideoTooLong,
    VideoUndecodable,
)
from service.media.container_probe import is_cut_short, streaming
from service.media.spool import Spool, SpoolClosed, SpoolReader

# Demuxers that read one file and nothing beside it. Playlists (HLS, DASH, concat), devices and image
# sequences are left out: they would open other files or addresses by name.
_DEMUXERS = (
    "mov,matroska,mpegts,avi,gif,flv,mpeg,mpegvideo,asf,ogg,h264,hevc,m4v,ivf,nut,mxf,apng,dv,obu,av1,mjpeg,"
    "yuv4mpegpipe,wav,mp3,flac,aac"  # the last ones are sound; named to be told from what cannot be read
)
_BUFFER_BYTES = 1 << 18  # of one read: few enough calls back into Python
_GROUP_BYTES = 64 << 20  # packets kept from the last key frame on while passing over the start
_REORDER_S = 0.5
_DEFAULT_FPS = 25.0  # where neither the container nor the frames say: as FFmpeg assumes
_MAX_FPS = 1000.0
_FRAMES_HELD = 16 + 4  # H.264 and HEVC refer to 16 frames at most
_QUARTER_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class VideoLimits:
    """What a video may be at most.

    Attributes:
        max_bytes: of the file.
        max_pixels: of one frame.
        max_seconds: of the part that is looked at.
        max_frames: that are analysed.
    """

    max_bytes: int
    max_pixels: int
    max_seconds: float
    max_frames: int


@dataclass(frozen=True)
class Sampling:
    """Which frames are wanted.

    Attributes:
        every_nth: the first one and every n-th after it.
        target_fps: so many a second instead; None for every_nth.
        start_s: frames shown earlier are passed over.
        end_s: frames shown at this time or later are passed over; None for the end of the video.
    """

    every_nth: int = 1
    target_fps: float | None = None
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True)
class VideoFacts:
    """What the container says, true or not.

    Attributes:
        container, codec: short names.
        size_wh: of the upright frames, px.
        rotation_deg: clockwise, applied.
        fps, duration_s, frame_count: None where unknown.
    """

    container: str
    codec: str
    size_wh: tuple[int, int]
    rotation_deg: int
    fps: float | None
    duration_s: float | None
    frame_count: int | None


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One frame.

    Attributes:
        index: zero-based number in the source.
        time_s: when it is shown, from the start of the video.
        image: (H, W, 3) RGB, upright.
        decode_ms: what it took, the frames before that nobody wanted included.
    """

    index: int
    time_s: float
    image: Rgb8
    decode_ms: float


class VideoReader:
    """The wanted frames of a video that may still be on its way.

    Args:
        spool: the file.
        sampling: which frames are wanted.
        limits: what is allowed.
        threads: that FFmpeg decodes with.

    Raises (from `open` and `next_frame`):
        VideoUndecodable: not a video, or none that can be read.
        VideoTooLarge, VideoTooLong: more than allowed.
        DataLoss: damage in the middle; all frames before it were given out.
        SpoolClosed: the spool was closed.
        PosegateError: what the spool was failed with.
    """

    def __init__(self, spool: Spool, sampling: Sampling, limits: VideoLimits, threads: int = 1) -> None:
        self._spool = spool
        self._sampling = sampling
        self._limits = limits
        self._threads = threads
        self._input: SpoolReader | None = None
        self._container: InputContainer | None = None
        self._stream: VideoStream | None = None
        self._facts: VideoFacts | None = None
        self._frames: Iterator[VideoFrame] | None = None
        self._timed: Iterator[tuple[int, AvFrame]] | None = None
        self._first: tuple[int, AvFrame] | None = None
        self._rotation_deg = 0
        self._damage: Exception | None = None
        self._converter = VideoReformatter()
        self._zero: float | None = None
        self._frame_s = 1 / _DEFAULT_FPS
        self._decoded = 0
        self.frames_seen = 0  # between start and end, wanted or not
        self.last_time_s = 0.0
        self.first_time_s: float | None = None

    @property
    def facts(self) -> VideoFacts:
        """What the container says; known once `open` is through."""
        assert self._facts is not None  # noqa: S101 - open() comes first
        return self._facts

    @property
    def bytes_decoded(self) -> int:
        """How far into the file decoding has come."""
        return self._decoded

    def open(self) -> VideoFacts:
        """Read the container's head and decode one frame; waits for as much of the file as that needs."""
        try:
            if not self._spool.read_all(1, 0):
                raise VideoUndecodable("The video is empty: send the bytes of an encoded file.")
            whole = streaming(self._spool.read_all) == "whole file"
            if whole:
                self._spool.wait(None)
            self._input = SpoolReader(self._spool, seekable=whole)
            self._container = self._demuxer(self._input)
            self._stream = _pictures(self._container)
            self._prepare(self._container, self._stream)
            self._timed = self._decode()
            self._first = next(self._timed, None)
            self._facts = self._read_facts(self._container, self._stream)
        except Exception as error:
            self._fail(error)
        self._frames = self._wanted()
        return self._facts

    def _demuxer(self, file: SpoolReader) -> InputContainer:
        return av.open(
            file,
            mode="r",
            # `max_pixels` is for every decoder that probing opens.
            options={"max_pixels": str(self._limits.max_pixels), "format_whitelist": _DEMUXERS},
            metadata_errors="replace",
            buffer_size=_BUFFER_BYTES,
            io_open=_refuse,
        )

    def next_frame(self) -> VideoFrame | None:
        """The next wanted frame; None after the last."""
        assert self._frames is not None  # noqa: S101 - open() comes first
        try:
            return next(self._frames, None)
        except Exception as error:
            self._fail(error)

    def decoder_bytes(self) -> int:
        """What the decoder holds at most: as many frames as one may lean on, and those in the making."""
        assert self._stream is not None  # noqa: S101 - open() comes first
        context = self._stream.codec_context
        layout = context.format
        bits = layout.padded_bits_per_pixel if layout is not None else 24
        return context.width * context.height * max(bits, 12) // 8 * _FRAMES_HELD

    def close(self) -> None:
        """Free what FFmpeg holds. Not while another thread is in `open` or `next_frame`."""
        self._frames = self._timed = self._first = None
        self._stream = None
        if self._container is not None:
            self._container.close()
            self._container = None

    def _prepare(self, container: InputContainer, stream: VideoStream) -> None:
        """Set the decoder up, and hold what the container says against the limits."""
        context = stream.codec_context
        if context.width < 0 or context.height < 0:
            raise VideoUndecodable("The video's frames have no size: send a whole, valid file.")
        self._check_pixels(context.width, context.height)
        context.options = {**context.options, "max_pixels": str(self._limits.max_pixels)}
        context.thread_count = self._threads
        context.thread_type = "AUTO" if self._threads > 1 else "NONE"
        self._zero = _seconds(stream.start_time, stream.time_base)
        fps = _fps(stream)
        self._frame_s = 1 / (fps or _DEFAULT_FPS)
        duration_s = _duration_s(container, stream)
        if duration_s is not None:
            end_s = self._sampling.end_s
            self._check_length(min(duration_s, end_s or duration_s) - self._sampling.start_s)

    def _read_facts(self, container: InputContainer, stream: VideoStream) -> VideoFacts:
        """What the container says, and size and turn of the first frame."""
        context, first = stream.codec_context, self._first
        width, height = context.width, context.height
        if first is not None:
            self._rotation_deg = -round(first[1].rotation / 90) * 90 % 360
            width, height = first[1].width, first[1].height
        size_wh = (height, width) if self._rotation_deg in (90, 270) else (width, height)
        return VideoFacts(
            container=_container_name(container.format.name),
            codec=context.codec.canonical_name,
            size_wh=size_wh,
            rotation_deg=self._rotation_deg,
            fps=_fps(stream),
            duration_s=_duration_s(container, stream),
            frame_count=stream.frames or None,
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

    def _wanted(self) -> Iterator[VideoFrame]:
        beat = _FrameSampler(self._sampling)
        given = 0
        started = perf_counter()
        for index, frame in self._shown():
            time_s = self._time(frame)
            if time_s < self._sampling.start_s:
                continue
            if self._sampling.end_s is not None and time_s >= self._sampling.end_s:
                return
            self.first_time_s = time_s if self.first_time_s is None else self.first_time_s
            self.frames_seen += 1
            self._check_length(time_s - self.first_time_s)
            if not beat.wants(time_s, self._frame_s):
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
            self._check_pixels(frame.width, frame.height)
            image = _upright(_pixels(frame, self._converter), self._rotation_deg, self.facts.size_wh)
            given += 1
            yield VideoFrame(index, time_s, image, (perf_counter() - started) * 1e3)
            started = perf_counter()

    def _shown(self) -> Iterator[tuple[int, AvFrame]]:
        """All frames, the one that `open` decoded first."""
        assert self._timed is not None  # noqa: S101 - open() comes first
        if self._first is not None:
            yield self._first
            self._first = None
        yield from self._timed

    def _decode(self) -> Iterator[tuple[int, AvFrame]]:
        """Decoded frames in the order they are shown, with their numbers in the source. Ends with an error
        where the file is damaged; all frames before the damage come first."""
        passed, packets = self._from_start()
        index = passed
        begun = given = False
        sent: list[int] = []  # times of the packets before the first frame
        for packet in packets:
            if self._spool.closed:  # nobody waits for the frames any more
                raise SpoolClosed
            if packet.pos is not None and packet.pos >= 0:
                self._decoded = max(self._decoded, packet.pos + packet.size)
            if not given and packet.pts is not None:
                sent.append(packet.pts)
            try:
                frames = packet.decode()
                begun = begun or packet.is_keyframe
            except (av.FFmpegError, ValueError) as error:
                if not begun:  # a recording that starts in the middle of a group of pictures
                    continue
                self._damage, frames = error, self._drained()
            if packet.is_corrupt and self._damage is None:
                self._damage, frames = ValueError("a packet is damaged"), []
            for frame in frames:
                if frame.is_corrupt and given:
                    self._damage = ValueError("a frame is damaged")
                    break
                if not given and frame.pts is not None:
                    # Pictures that lean on a group passed over are not given out: they count all the same.
                    index = passed + sum(stamp < frame.pts for stamp in sent)
                given = True
                yield index, frame
                index += 1
            if self._damage is not None:
                break
        if not given:
            raise VideoUndecodable(
                "Not one frame of the video could be decoded: send a whole, valid file."
            ) from self._damage
        if self._damage is not None or self._is_cut_short():
            raise self._data_loss(index) from self._damage

    def _drained(self) -> list[AvFrame]:
        """The frames that the decoder still holds."""
        assert self._stream is not None  # noqa: S101 - open() comes first
        try:
            return self._stream.codec_context.decode(None)
        except (av.FFmpegError, ValueError):
            return []

    def _from_start(self) -> tuple[int, Iterator[Packet[VideoStream]]]:
        """How many frames are passed over undecoded, and the packets after them."""
        assert self._container is not None  # noqa: S101 - open() comes first
        assert self._stream is not None  # noqa: S101
        if self._sampling.start_s > 0 and self._input is not None and self._input.seekable():
            passed = self._seek(self._container, self._stream)
            if passed is not None:
                return passed, self._packets()
        if self._sampling.start_s > 0:
            return self._pass_over(self._packets())
        return 0, self._packets()

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """The packets of the video track, up to the end or to the first damage of the container."""
        assert self._container is not None  # noqa: S101 - open() comes first
        assert self._stream is not None  # noqa: S101
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, ValueError) as error:
                self._raise_failure(error)
                self._damage = error
                flush = cast("Packet[VideoStream]", Packet())
                flush.stream = self._stream
                yield flush  # an empty packet makes the decoder give what it still holds
                return
            if packet is None:
                return
            yield packet

    def _seek(self, container: InputContainer, stream: VideoStream) -> int | None:
        """Go to the key frame before the start by the container's index; the number of frames passed over,
        or None where there is no index to tell it by."""
        entries = stream.index_entries
        if stream.time_base is None or not 0 < stream.frames <= len(entries):
            return None
        # Key frames are found by the time they are decoded at, which comes before that of showing.
        seconds = max(self._sampling.start_s - _REORDER_S, 0.0) + (self._zero or 0.0)
        wanted = math.floor(seconds / stream.time_base)
        position = entries.search_timestamp(wanted, backward=True)
        if position <= 0:
            return 0
        try:
            container.seek(wanted, stream=stream, backward=True)
        except av.FFmpegError as error:
            self._raise_failure(error)
            return None
        return position

    def _pass_over(self, packets: Iterator[Packet[VideoStream]]) -> tuple[int, Iterator[Packet[VideoStream]]]:
        """Read on without decoding until the group of pictures in which the start lies."""
        group: list[Packet[VideoStream]] = []
        passed = size = 0
        for packet in packets:
            shown_s = _seconds(packet.pts if packet.pts is not None else packet.dts, packet.time_base)
            if shown_s is not None and self._zero is None:
                self._zero = shown_s
            begun = shown_s is not None and shown_s - (self._zero or 0.0) >= self._sampling.start_s
            if packet.is_keyframe and not begun:
                passed += len(group)
                group, size = [], 0
            group.append(packet)
            size += packet.size
            if begun or size > _GROUP_BYTES:
                break
        return passed, _chained(group, packets)

    def _time(self, frame: AvFrame) -> float:
        """Seconds from the start of the video; never falling, whatever the container says."""
        first = self.first_time_s is None and self.last_time_s == 0.0
        stamp = frame.pts if frame.pts is not None else frame.dts
        shown_s = _seconds(stamp, frame.time_base)
        step_s = _seconds(frame.duration, frame.time_base)
        if step_s is not None and 1 / _MAX_FPS <= step_s <= 10:
            self._frame_s = step_s
        if shown_s is None:
            time_s = 0.0 if first else self.last_time_s + self._frame_s
        else:
            self._zero = shown_s if self._zero is None else self._zero
            time_s = shown_s - self._zero
        if time_s <= self.last_time_s and not first:
            time_s = self.last_time_s + self._frame_s
        self.last_time_s = max(time_s, 0.0)
        return self.last_time_s

    def _is_cut_short(self) -> bool:
        size = self._spool.wait(None)
        return is_cut_short(self._spool.read_all, size)

    def _data_loss(self, frames: int) -> DataLoss:
        return DataLoss(
            f"The video is damaged or cut short after {self.last_time_s:.3f} s: the frames before were "
            "answered. Send the whole file.",
            metadata={"last_time_seconds": f"{self.last_time_s:.6f}", "frames": str(frames)},
        )

    def _raise_failure(self, error: Exception) -> None:
        """FFmpeg turns what went wrong while reading the spool into an error of its own: undo that."""
        if self._input is not None and self._input.failure is not None:
            raise self._input.failure from error

    def _fail(self, error: Exception) -> NoReturn:
        if isinstance(error, (PosegateError, SpoolClosed)):
            raise error
        self._raise_failure(error)
        if self.frames_seen:
            raise self._data_loss(self.frames_seen) from error
        raise VideoUndecodable(
            "The bytes are not a video that can be read: send a whole MP4, MOV, MKV, WebM, TS, AVI or GIF."
        ) from error


class _FrameSampler:
    """Picks frames by number or by time."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._count = -1
        self._next = 0

    def wants(self, time_s: float, frame_s: float) -> bool:
        """Whether the frame shown at `time_s` for `frame_s` is one of those wanted."""
        fps = self._sampling.target_fps
        if fps is None:
            self._count += 1
            return self._count % self._sampling.every_nth == 0
        # The frame nearest to a beat is the one whose time is at most half a frame off. Beats are counted
        # from the start that was asked for, not from the first frame: who goes on later meets them again.
        beats = math.floor((time_s - self._sampling.start_s + frame_s / 2) * fps + 1e-6)
        if beats < self._next:
            return False
        self._next = beats + 1
        return True


def _refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise PermissionError("a video may not open other files")


def _pictures(container: InputContainer) -> VideoStream:
    """The video track: the container's default, else the first; pictures on a sound file are none."""
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None
    ]
    if not streams:
        what = "sound only" if container.streams.audio else "no video track that can be decoded"
        raise VideoUndecodable(f"The file holds {what}: send a video.")
    chosen = next((one for one in streams if one.disposition & Disposition.default), streams[0])
    for stream in container.streams:
        if stream.index != chosen.index:
            stream.discard = Discard.all
    return chosen


def _pixels(frame: AvFrame, converter: VideoReformatter) -> Rgb8:
    """The frame in RGB, where FFmpeg put it: a copy would cost as much as the conversion. A converter of
    one's own is set up once; the one of a frame is set up for every frame."""
    rgb = converter.reformat(frame, format="rgb24", threads=1)
    plane = rgb.planes[0]
    samples = np.frombuffer(memoryview(plane), np.uint8)
    return as_strided(samples, (rgb.height, rgb.width, 3), (plane.line_size, 3, 1))


def _upright(image: Rgb8, rotation_deg: int, size_wh: tuple[int, int]) -> Rgb8:
    """The picture turned, and scaled where the size changes in the middle of a video."""
    if rotation_deg:
        image = cast("Rgb8", cv2.rotate(image, _QUARTER_TURNS[rotation_deg]))
    if (image.shape[1], image.shape[0]) != size_wh:
        image = cast("Rgb8", cv2.resize(image, size_wh, interpolation=cv2.INTER_LINEAR))
    return image


def _fps(stream: VideoStream) -> float | None:
    return _rate(stream.average_rate) or _rate(stream.guessed_rate)


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    seconds = _seconds(stream.duration, stream.time_base)
    if seconds is None and container.duration is not None:
        seconds = container.duration / av.time_base
    return seconds if seconds is not None and seconds > 0 else None


def _rate(rate: Fraction | None) -> float | None:
    """Frames per second, where that is a number to believe in."""
    return float(rate) if rate is not None and 0 < rate <= _MAX_FPS else None


def _seconds(stamp: int | None, base: Fraction | None) -> float | None:
    return None if stamp is None or base is None or not base else float(stamp * base)


def _container_name(names: str) -> str:
    """The name that people know, of the several that FFmpeg gives one demuxer."""
    known = {"mov,mp4,m4a,3gp,3g2,mj2": "mp4", "matroska,webm": "matroska"}
    return known.get(names, names.partition(",")[0])


def _chained(
    group: list[Packet[VideoStream]], rest: Iterator[Packet[VideoStream]]
) -> Iterator[Packet[VideoStream]]:
    yield from group
    yield from rest
