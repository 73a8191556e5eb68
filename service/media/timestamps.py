"""Presentation times and frame numbers of a video track, from the time stamps of its packets.

Stamps are integers in ticks of the track's time base; nothing is computed in floating point.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

# A decoding stamp that falls by more than a tenth of a second, or leaps ahead by more than 10 s in a format
# whose clock may jump, begins a new clock: the rule and the numbers of FFmpeg's own tool (ffmpeg_demux.c).
_BACKWARD = Fraction(1, 10)
_FORWARD = Fraction(10)
_NEAR = 16  # frames before and behind a gap where reordering may put those that are missing
_MOST_MISSING = 10_000  # frames in one gap; a longer leap is taken for a damaged stamp
_STEPS, _LEAST_STEPS = 15, 3  # between frames that tell the rate


@dataclass(frozen=True)
class Stamps:
    """Stamps of one packet, ticks.

    Attributes:
        pts: presentation; None where the container has none.
        dts: decoding; in the packets' order never falling.
        jumped: a new clock begins here.
    """

    pts: int | None
    dts: int | None
    jumped: bool = False


class PacketClock:
    """Keeps stamps rising over joins and jumps of the container's clock.

    Args:
        time_base: seconds in a tick.
        frame_ticks: of one frame, for packets without a duration.
        may_jump: the format's clock may leap ahead (MPEG-TS and MPEG-PS), so that a leap is no pause.
    """

    def __init__(self, time_base: Fraction, frame_ticks: int, *, may_jump: bool) -> None:
        self._backward = round(_BACKWARD / time_base)
        self._forward = round(_FORWARD / time_base) if may_jump else None
        self._frame_ticks = max(frame_ticks, 1)
        self._offset = 0
        self._last: int | None = None  # dts of the packet before
        self._next = 0  # expected dts of the next packet

    def read(self, pts: int | None, dts: int | None, duration: int | None) -> Stamps:
        """Stamps of the next packet in decoding order; a packet without any is counted on."""
        ticks = duration if duration is not None and duration > 0 else self._frame_ticks
        if pts is None and dts is None:
            self._last, self._next = self._next, self._next + ticks
            return Stamps(None, self._last)
        jumped = False
        if dts is not None:
            moved = dts + self._offset
            if self._last is not None and (
                moved < self._last - self._backward
                or (self._forward is not None and moved > self._next + self._forward)
            ):
                self._offset += self._next - moved
                jumped = True
            self._last = dts + self._offset
            self._next = self._last + ticks
        return Stamps(
            None if pts is None else pts + self._offset, None if dts is None else dts + self._offset, jumped
        )


class StrayStamps:
    """Finds damaged stamps: a single one that lies far from those before and behind it.

    Args:
        time_base: seconds in a tick.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._far = max(round(_BACKWARD / time_base), 1)
        self._farthest = round(_FORWARD / time_base)
        self._before: int | None = None

    def between(self, pts: int | None, dts: int | None, behind: int | None) -> Stamps | None:
        """Stamps instead of those of the next packet; None where these are good.

        Args:
            pts, dts: of the packet.
            behind: dts of the packet behind it.
        """
        before, self._before = self._before, dts
        if dts is None:
            return None
        good = dts
        agree = before is not None and behind is not None and before <= behind <= before + self._farthest
        if before is not None and behind is not None and agree:
            is_between = before - self._far <= dts <= behind + self._far
            good = self._before = dts if is_between else (before + behind) // 2
        if pts is None:
            return None if good == dts else Stamps(None, good)
        if abs(pts - dts) > self._farthest:  # no frame waits so long for others
            return Stamps(good, good)
        return None if good == dts else Stamps(pts - dts + good, good)


@dataclass(frozen=True)
class Place:
    """A presented frame's place in the source.

    Attributes:
        number: how many presented frames come before it.
        stamp: presentation, ticks.
    """

    number: int
    stamp: int


