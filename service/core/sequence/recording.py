"""Measurements of all persons over a recording: range of motion and repetitions of every side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.core.angles import MEASUREMENTS, Measurement, Side, SideSelection, Status
from service.core.sequence.motion import TURN_DEG, Motion, MotionSeen

# Smaller movements than at other joints count as repetitions here.
_TURN_DEG = {"neck": 8.0, "back": 8.0}
SIDES: tuple[Side, Side] = ("left", "right")


@dataclass(frozen=True)
class SideMotion:
    """One side of a measurement over time.

    Attributes:
        motion: None where it was never measured.
        frames_measured: frames with a value.
        frames_degraded: of those, frames whose value is uncertain.
    """

    motion: MotionSeen | None
    frames_measured: int
    frames_degraded: int


@dataclass(frozen=True)
class MeasurementMotion:
    """One measurement of one person over time.

    Attributes:
        measurement: which.
        track_id: of the person; None without tracking.
        left, right: None for a side that was not asked for.
    """

    measurement: Measurement
    track_id: int | None
    left: SideMotion | None
    right: SideMotion | None


class Motions:
    """Collects the measurements of all persons, value by value."""

    def __init__(self) -> None:
        self._collected: dict[tuple[int | None, str, Side], _Collected] = {}

    def add(
        self,
        track_id: int | None,
        name: str,
        side: Side,
        time_s: float,
        degrees: float | None,
        status: Status,
    ) -> None:
        """Add one value of a measurement; None and UNAVAILABLE where it could not be measured."""
        key = track_id, name, side
        if key not in self._collected:
            self._collected[key] = _Collected(_TURN_DEG.get(MEASUREMENTS[name].body_part, TURN_DEG))
        self._collected[key].add(time_s, degrees, status)

    def summary(self, names: Sequence[str], side: SideSelection) -> list[MeasurementMotion]:
        """These measurements of every person, by track id. No value may be added afterwards."""
        track_ids = sorted({key[0] for key in self._collected}, key=lambda number: number or 0)
        asked = SIDES if side == "both" else (side,)
        found = []
        for track_id in track_ids:
            for name in names:
                sides = {
                    one: self._collected.get((track_id, name, one), _Collected(TURN_DEG)).result()
                    for one in asked
                }
                found.append(
                    MeasurementMotion(MEASUREMENTS[name], track_id, sides.get("left"), sides.get("right"))
                )
        return found


class _Collected:
    """One angle of one person, and how often it could be measured."""

    def __init__(self, turn_deg: float) -> None:
        self._motion = Motion(turn_deg)
        self._measured = self._degraded = 0

    def add(self, time_s: float, degrees: float | None, status: Status) -> None:
        if degrees is None:
            return
        self._measured += 1
        self._degraded += status is Status.DEGRADED
        self._motion.add(time_s, degrees)

    def result(self) -> SideMotion:
        return SideMotion(self._motion.result(), self._measured, self._degraded)
