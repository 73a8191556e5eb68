"""Frame sampler: which frames of a video are analysed, by number or by presentation time.

Times are compared as whole nanoseconds, the resolution of the API's durations: a frame whose reported time
is given back as `start` is part of the result, which floating-point seconds do not guarantee.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Sampling:
    """Which frames are analysed.

    Attributes:
        every_nth: the first frame and every n-th after it.
        target_fps: that many frames a second instead; None for every_nth.
        start_s: earlier frames are passed over, seconds.
        end_s: frames at this time or later are passed over, seconds; None for the end of the video.
    """

    every_nth: int = 1
    target_fps: float | None = None
    start_s: float = 0.0
    end_s: float | None = None

    @property
    def start_ns(self) -> int:
        """`start_s` in nanoseconds."""
        return nanoseconds(self.start_s)

    @property
    def end_ns(self) -> int | None:
        """`end_s` in nanoseconds."""
        return None if self.end_s is None else nanoseconds(self.end_s)


def nanoseconds(seconds: Fraction | float) -> int:
    """Seconds rounded to whole nanoseconds."""
    return round(Fraction(seconds) * NANOSECONDS)


class FrameSampler:
    """Selects frames between `start` and `end`. Holds the position in the sequence: one for each video.

    Args:
        sampling: which frames are analysed.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._start_ns = sampling.start_ns
        self._end_ns = sampling.end_ns
        self._count = 0
        self._next_tick = 0

    def is_before(self, time: Fraction) -> bool:
        """Whether a frame of that time comes before `start`."""
        return nanoseconds(time) < self._start_ns

    def is_past(self, time: Fraction) -> bool:
        """Whether a frame of that time comes at `end` or later."""
        return self._end_ns is not None and nanoseconds(time) >= self._end_ns

    def pass_over(self) -> None:
        """The next frame is lost: those behind it are selected as if it were there."""
        self._count += 1

    def selects(self, time: Fraction, duration: Fraction) -> bool:
        """Whether the next frame, shown at `time` for `duration` (seconds), is analysed. To be called once
        for every frame from `start` on, in order."""
        fps = self._sampling.target_fps
        if fps is None:
            self._count += 1
            return (self._count - 1) % self._sampling.every_nth == 0
        # The frame nearest to a tick is at most half a frame away from it. Ticks are counted from the start
        # that was asked for, not from the first frame, so that an analysis that is continued finds the same.
        since_start = time - Fraction(self._start_ns, NANOSECONDS) + duration / 2
        tick = math.floor((since_start + Fraction(1, NANOSECONDS)) * Fraction(fps))
        if tick < self._next_tick:
            return False
        self._next_tick = tick + 1
        return True
