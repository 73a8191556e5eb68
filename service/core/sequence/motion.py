"""Angles over time: range of motion and repetitions, value by value, in memory that does not grow with
the length of the recording (but for one record per repetition)."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass

WINDOW_S = 0.2
"""Length of the running median. Keypoint noise is white to first order and single frames are outliers: a
median over a fifth of a second removes both and leaves human movement, which has next to no power
above 6 Hz (Winter, Biomechanics and Motor Control of Human Movement, 4th ed., ch. 3)."""

TURN_DEG = 15.0
"""A value has to come back by so much before it counts as a turn."""

_LEAST = 3  # values of a median: of fewer, an outlier would be the median
_OUTLIER_DEG = 60.0  # off both neighbours: at 5 values per second no joint is as fast, there and back
_NEAR_S = 1.5  # values further apart say nothing of each other
_SHARE_OF_RANGE = 0.3  # of the range of motion that a repetition has at least
_AT_REST = 0.1  # of a movement's range: that near to its ends it has not begun yet, or is over
_PATH = 4096  # values kept of the movement under way; of longer ones every second is left out


@dataclass(frozen=True)
class RepetitionSeen:
    """One movement there and back; times in seconds, angles in degrees."""

    start_s: float
    peak_s: float
    end_s: float
    peak_deg: float
    range_deg: float


@dataclass(frozen=True)
class MotionSeen:
    """One angle over a recording.

    Attributes:
        min_deg, max_deg: extremes of the filtered angle.
        min_time_s, max_time_s: their times.
        repetitions: in order of time.
    """

    min_deg: float
    max_deg: float
    min_time_s: float
    max_time_s: float
    repetitions: tuple[RepetitionSeen, ...]

    @property
    def range_deg(self) -> float:
        """Range of motion."""
        return self.max_deg - self.min_deg


@dataclass(frozen=True)
class _Sample:
    time_s: float
    deg: float


class Motion:
    """Range of motion and repetitions of one angle, value by value.

    A repetition leads from a turn of the kind the recording starts at to the next one of that kind,
    and its peak is the turn between. A turn counts once the angle has come back by `turn_deg`
    (hysteresis), so tremor makes no repetitions; nor do movements of less than three tenths of the
    range of motion. It begins when the angle leaves the tenth of the movement's range around the first
    turn, and ends when it first comes into the tenth around the last one: pauses are not part of it.

    Args:
        turn_deg: hysteresis, degrees.
    """

    def __init__(self, turn_deg: float = TURN_DEG) -> None:
        self._turn_deg = turn_deg
        self._window: deque[_Sample] = deque()
        self._unread = 0  # samples at the window's end that have not been its middle yet
        self._low: _Sample | None = None
        self._high: _Sample | None = None
        self._turns: list[_Sample] = []  # the last two at most, the first of a repetition in front
        self._path: list[_Sample] = []  # since the last repetition's end
        self._extreme: _Sample | None = None  # of the movement under way
        self._rising: bool | None = None
        self._since_low: _Sample | None = None
        self._since_high: _Sample | None = None
        self._done: list[RepetitionSeen] = []

    def add(self, time_s: float, deg: float) -> None:
        """One value. Times never fall."""
        self._window.append(_Sample(time_s, deg))
        self._unread += 1
        while self._unread >= _LEAST and self._middle().time_s <= time_s - WINDOW_S / 2:
            self._read_middle()

    def result(self) -> MotionSeen | None:
        """The motion so far; None without a value. No value may be added afterwards."""
        while self._unread:
            self._read_middle()
        if self._low is None or self._high is None:
            return None
        return MotionSeen(
            min_deg=self._low.deg,
            max_deg=self._high.deg,
            min_time_s=self._low.time_s,
            max_time_s=self._high.time_s,
            repetitions=tuple(
                one
                for one in self._done + self._unfinished()
                if one.range_deg >= _SHARE_OF_RANGE * (self._high.deg - self._low.deg)
            ),
        )

    def _middle(self) -> _Sample:
        return self._window[-self._unread]

    def _read_middle(self) -> None:
        """The median around the oldest sample that has not been read."""
        middle = self._middle()
        kept = self._unread + _LEAST - 1  # the nearest may be needed, however long ago they were
        while len(self._window) > kept and self._window[0].time_s < middle.time_s - WINDOW_S / 2:
            self._window.popleft()
        values = [one.deg for one in self._window if abs(one.time_s - middle.time_s) <= WINDOW_S / 2 + 1e-9]
        if len(values) < _LEAST:
            values = self._beside(middle)
        self._unread -= 1
        self._follow(_Sample(middle.time_s, statistics.median(values)))

    def _beside(self, middle: _Sample) -> list[float]:
        """The values to filter with where there are few per second: the value alone, or the peaks of
        movements would be cut off; its neighbours, if it is far from both and they agree."""
        nearest = sorted(self._window, key=lambda one: abs(one.time_s - middle.time_s))[:_LEAST]
        others = [
            one.deg for one in nearest if one is not middle and abs(one.time_s - middle.time_s) <= _NEAR_S
        ]
        outlier = len(others) == _LEAST - 1 and min(abs(middle.deg - deg) for deg in others) > _OUTLIER_DEG
        agree = len(others) == _LEAST - 1 and max(others) - min(others) < _OUTLIER_DEG / 4
        return others if outlier and agree else [middle.deg]

    def _follow(self, sample: _Sample) -> None:
        self._path.append(sample)
        if len(self._path) > _PATH:
            del self._path[1::2]
        if self._low is None or sample.deg < self._low.deg:
            self._low = sample
        if self._high is None or sample.deg > self._high.deg:
            self._high = sample
        if self._rising is None:
            self._begin(sample)
            return
        assert self._extreme is not None  # noqa: S101 - set with `_rising`
        back_deg = (self._extreme.deg - sample.deg) if self._rising else (sample.deg - self._extreme.deg)
        if back_deg < 0:
            self._extreme = sample
        elif back_deg >= self._turn_deg:
            self._turn(self._extreme)
            self._extreme, self._rising = sample, not self._rising

    def _begin(self, sample: _Sample) -> None:
        """The first movement: away from the extreme that lies far enough behind."""
        if self._since_low is None or sample.deg <= self._since_low.deg:
            self._since_low = sample
        if self._since_high is None or sample.deg >= self._since_high.deg:
            self._since_high = sample
        if sample.deg - self._since_low.deg >= self._turn_deg:
            self._turns, self._rising, self._extreme = [self._since_low], True, sample
        elif self._since_high.deg - sample.deg >= self._turn_deg:
            self._turns, self._rising, self._extreme = [self._since_high], False, sample

    def _turn(self, at: _Sample) -> None:
        self._turns.append(at)
        if len(self._turns) == 3:
            done = self._repetition(*self._turns)
            self._done.append(done)
            self._turns = [at]
            self._path = [one for one in self._path if one.time_s >= done.end_s]

    def _unfinished(self) -> list[RepetitionSeen]:
        """The last movement, if it has come back at least half of the way when the recording ends."""
        if len(self._turns) < 2 or self._extreme is None:
            return []
        start, peak = self._turns
        way, back = abs(peak.deg - start.deg), abs(peak.deg - self._extreme.deg)
        return [self._repetition(start, peak, self._extreme)] if back >= way / 2 else []

    def _repetition(self, start: _Sample, peak: _Sample, end: _Sample) -> RepetitionSeen:
        """From where the movement leaves the first turn to where it comes to the last one."""
        way, back = peak.deg - start.deg, peak.deg - end.deg
        begins = [
            one.time_s
            for one in self._path
            if one.time_s <= peak.time_s and abs(peak.deg - one.deg) >= (1 - _AT_REST) * abs(way)
        ]
        ends = (
            one.time_s
            for one in self._path
            if one.time_s >= peak.time_s and abs(peak.deg - one.deg) >= (1 - _AT_REST) * abs(back)
        )
        return RepetitionSeen(
            start_s=begins[-1] if begins else start.time_s,
            peak_s=peak.time_s,
            end_s=next(ends, end.time_s),
            peak_deg=peak.deg,
            range_deg=max(abs(way), abs(back)),
        )


def symmetry(left_range_deg: float, right_range_deg: float) -> tuple[float, float]:
    """Range of motion left minus right in degrees, and as percent of the larger one (0 if neither moved)."""
    difference = left_range_deg - right_range_deg
    larger = max(left_range_deg, right_range_deg)
    return difference, 100 * difference / larger if larger > 0 else 0.0
