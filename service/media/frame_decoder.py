"""Frame decoder: packets to frames with their numbers and times, and an account of what damage costs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import av
from av.codec import Capabilities
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame as AvFrame

from service.errors import VideoUndecodable
from service.media.demuxer import DEFAULT_FPS, Demuxer, VideoPacket, frame_rate
from service.media.frame_sampler import NANOSECONDS, nanoseconds
from service.media.timestamps import PacketClock, Place, PresentationOrder, PresentationTimes, StrayStamps

_GROUP_BYTES = 64 << 20  # packets kept from a key frame on
FRAMES_HELD = 16 + 4  # by a decoder: H.264 and HEVC refer to 16 frames at most
_VP8_SHOWN = 0x10  # of the first byte of a frame (RFC 6386, 9.1)
_REST_S = 0.5  # that the stated end may lie behind the last frame
_STRICT = "crccheck+bitstream+buffer+explode"
_MAX_BEFORE_KEY = 300  # packets; a track without any key frame is then decoded all the same


class BrokenOff(Exception):
    """The video is damaged or cut short here; every frame before was given."""


@dataclass(frozen=True, eq=False)
class DecodedFrame:
    """A presented frame before its conversion to RGB.

    Attributes:
        index: number among the presented frames of the source.
        time: from frame 0, seconds.
        duration: seconds.
        frame: the pixels; None where the frame is lost.
        damaged: its data, or data that it depends on, are damaged or lost.
    """

    index: int
    time: Fraction
    duration: Fraction
    frame: AvFrame | None
    damaged: bool


class FrameDecoder:
    """Decodes the packets of one demuxer.

    Args:
        demuxer: the track, at its start.
        max_pixels: of one frame.
        threads: that FFmpeg decodes with.
        strict: break off at the first gap.

    Raises (from the iterators):
        BrokenOff: the file is cut short or cannot be read on; with `strict` at the first gap.
        VideoUndecodable: not one frame could be decoded.
    """

    def __init__(self, demuxer: Demuxer, *, max_pixels: int, threads: int, strict: bool) -> None:
        self._demuxer = demuxer
        self._strict = strict
        self._max_pixels = max_pixels
        self._threads = threads
        self._context = demuxer.stream.codec_context
        set_up(self._context, max_pixels, threads, strict=strict)
        # A decoder whose threads take a packet each answers for a packet only so many packets later.
        frame_threads = bool(self._context.codec.capabilities & Capabilities.frame_threads)
        self._lag = threads - 1 if frame_threads else 0
        frame = 1 / (frame_rate(demuxer.stream) or DEFAULT_FPS)
        self._order = PresentationOrder(by_decoding=demuxer.is_without_presentation_stamps)
        self._times = PresentationTimes(demuxer.time_base, frame)
        self._hides_frames = self._context.name == "vp8"
        self._packets = self._stamped(demuxer.packets())
        self._recent: deque[list[VideoPacket]] = deque()  # by group of pictures; with several threads only
        self._jumps = 0
        self._known_gaps = 0  # of the demuxer, before the packets that were taken
        self._last_was_partial = False  # packet
        self._after_damage = False
        self._begun = False  # with a key frame
        self._before_key = 0  # packets
        self._any = False  # frame was decoded

    @property
    def gaps(self) -> int:
        """Places where bytes were passed over, packets are missing, or the container's clock jumps."""
        return self._jumps + self._known_gaps

    def frames(self) -> Iterator[DecodedFrame]:
        """The frames from here on, decoded and lost, in the order of presentation."""
        for packet in self._packets:
            if packet.size and not self._may_begin(packet):
                continue
            self._take_gaps(packet)
            if self._strict and self.gaps:
                yield from self._placed(_decoded(self._context, None)[0])
                raise BrokenOff
            if packet.size:
                self._send(packet)
                if self._threads > 1:
                    self._keep(packet)
            elif self._demuxer.is_cut_short(last_is_partial=self._last_was_partial):
                self._order.end_in_gap()
            frames, failed = _decoded(self._context, packet if packet.size else None)
            if failed and packet.size:
                self._order.damaged(packets_ago=self._lag, lost=True)
                self._after_damage = True
            yield from self._placed(frames)
            if not packet.size:
                break
        if self._threads > 1 and not self._order.is_complete:
            yield from self._last_group_again()
        if not self._any:
            raise VideoUndecodable(
                "Not one frame of the video could be decoded: send a whole, valid file."
            ) from self._demuxer.damage
        yield from map(self._lost, self._order.rest())
        self._check_end()

    def skip_to(self, start_ns: int) -> Fraction | None:
        """Go on at the last key frame up to the start; after the first frame.

        Returns:
            Time of that key frame; None where nothing was passed over.
        """
        demuxer, zero = self._demuxer, self._order.zero or 0
        if demuxer.is_without_presentation_stamps and self._context.has_b_frames:
            return None  # which frame a key frame is, only decoding can tell
        sought = zero + int(Fraction(start_ns, NANOSECONDS) / demuxer.time_base)
        passed = None
        if demuxer.can_seek(sought):
            for packet in self._read_up_to(zero):  # may hold frames before frame 0, which the index has too
                self._send(packet)
            passed, packets = demuxer.seek(sought)
            self._packets = self._stamped(packets)
        elif not self._pass_over(start_ns):
            return None
        return self._restart(passed)

    def _restart(self, passed: int | None) -> Fraction:
        """Begin anew with the next packet, which is a key frame; its time."""
        key = next(self._packets)
        if key.pts is None:
            raise BrokenOff
        if passed is None:
            self._take_gaps(key)
        group = [key, *self._read_up_to(key.pts)]
        self._packets = chain(group, self._packets)
        leading = [
            stamp
            for stamp, shown in map(self._frame_of, group)
            if shown and stamp is not None and stamp < key.pts
        ]
        self._order.restart(key.pts, leading=leading, passed=passed)
        self._times.restart()
        self._recent.clear()
        self._context.flush_buffers()
        return self._times.seconds(key.pts)

    def _read_up_to(self, stamp: int) -> list[VideoPacket]:
        """Packets up to the first that is decoded at a stamp or later: none behind it is presented before."""
        packets: list[VideoPacket] = []
        size = 0
        for packet in self._packets:
            packets.append(packet)
            size += packet.size
            if not packet.size or _decoded_at(packet, stamp) >= stamp or size > _GROUP_BYTES:
                break
        return packets

    def _pass_over(self, start_ns: int) -> bool:
        """Read on, without decoding, up to the start. Whether there was a key frame: the last one is then the
        next packet; else no packet is passed over."""
        group: list[VideoPacket] = []
        size = 0
        found = False
        for packet in self._packets:
            time_ns = -1 if packet.pts is None else nanoseconds(self._times.seconds(packet.pts))
            if packet.is_keyframe and 0 <= time_ns <= start_ns:
                for earlier in group:
                    self._send(earlier)
                group, size, found = [], 0, True
            group.append(packet)
            size += packet.size
            decoded_at = packet.dts if packet.dts is not None else packet.pts
            reached = decoded_at is not None and nanoseconds(self._times.seconds(decoded_at)) >= start_ns
            if reached or size > _GROUP_BYTES:
                break
        self._packets = chain(group, self._packets)
        return found

    def _may_begin(self, packet: VideoPacket) -> bool:
        """Whether decoding has begun. A recording of a broadcast may start within a group of pictures; any
        other file starts with a key frame, though damage may hide that."""
        if not self._begun:
            is_first = packet.is_keyframe or not self._demuxer.may_start_anywhere
            self._begun = is_first or self._before_key >= _MAX_BEFORE_KEY
        if not self._begun:
            self._before_key += 1
            self._order.left_out += self._frame_of(packet)[1]
        return self._begun

    def _send(self, packet: VideoPacket) -> None:
        """Enter a packet into the order of presentation."""
        stamp, shown = self._frame_of(packet)
        self._take_gaps(packet)
        self._order.sent(stamp, shown=shown)
        if packet.is_corrupt:
            self._order.damaged()

    def _take_gaps(self, packet: VideoPacket) -> None:
        """Enter a gap before a packet into the order: others may depend on what is missing."""
        gaps = packet.opaque if packet.size else self._demuxer.gaps
        if isinstance(gaps, int) and gaps > self._known_gaps:
            self._known_gaps = gaps
            self._order.gap()

    def _keep(self, packet: VideoPacket) -> None:
        """Keep the packets that the decoder may still work on, from a key frame on."""
        if packet.is_keyframe or not self._recent:
            self._recent.append([])
        self._recent[-1].append(packet)
        while sum(map(len, self._recent)) - len(self._recent[0]) >= self._threads + FRAMES_HELD:
            self._recent.popleft()

    def _last_group_again(self) -> Iterator[DecodedFrame]:
        """Decode the last packets once more, in one thread. Where several threads fail at the end of a file,
        the frames behind the failure cannot be had from them."""
        packets = list(chain.from_iterable(self._recent))
        again = self._demuxer.again()
        try:
            context = again.stream.codec_context
            set_up(context, self._max_pixels, threads=1, strict=self._strict)
            for place, packet in enumerate([*packets, None], 1):
                frames, failed = _decoded(context, packet)
                if failed and packet is not None and self._order.is_due(packet.pts):
                    self._order.damaged(packets_ago=len(packets) - place, lost=True)
                yield from self._placed([frame for frame in frames if self._order.is_due(frame.pts)])
        finally:
            again.close()

    def _placed(self, frames: list[AvFrame]) -> Iterator[DecodedFrame]:
        """The frames with their numbers and times, and those that are lost before them."""
        for frame in frames:
            self._any = True
            stamp = frame.pts if frame.pts is not None else frame.dts
            if stamp is None:
                stamp = self._order.next_stamp(self._demuxer.frame_ticks)
            lost, place, damaged = self._order.place(
                stamp,
                key_frame=frame.key_frame,
                corrupt=frame.is_corrupt,
                reordered=self._context.has_b_frames > 0,
            )
            if self._times.zero is None and self._order.zero is not None:
                self._times.begin(self._order.zero)
            yield from map(self._lost, lost)
            if place is None:
                continue
            last, step = self._times.last, self._times.duration
            time = self._times.at(place.stamp, frame.duration)
            # Behind damage a leap of the times is bytes that the demuxer passed over in silence.
            leaps = last is not None and time - last > 2 * step
            self._jumps += self._after_damage and leaps and not self._demuxer.finds_gaps
            self._after_damage = damaged
            yield DecodedFrame(place.number, time, self._times.duration, frame, damaged)

    def _lost(self, place: Place) -> DecodedFrame:
        time = self._times.at(place.stamp, None)
        self._after_damage = True
        return DecodedFrame(place.number, time, self._times.duration, None, damaged=True)

    def _check_end(self) -> None:
        """Raise BrokenOff where the video is longer than the file."""
        demuxer = self._demuxer
        if demuxer.is_cut_short(last_is_partial=self._last_was_partial) or self._is_rest_lost():
            raise BrokenOff from demuxer.damage
        if demuxer.is_ragged():
            self._jumps += 1
            if self._strict:
                raise BrokenOff

    def _is_rest_lost(self) -> bool:
        """Whether the last frame lies well before the stated end, so that the demuxer found nothing more that
        it could read."""
        last, facts = self._times.last, self._demuxer.facts()
        stated_s = facts.duration_s if self._after_damage else None
        if last is None or stated_s is None:
            return False
        return float(last) + _REST_S < stated_s

    def _stamped(self, packets: Iterator[VideoPacket]) -> Iterator[VideoPacket]:
        """The packets with stamps that rise over jumps."""
        demuxer = self._demuxer
        clock = PacketClock(demuxer.time_base, demuxer.frame_ticks, may_jump=demuxer.clock_may_jump)
        by_decoding = demuxer.is_without_presentation_stamps
        was_interrupted = False
        for packet, is_stray in self._without_strays(packets):
            if packet.size:
                stamps = clock.read(packet.pts, packet.dts, packet.duration)
                packet.pts = stamps.dts if by_decoding or stamps.pts is None else stamps.pts
                packet.dts = stamps.dts
                interrupted = stamps.jumped or packet.is_corrupt or is_stray
                self._jumps += interrupted and not was_interrupted
                self._last_was_partial, was_interrupted = packet.is_corrupt, interrupted
            yield packet

    def _without_strays(self, packets: Iterator[VideoPacket]) -> Iterator[tuple[VideoPacket, bool]]:
        """The packets, and whether the stamps of each were damaged: far from those around it, which agree.
        Such a packet gets stamps between theirs."""
        clock = StrayStamps(self._demuxer.time_base)
        packet = next(packets, None)
        while packet is not None:
            behind = next(packets, None)
            stamps = clock.between(packet.pts, packet.dts, None if behind is None else behind.dts)
            if stamps is not None:
                packet.pts, packet.dts = stamps.pts, stamps.dts
            yield packet, stamps is not None
            packet = behind

    def _frame_of(self, packet: VideoPacket) -> tuple[int | None, bool]:
        """Stamp of a packet's frame, and whether that frame is presented."""
        hidden = not packet.size or packet.is_discard
        if self._hides_frames and packet.size:
            hidden = hidden or not memoryview(packet)[0] & _VP8_SHOWN
        return packet.pts, packet.pts is not None and not hidden


def set_up(context: VideoCodecContext, max_pixels: int, threads: int, *, strict: bool) -> None:
    """Set a decoder up that is not open yet. A strict one fails at errors that it would pass over, which
    some decoders do in silence (HEVC, Motion JPEG). H.264's says of every frame whether it is damaged; a
    strict one would fail, too, behind the first picture of an open group, where references to pictures before
    it are missing."""
    context.options = {**context.options, "max_pixels": str(max_pixels)}
    if strict and context.name != "h264":
        context.options |= {"err_detect": _STRICT}
    context.thread_count = threads
    context.thread_type = "AUTO" if threads > 1 else "NONE"


def _decoded(context: VideoCodecContext, packet: VideoPacket | None) -> tuple[list[AvFrame], bool]:
    """The frames that a packet (None: the end) makes the decoder give, and whether it failed."""
    try:
        return context.decode(packet), False
    except (av.FFmpegError, ValueError):
        return [], True


def _decoded_at(packet: VideoPacket, otherwise: int) -> int:
    if packet.dts is not None:
        return packet.dts
    return packet.pts if packet.pts is not None else otherwise
