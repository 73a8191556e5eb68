"""Demuxer: the video track of a file that may still be on its way, as packets. FFmpeg, by way of PyAV."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn, TypeAlias, cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from service.core.cancellation import checkpoint
from service.errors import ImageTooCostly, ImageUndecodable, VideoTooCostly, VideoUndecodable
from service.media.container_probe import is_cut_short, is_ragged, still_image, streaming
from service.media.image_bounds import check_frame
from service.media.spool import Spool, SpoolClosed, SpoolReader
from service.media.walks.asf import AsfWalk
from service.media.walks.avi import AVI_HEAD, AviWalk
from service.media.walks.flv import FlvWalk
from service.media.walks.fragments import FragmentWalk
from service.media.walks.matroska import MatroskaWalk
from service.media.walks.mpeg_ps import ProgramStreamWalk
from service.media.walks.mxf import MxfWalk
from service.media.walks.ogg import OggWalk
from service.media.walks.walk import Walk

VideoPacket: TypeAlias = "Packet[VideoStream]"  # generic in PyAV's stubs only

DEFAULT_FPS = Fraction(25)  # where neither the container nor the frames say: as FFmpeg assumes
_MAX_FPS = 1000

# Demuxers that read one file and nothing beside it. Playlists (HLS, DASH, concat), devices and image
# sequences are left out: they would open other files or addresses by name.
_DEMUXERS = (
    "mov,matroska,mpegts,avi,gif,flv,mpeg,mpegvideo,asf,ogg,h264,hevc,m4v,ivf,nut,mxf,apng,dv,obu,av1,mjpeg,"
    "yuv4mpegpipe,wav,mp3,flac,aac"  # the last ones are sound, for an error message of their own
)
# What recordings and exchange files hold. Decoders of games, screen recorders and still formats are left out:
# few maintain them, and what one costs is not known.
_CODECS = (
    "h264,hevc,av1,libdav1d,vp8,vp9,mpeg4,mpeg2video,mpeg1video,mjpeg,mjpegb,h263,h263i,h263p,h261,flv,prores,"
    "dnxhd,dvvideo,theora,wmv1,wmv2,wmv3,vc1,msmpeg4v1,msmpeg4v2,msmpeg4,msmpeg4v3,gif,apng,png,rawvideo,"
    "huffyuv,ffvhuff,ffv1,utvideo,magicyuv,cfhd,jpeg2000,svq1,svq3,vp6,vp6f,rpza,qtrle,cinepak,v210,v410"
)
_MAX_TRACKS = 16  # of any kind, further ones do not count: opening a file tries a decoder for each
_BUFFER_BYTES = 1 << 18  # of one read: few enough calls back into Python
_REORDER_S = Fraction(1, 2)  # a key frame's presentation is at most that much later than its decoding
_MAX_FAILURES = 16  # of reading in a row; the demuxer is then taken to be stuck
_JUMPING = ("mpegts", "mpeg")  # containers whose clock may jump (FFmpeg's AVFMT_TS_DISCONT)
_ELEMENTARY = ("h264", "hevc", "m4v", "mpegvideo")
_ENDLESS = (*_JUMPING, *_ELEMENTARY, "obu", "mjpeg")  # formats that may end anywhere
_MIN_ASPECT, _MAX_ASPECT = Fraction(1, 8), Fraction(8)  # of a pixel; anything else is taken for damage


@dataclass(frozen=True)
class TrackFacts:
    """What the container says of its video track, true or not.

    Attributes:
        container, codec: short names.
        stored_wh: of the stored frames, px.
        pixel_aspect: width of a pixel by its height.
        fps, duration_s, frame_count: None where unknown.
        begin_s: start of the track after the earliest track of the file, seconds.
    """

    container: str
    codec: str
    stored_wh: tuple[int, int]
    pixel_aspect: Fraction
    fps: float | None
    duration_s: float | None
    frame_count: int | None
    begin_s: float


class Demuxer:
    """Packets of the video track, from front to back or from a key frame on.

    Damage of the container is stepped over where the file can be read behind it.

    Args:
        spool: the file.
        max_pixels: of one frame, for every decoder that opening tries.

    Attributes:
        stream: the video track.
        gaps: places where bytes were passed over.
        damage: what ended reading before the end of the file; None where nothing did.
        bytes_read: position in the file behind the last packet.

    Raises (all methods):
        VideoUndecodable: not a video.
        VideoTooCostly: too many tracks, or a frame that costs far more than its pixels.
        SpoolClosed: the spool was closed.
        PosegateError: what the spool was failed with.
    """

    def __init__(self, spool: Spool, max_pixels: int) -> None:
        self._spool = spool
        self._max_pixels = max_pixels
        self._container: InputContainer | None = None
        if not spool.read_all(1, 0):
            raise VideoUndecodable("The video is empty: send the bytes of an encoded file.")
        whole = streaming(spool.read_all) == "whole file"
        size = spool.wait(None) if whole else None
        image_format = still_image(spool.read_all, size)
        if image_format is not None:
            raise VideoUndecodable(f"The file is a still image ({image_format}): send it to DetectPoses.")
        self._input = SpoolReader(spool, seekable=whole)
        self.gaps = 0
        self.damage: Exception | None = None
        self.bytes_read = 0
        self._stamps: dict[int, int] | None = None  # by place, of an AVI with gaps
        try:
            self._container = av.open(
                self._input,
                mode="r",
                options={
                    # FFmpeg counts whole blocks of the coded frame: a frame of exactly so many pixels passes
                    # here, and one of more is refused by the reader, in its own words.
                    "max_pixels": str(max_pixels + max_pixels // 4 + 65536),
                    "format_whitelist": _DEMUXERS,
                    "codec_whitelist": _CODECS,
                    "max_streams": str(_MAX_TRACKS),
                },
                metadata_errors="replace",
                buffer_size=_BUFFER_BYTES,
                io_open=_refuse,
            )
            self.stream = _video_track(self._container)
            self._walk = self._make_walk()
        except BaseException as error:
            self.close()
            self.raise_failure(error)
            if isinstance(error, MemoryError):  # FFmpeg's answer to one track too many, too
                raise VideoTooCostly(
                    f"The video has more than {_MAX_TRACKS} tracks, or needs more memory than is allowed: "
                    "send one video track, without attachments.",
                    metadata={"limit_tracks": str(_MAX_TRACKS)},
                ) from error
            raise

    def again(self) -> Demuxer:
        """Another demuxer of the same file, at its start."""
        return Demuxer(self._spool, self._max_pixels)

    @property
    def time_base(self) -> Fraction:
        """Seconds in a tick of the track's stamps."""
        return self.stream.time_base or Fraction(1, 1_000_000)

    @property
    def frame_ticks(self) -> int:
        """Ticks of one frame at the track's average rate."""
        return max(round(1 / (frame_rate(self.stream) or DEFAULT_FPS) / self.time_base), 1)

    @property
    def clock_may_jump(self) -> bool:
        """Whether stamps may leap ahead without a pause of the frames."""
        return self._name in _JUMPING

    @property
    def may_start_anywhere(self) -> bool:
        """Whether a file of this format may start with frames that depend on others before it."""
        return self._name in _ENDLESS

    @property
    def is_without_presentation_stamps(self) -> bool:
        """Whether the container has decoding stamps only, as AVI, or none, as elementary streams."""
        if self._name == "matroska":  # only tracks of Video for Windows have a FourCC (V_MS/VFW/FOURCC)
            return bool(self.stream.codec_context.codec_tag.strip("\0"))
        return self._name == "avi" or self._name in _ELEMENTARY

    def facts(self) -> TrackFacts:
        """What the container says."""
        container, stream = self._opened(), self.stream
        context = stream.codec_context
        entries = stream.index_entries
        count: int | None = stream.frames or None
        duration_s = _duration_s(container, stream)
        if count is not None and self._name == "mov" and len(entries) >= count:
            count = sum(not entry.is_discard for entry in entries)  # what edit lists cut off is not shown
        if count is not None and self._spool.complete and count > self._spool.size:
            count = duration_s = None  # the sizes of an AVI that was written into a pipe
        begin_s = 0.0
        if stream.start_time is not None and container.start_time is not None:
            begin_s = max(
                float(stream.start_time * self.time_base) - container.start_time / av.time_base, 0.0
            )
        fps = frame_rate(stream)
        return TrackFacts(
            container={"mov": "mp4"}.get(self._name, self._name),
            codec=context.codec.canonical_name,
            stored_wh=(context.width, context.height),
            pixel_aspect=_pixel_aspect(stream),
            fps=None if fps is None else float(fps),
            duration_s=duration_s,
            frame_count=count,
            begin_s=round(begin_s, 6),
        )

    def packets(self) -> Iterator[VideoPacket]:
        """The packets from here on, with the number of gaps before each as `opaque`; an empty one that
        flushes the decoder is the last."""
        failures = 0
        reading = self._opened().demux(self.stream)
        while True:
            checkpoint()
            if self._spool.closed:  # the frames are not needed any more
                raise SpoolClosed
            try:
                packet = next(reading, None)
            except (av.FFmpegError, ValueError) as error:
                self.raise_failure(error)
                self.damage = error
                failures += 1
                if failures >= _MAX_FAILURES:
                    yield self._flush()
                    return
                reading = self._opened().demux(self.stream)
                continue
            if packet is None:
                return
            if self._walk is not None and packet.pos is not None and packet.pos > 0:
                self.gaps += not self._walk.reach(packet.pos)
                if self.gaps and self._name == "avi":
                    self._stamp_by_index(packet)
            if packet.size:
                failures = 0
                if self.damage is not None:  # the file goes on behind it
                    self.damage = None
                    self.gaps += self._walk is None  # which finds it by itself
                self._check_frame(packet)
                if packet.pos is not None and packet.pos >= 0:
                    self.bytes_read = max(self.bytes_read, packet.pos + packet.size)
            elif packet.dts is not None or packet.pts is not None:
                continue  # an empty packet prolongs the frame before; the decoder would take it for the end
            packet.opaque = self.gaps
            yield packet

    def can_seek(self, stamp: int) -> bool:
        """Whether `seek` can go to a key frame that is not the first: the file is here whole and has an index
        that counts its frames."""
        stream, entries = self.stream, self.stream.index_entries
        if not self._input.seekable() or not 0 < stream.frames <= len(entries):
            return False
        return entries.search_timestamp(self._key_stamp(stamp), backward=True) > 0

    def seek(self, stamp: int) -> tuple[int, Iterator[VideoPacket]]:
        """Go to the last key frame that is decoded at `stamp` or earlier, less what frames are reordered by.

        Returns:
            The number of presented frames whose packets come before its own, and the packets from it on.
        """
        stream, entries = self.stream, self.stream.index_entries
        try:
            self._opened().seek(self._key_stamp(stamp), stream=stream, backward=True)
        except av.FFmpegError as error:
            self.raise_failure(error)
            raise
        if self._walk is not None:
            self._walk.jump()
        packets = self.packets()
        first = next(packets, None)
        if first is None:
            return 0, packets
        # FFmpeg may choose an earlier key frame than its index names; the packet says which it was.
        place = entries.search_timestamp(first.dts or 0, backward=True, any_frame=True)
        passed = sum(not entry.is_discard for entry in entries[: max(place, 0)])
        return passed, _chained(first, packets)

    def _key_stamp(self, stamp: int) -> int:
        return stamp - math.ceil(_REORDER_S / self.time_base)

    def is_cut_short(self, *, last_is_partial: bool) -> bool:
        """Whether the file, read to its end, lacks a part of itself.

        Args:
            last_is_partial: the last packet had fewer bytes than its container said.
        """
        if self.damage is not None:
            return True
        if self._name in _ENDLESS:
            return False
        size = self._spool.wait(None)
        if self._walk is not None and self._walk.rest(size) == "lost":
            return True
        if self._name == "mov" and self.stream.frames:
            # Only frames count: the index says where each of them lies.
            entries = self.stream.index_entries
            if len(entries) >= self.stream.frames:
                return any(entry.pos + entry.size > size for entry in entries)
        return last_is_partial or is_cut_short(self._spool.read_all, size)

    def is_ragged(self) -> bool:
        """Whether the file ends within a packet of a transport stream, or in a block that cannot be read."""
        size = self._spool.wait(None)
        if self._walk is not None:
            return self._walk.rest(size) == "ragged"
        return self._name == "mpegts" and is_ragged(self._spool.read_all, size)

    def _make_walk(self) -> Walk | None:
        """What finds the places where FFmpeg passes over bytes in silence."""
        read, name = self._spool.read_all, self._name
        if name == "matroska":
            return MatroskaWalk(read)
        if name == "mov":
            return FragmentWalk(read, self.stream.id)
        if name == "flv":
            return FlvWalk(read)
        if name == "avi":
            indexed = frozenset(entry.pos for entry in self.stream.index_entries)
            return AviWalk(read, len(self._opened().streams), indexed)
        if name == "ogg":
            return OggWalk(read)
        if name == "mpeg":
            return ProgramStreamWalk(read)
        if name == "mxf":
            return MxfWalk(read)
        if name == "asf":
            streams = frozenset(stream.id for stream in self._opened().streams)
            return AsfWalk(read, self.stream.id, streams)
        return None

    @property
    def finds_gaps(self) -> bool:
        """Whether `gaps` has the places too where FFmpeg passes over bytes in silence."""
        return self._walk is not None

    def raise_failure(self, error: BaseException) -> None:
        """FFmpeg turns an error of reading the spool into one of its own: raise the spool's."""
        if self._input.failure is not None:
            raise self._input.failure from error

    def close(self) -> None:
        """Free what FFmpeg holds. Not while another thread is in a method."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _stamp_by_index(self, packet: VideoPacket) -> None:
        """Take the stamp of an AVI's packet from its index: FFmpeg counts on, as if nothing were missing."""
        if self._stamps is None:
            self._stamps = {entry.pos: entry.timestamp for entry in self.stream.index_entries}
        stamp = self._stamps.get((packet.pos or 0) - AVI_HEAD)
        if stamp is not None:
            packet.dts = packet.pts = stamp

    def _check_frame(self, packet: VideoPacket) -> None:
        """Refuse a frame of Motion JPEG that costs many times what its pixels do."""
        if self.stream.codec_context.name != "mjpeg":
            return
        try:
            check_frame(bytes(packet), self._max_pixels)
        except ImageTooCostly as error:
            raise VideoTooCostly(
                "A frame of the Motion JPEG has far more scans or segments than any encoder writes: encode "
                "the video anew.",
                metadata=error.metadata,
            ) from error
        except ImageUndecodable:  # damaged: for the decoder to step over
            pass

    @property
    def _name(self) -> str:
        """FFmpeg's name of the format, of several the one it is known by."""
        return self._opened().format.name.partition(",")[0]

    def _opened(self) -> InputContainer:
        if self._container is None:
            raise SpoolClosed
        return self._container

    def _flush(self) -> VideoPacket:
        packet = cast("VideoPacket", Packet())
        packet.stream = self.stream
        return packet