class PresentationOrder:
    """Numbers and stamps of decoded frames, which a decoder gives in the order of presentation.

    The number of a frame is how many presented frames of the source come before it, decoded, passed over or
    lost. Frame 0 is the first frame that can be decoded or, where damage is why it cannot be, the first one
    from the key frame on that decoding begins with. Behind damage, a packet whose frame does not come is a
    lost frame, up to the next undamaged key frame; elsewhere it is a packet without a frame of its own. Where
    packets are missing, the stamps tell how many frames are: as many as fit into the leap.

    Args:
        by_decoding: the container has no presentation stamps (AVI, elementary streams). The n-th frame then
            gets the n-th smallest decoding stamp of the packets.

    Attributes:
        left_out: frames before frame 0.
    """

    def __init__(self, *, by_decoding: bool) -> None:
        self._by_decoding = by_decoding
        self._waiting: list[int] = []  # heap of stamps of packets whose frames were not given yet
        self._decoded_at: dict[int, int] = {}  # place in decoding order, by stamp of frames not given yet
        self._sent = 0
        self._first: int | None = None  # stamp of the key frame that decoding begins with
        self._zero: int | None = None  # stamp of frame 0
        self._floor: int | None = None  # frames with a stamp below do not count any more
        self._passed = 0  # presented frames before the next one
        self._last: Place | None = None
        self._damage: int | None = None  # place in decoding order of the last damage
        self._loss: int | None = None  # of the first lost packet that frames may depend on
        self._ever_damaged = False
        self._gaps: list[int] = []  # highest stamps before each, never falling
        self._highest = 0  # stamp of a packet
        self._steps = _Steps()
        self.left_out = 0

    @property
    def zero(self) -> int | None:
        """Stamp of frame 0; None before it."""
        return self._zero

    @property
    def is_complete(self) -> bool:
        """Whether the frame of every packet was given."""
        return not self._waiting

    def sent(self, stamp: int | None, *, shown: bool = True) -> None:
        """A packet was read.

        Args:
            stamp: of its frame; None where unknown.
            shown: its frame is presented.
        """
        self._sent += 1
        if stamp is None:
            return
        self._highest = max(self._highest, stamp)
        if self._first is None:
            self._first = stamp
        if not shown:
            return
        if self._floor is not None and stamp < self._floor:
            self.left_out += self._floor == self._zero
            return
        heapq.heappush(self._waiting, stamp)
        self._decoded_at[stamp] = self._sent

    def is_due(self, stamp: int | None) -> bool:
        """Whether the frame of a packet with that stamp was not given yet."""
        return stamp in self._decoded_at

    def next_stamp(self, frame_ticks: int) -> int:
        """A stamp for a frame whose decoder gave none."""
        if self._waiting:
            return self._waiting[0]
        return frame_ticks if self._last is None else self._last.stamp + frame_ticks

    def damaged(self, *, packets_ago: int = 0, lost: bool = False) -> None:
        """Data are damaged.

        Args:
            packets_ago: how many packets were read behind those data.
            lost: a packet could not be decoded, so that frames decoded later lack what they depend on.
        """
        at = self._sent - packets_ago
        self._damage = max(at, self._damage or 0)
        if lost and (self._loss is None or at < self._loss):
            self._loss = at
        self._ever_damaged = True

    def gap(self) -> None:
        """Packets are missing before the next one."""
        self._gaps.append(self._highest)
        self.damaged(lost=True)

    def end_in_gap(self) -> None:
        """The last packets are missing, some perhaps of frames that are presented before the last one."""
        self._gaps.append(self._highest)

    def restart(self, stamp: int, *, leading: list[int], passed: int | None = None) -> None:
        """Continue at a key frame.

        Args:
            stamp: of the key frame.
            leading: stamps of frames that are presented before it, but whose packets come behind its own.
            passed: frames whose packets come before its own, those left out among them; None where all of
                these were `sent`.
        """
        if passed is None:
            before = sorted([*(one for one in self._waiting if one < stamp), *leading])
            self._passed += len(before)
            for one in (*before, stamp):
                self._passed += len(self._missing_before(one))
                self._last = Place(self._passed, one)
                self._steps.add(one)
        else:
            self._passed = passed + len(leading) - self.left_out
        self._waiting = []
        self._decoded_at = {}
        self._damage = self._loss = None
        self._floor = stamp
        self._last = None
        self._steps.restart()

    def place(
        self, stamp: int, *, key_frame: bool, corrupt: bool = False, reordered: bool = True
    ) -> tuple[list[Place], Place | None, bool]:
        """Where the next decoded frame belongs.

        Args:
            stamp: of the frame's packet: presentation, or decoding where there is none.
            key_frame: all frames of packets before it were given, or will never be.
            corrupt: the decoder says that the frame is damaged.
            reordered: the decoder may give frames in another order than that of their packets.

        Returns:
            The frames before it that are lost. Its own place; None where it does not count, or where damage
            makes it come too late or leaves its place unknown. Whether it is damaged or depends on lost data.
        """
        decoded_at = self._decoded_at.pop(stamp, None)
        if corrupt:
            self.damaged(packets_ago=0 if decoded_at is None else self._sent - decoded_at)
        depends_on_loss = self._is_behind(self._loss, decoded_at)
        is_spoiled = depends_on_loss and not key_frame
        has_no_rank = self._loss is not None and not (depends_on_loss and key_frame)
        by_rank = self._by_decoding and (reordered or self._damage is None)
        if self._zero is None:
            self._begin(stamp)
        elif (by_rank and has_no_rank) or (not by_rank and self._is_misplaced(stamp, decoded_at)):
            return [], None, True
        lost = self._lost_before(stamp) if key_frame or not by_rank else []
        if by_rank and self._waiting:
            stamp = self._waiting[0]
        lost += self._take_missing(stamp)
        number = self._next_number()
        if self._waiting and self._waiting[0] == stamp:
            heapq.heappop(self._waiting)
            self._passed += 1
        self._last = Place(number, stamp)
        self._steps.add(stamp)
        if key_frame and not corrupt:
            self._recover(decoded_at)
        return lost, self._last, corrupt or is_spoiled

    def rest(self) -> list[Place]:
        """The lost frames behind the last one; after the end of the file."""
        return self._lost_before(None)

    def _begin(self, stamp: int) -> None:
        """The first frame: what comes before it is left out, unless damage is why it did not come."""
        first = self._first
        if self._damage is not None and first is not None:
            stamp = min((one for one in self._waiting if first <= one < stamp), default=stamp)
        self._zero = self._floor = stamp
        while self._waiting and self._waiting[0] < stamp:
            heapq.heappop(self._waiting)
            self.left_out += 1

    def _is_behind(self, damage: int | None, decoded_at: int | None) -> bool:
        return damage is not None and (decoded_at is None or decoded_at > damage)

    def _is_misplaced(self, stamp: int, decoded_at: int | None) -> bool:
        """Whether a frame does not count, or comes behind frames that follow it."""
        if self._floor is not None and stamp < self._floor:
            return True
        last = self._last
        if not self._ever_damaged or last is None:
            return False
        return stamp < last.stamp or (stamp == last.stamp and decoded_at is None)

    def _recover(self, decoded_at: int | None) -> None:
        """What follows an undamaged key frame does not depend on what came before it."""
        if self._is_behind(self._damage, decoded_at):
            self._damage = self._loss = None
        elif self._is_behind(self._loss, decoded_at):
            self._loss = self._damage
        self._decoded_at = {stamp: at for stamp, at in self._decoded_at.items() if at > (decoded_at or 0)}

    def _lost_before(self, stamp: int | None) -> list[Place]:
        """Pass over the frames before a stamp; those of them that are lost."""
        lost = []
        while self._waiting and (stamp is None or self._waiting[0] < stamp):
            if self._damage is not None:
                lost += self._take_missing(self._waiting[0])
            place = Place(self._next_number(), heapq.heappop(self._waiting))
            self._passed += 1
            if self._damage is not None:
                lost.append(place)
                self._last = place
                self._steps.add(place.stamp)
        return lost

    def _take_missing(self, stamp: int) -> list[Place]:
        """Pass over the frames that a gap before a stamp has swallowed."""
        places = []
        for missing in self._missing_before(stamp):
            places.append(Place(self._next_number(), missing))
            self._passed += 1
            self._last = places[-1]
        return places

    def _missing_before(self, stamp: int) -> list[int]:
        """Stamps of frames whose packets are missing between the last frame and a stamp, if a gap is near."""
        step = self._steps.usual
        if self._last is None or not step or not self._gaps:
            return []
        begin, near = self._last.stamp, _NEAR * step
        place = bisect_left(self._gaps, begin - near)
        if place == len(self._gaps) or self._gaps[place] > stamp + near:
            return []
        count = round(Fraction(stamp - begin, step)) - 1
        if count > _MOST_MISSING:
            return []
        return [begin + round(Fraction((stamp - begin) * place, count + 1)) for place in range(1, count + 1)]

    def _next_number(self) -> int:
        return self._passed if self._last is None else max(self._passed, self._last.number + 1)


