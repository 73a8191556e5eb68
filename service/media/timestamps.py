"""Presentation times and frame numbers of a video track, from the time stamps of its packets.

Stamps are integers in ticks of the track's time base; nothing is computed in floating point.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

# A decoding stamp that falls by more than a tenth of a second, or leaps ahead by more than 10 s in a format
# whose clock may jump, begins a new clock: the rule and the numbers of FFmpeg's own tool (ffmpeg_demux.c).
_BACKWARD = Fraction(1, 10)
_FORWARD = Fraction(10)


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


class PresentationOrder:
    """Numbers and stamps of decoded frames, which a decoder gives in the order of presentation.

    The number of a frame is how many presented frames of the source come before it, decoded, passed over or
    lost. Frame 0 is the first frame that can be decoded.

    Args:
        by_decoding: the container has no presentation stamps (AVI, elementary streams). The n-th frame then
            gets the n-th smallest decoding stamp of the packets.
    """

    def __init__(self, *, by_decoding: bool) -> None:
        self._by_decoding = by_decoding
        self._waiting: list[int] = []  # heap of stamps of packets whose frames were not given yet
        self._passed: int | None = None  # presented frames before the next one; None before the first
        self._last_number = -1
        self._last_stamp = 0

    @property
    def passed(self) -> int:
        """Frames before the next one."""
        return self._passed or 0

    def sent(self, stamp: int) -> None:
        """A packet that holds a frame was read."""
        heapq.heappush(self._waiting, stamp)

    def next_stamp(self, frame_ticks: int) -> int:
        """A stamp for a frame whose decoder gave none."""
        return self._waiting[0] if self._waiting else self._last_stamp + frame_ticks

    def lost(self, stamp: int) -> None:
        """The packet's frame will not come."""
        if self._by_decoding and stamp in self._waiting:
            self._waiting.remove(stamp)
            heapq.heapify(self._waiting)
            if self._passed is not None:
                self._passed += 1

    def restart(self, passed: int) -> None:
        """Continue at a key frame before which so many presented frames of the source lie."""
        self._waiting = []
        self._passed = passed
        self._last_number = passed - 1

    def place(self, stamp: int, *, key_frame: bool) -> tuple[int, int]:
        """Number and presentation stamp of the next decoded frame.

        Args:
            stamp: of the frame's packet: presentation, or decoding where there is none.
            key_frame: all frames of packets before it were given, or will never be.
        """
        if self._passed is None:
            self._drop(lambda first: first < stamp)
            self._passed = 0
        elif key_frame or not self._by_decoding:
            self._passed += self._drop(lambda first: first < stamp)
        if self._by_decoding and self._waiting:
            stamp = self._waiting[0]
        if self._waiting and self._waiting[0] == stamp:
            heapq.heappop(self._waiting)
            number = max(self._passed, self._last_number + 1)
            self._passed += 1
        else:  # a decoder that gives more frames than packets
            number = max(self._passed, self._last_number + 1)
        self._last_number, self._last_stamp = number, stamp
        return number, stamp

    def _drop(self, condition: Callable[[int], bool]) -> int:
        count = 0
        while self._waiting and condition(self._waiting[0]):
            heapq.heappop(self._waiting)
            count += 1
        return count


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