def frame_rate(stream: VideoStream) -> Fraction | None:
    """Frames per second on average, where the container gives a plausible number."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate is not None and 0 < rate <= _MAX_FPS:
            return rate
    return None


def _refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise PermissionError("a video may not open other files")


def _video_track(container: InputContainer) -> VideoStream:
    """The container's default video track, else the first; pictures on a sound file are none."""
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None
    ]
    if not streams:
        what = "sound only" if container.streams.audio else "no video track that can be decoded"
        raise VideoUndecodable(f"The file holds {what}: send a video.")
    streams = [stream for stream in streams if stream.codec_context.name in _CODECS.split(",")]
    if not streams:
        raise VideoUndecodable(
            "The video's codec is not accepted: send H.264, HEVC, AV1, VP8, VP9, MPEG-4 or Motion JPEG."
        )
    chosen = next((one for one in streams if one.disposition & Disposition.default), streams[0])
    for stream in container.streams:
        if stream.index != chosen.index:
            stream.discard = Discard.all
    return chosen


def _pixel_aspect(stream: VideoStream) -> Fraction:
    """Of the container, else of the codec (av_guess_sample_aspect_ratio); 1 where neither is plausible."""
    aspect = stream.sample_aspect_ratio
    return aspect if aspect is not None and _MIN_ASPECT <= aspect <= _MAX_ASPECT else Fraction(1)


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    seconds: float | None = None
    if stream.duration is not None and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / av.time_base
    return seconds if seconds is not None and seconds > 0 else None


def _chained(first: VideoPacket, rest: Iterator[VideoPacket]) -> Iterator[VideoPacket]:
    yield first
    yield from rest