class _Steps:
    """The usual step from one frame's stamp to the next."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._recent: deque[int] = deque(maxlen=_STEPS)

    @property
    def usual(self) -> int:
        """The median of the last ones, ticks; 0 where there were too few."""
        return sorted(self._recent)[len(self._recent) // 2] if len(self._recent) >= _LEAST_STEPS else 0

    def add(self, stamp: int) -> None:
        """A frame's stamp."""
        if self._last is not None and stamp > self._last:
            self._recent.append(stamp - self._last)
        self._last = stamp

    def restart(self) -> None:
        """The next frame does not follow the last one."""
        self._last = None


class PresentationTimes:
    """Stamps to seconds from the first frame, strictly rising.

    Args:
        time_base: seconds in a tick.
        frame: seconds of one frame, for frames without a duration.
    """

    def __init__(self, time_base: Fraction, frame: Fraction) -> None:
        self._time_base = time_base
        self._zero: int | None = None
        self._last: Fraction | None = None
        self.duration = frame

    @property
    def zero(self) -> int | None:
        """Stamp of the first frame; None before it."""
        return self._zero

    @property
    def last(self) -> Fraction | None:
        """Time of the frame before."""
        return self._last

    def begin(self, stamp: int) -> None:
        """Stamp of frame 0, where it is not the first that `at` is called for."""
        self._zero = stamp

    def restart(self) -> None:
        """Continue elsewhere in the same track."""
        self._last = None

    def seconds(self, stamp: int) -> Fraction:
        """Seconds from the first frame to a stamp."""
        return (stamp - (self._zero or 0)) * self._time_base

    def at(self, stamp: int | None, duration: int | None) -> Fraction:
        """Time of the next frame. One that does not rise is put behind the frame before.

        Args:
            stamp: ticks; None where unknown.
            duration: ticks; None where unknown.
        """
        if self._zero is None:
            self._zero = stamp or 0
        step = self.duration
        if duration is not None and duration > 0:
            shown = duration * self._time_base
            if Fraction(1, 1000) <= shown <= 10:
                self.duration = shown
        time = self.seconds(stamp) if stamp is not None else (self._last or Fraction(-step)) + step
        if self._last is not None and time <= self._last:
            time = self._last + step
        self._last = time
        return time
