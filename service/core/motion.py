"""Angles over time: range of motion and repetitions, value by value, in memory that does not grow with
the length of the recording (but for one record per repetition)."""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass

WINDOW_S = 0.2
"""Length of the running median. Keypoint noise is white to first order and single frames go astray: a
median over a fifth of a second takes both away and leaves human movement, which has next to no power
above 6 Hz (Winter, Biomechanics and Motor Control of Human Movement, 4th ed., ch. 3)."""

TURN_DEG = 15.0
"""A value has to come back by so much before it counts as a turn."""


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
        min_time_s, max_time_s: when they were seen.
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
    """Collects one angle as it comes.

    A repetition leads from a turn of the kind the recording starts at to the next one of that kind,
    and its peak is the turn between. A turn counts once the angle has come back by `turn_deg`
    (hysteresis), so trembling makes no repetitions.

    Args:
        turn_deg: hysteresis, degrees.
    """

    def __init__(self, turn_deg: float = TURN_DEG) -> None:
        self._turn_deg = turn_deg
        self._window: deque[_Sample] = deque()
        self._sorted: list[float] = []
        self._unread = 0  # samples at the window's end that have not been its middle yet
        self._low: _Sample | None = None
        self._high: _Sample | None = None
        self._turns: list[_Sample] = []  # the last two at most, the first of a repetition in front
        self._extreme: _Sample | None = None  # of the movement under way
        self._rising: bool | None = None
        self._since_low: _Sample | None = None
        self._since_high: _Sample | None = None
        self._done: list[RepetitionSeen] = []

    def add(self, time_s: float, deg: float) -> None:
        """One value. Times never fall."""
        self._window.append(_Sample(time_s, deg))
        bisect.insort(self._sorted, deg)
        self._unread += 1
        while self._unread and self._middle().time_s <= time_s - WINDOW_S / 2:
            self._read_middle()

    def result(self) -> MotionSeen | None:
        """What was seen up to now; None without a value. Nothing may be added afterwards."""
        while self._unread:
            self._read_middle()
        if self._low is None or self._high is None:
            return None
        return MotionSeen(
            min_deg=self._low.deg,
            max_deg=self._high.deg,
            min_time_s=self._low.time_s,
            max_time_s=self._high.time_s,
            repetitions=tuple(self._done + self._unfinished()),
        )

    def _middle(self) -> _Sample:
        return self._window[-self._unread]

    def _read_middle(self) -> None:
        """The median around the oldest sample that has not been read."""
        middle = self._middle()
        while self._window[0].time_s < middle.time_s - WINDOW_S / 2:
            gone = self._window.popleft()
            self._sorted.pop(bisect.bisect_left(self._sorted, gone.deg))
        # What lies further ahead than half a window, after a gap, does not belong to it.
        ahead = [one.deg for one in self._window if one.time_s > middle.time_s + WINDOW_S / 2]
        values = sorted(set_aside(self._sorted, ahead)) if ahead else self._sorted
        count = len(values)
        self._unread -= 1
        self._follow(_Sample(middle.time_s, (values[(count - 1) // 2] + values[count // 2]) / 2))

    def _follow(self, sample: _Sample) -> None:
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
        """The first movement: away from whichever extreme lies far enough behind."""
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
            self._done.append(_repetition(*self._turns))
            self._turns = [at]

    def _unfinished(self) -> list[RepetitionSeen]:
        """The last movement, if it has come back at least half of the way when the recording ends."""
        if len(self._turns) < 2 or self._extreme is None:
            return []
        start, peak = self._turns
        way, back = abs(peak.deg - start.deg), abs(peak.deg - self._extreme.deg)
        return [_repetition(start, peak, self._extreme)] if back >= way / 2 else []


def set_aside(values: list[float], without: list[float]) -> list[float]:
    """The sorted values less those of `without`, each once."""
    rest = list(values)
    for value in without:
        rest.pop(bisect.bisect_left(rest, value))
    return rest


def _repetition(start: _Sample, peak: _Sample, end: _Sample) -> RepetitionSeen:
    range_deg = max(abs(peak.deg - start.deg), abs(peak.deg - end.deg))
    return RepetitionSeen(start.time_s, peak.time_s, end.time_s, peak.deg, range_deg)


def symmetry(left_range_deg: float, right_range_deg: float) -> tuple[float, float]:
    """Range of motion left minus right in degrees, and as percent of the larger one (0 if neither moved)."""
    difference = left_range_deg - right_range_deg
    larger = max(left_range_deg, right_range_deg)
    return difference, 100 * difference / larger if larger > 0 else 0.0
