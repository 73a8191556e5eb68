"""Who is who from picture to picture: numbers for people that stay theirs.

ByteTrack (Zhang et al., ECCV 2022, https://arxiv.org/abs/2110.06864) as `edgefirst-tracker` implements
it: constant-velocity Kalman filters and overlap of boxes, in time and not in frames, so that variable
frame rates and dropped pictures do no harm. ByteTrack forgets who is out of sight for long or moved so
far between two pictures that the boxes no longer overlap; those are found again here, by nearness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from edgefirst.tracker import ByteTrack
from numpy.typing import NDArray

from service.core.poses import Floats

MEMORY_S = 3.0
"""Whoever is out of sight for longer comes back as somebody new."""

_MIN_OVERLAP = 0.2  # intersection over union of the box foreseen and the box found
_KALMAN_MEMORY_S = 1.0  # a box foreseen further ahead has wandered off
# Who was lost is looked for within so many body heights, and more for every second of absence.
_NEAR_HEIGHTS, _SPEED_HEIGHTS_S, _FAR_HEIGHTS = 0.5, 1.0, 1.5
_MAX_AREA_RATIO = 4.0  # somebody who comes back into the picture may be seen in part only


@dataclass(frozen=True, eq=False)
class _Known:
    number: int
    box_xyxy: Floats
    time_s: float


class Tracker:
    """Numbers the people of one video or stream: 1 and up, never used again."""

    def __init__(self) -> None:
        self._tracks = ByteTrack(
            high_conf=0.0, iou=_MIN_OVERLAP, lifespan_ns=int(_KALMAN_MEMORY_S * 1e9)
        )  # whoever is not sure enough was left out before
        self._known: dict[str, _Known] = {}
        self._count = 0
        self._clock_ns = -1

    @property
    def count(self) -> int:
        """How many different people were seen."""
        return self._count

    def update(self, boxes_xyxy: Floats, scores: Floats, time_s: float) -> list[int]:
        """The number of every person in the next picture.

        Args:
            boxes_xyxy: (N, 4) px.
            scores: (N,)
            time_s: when the picture was taken, seconds; never falling.
        """
        self._clock_ns = max(self._clock_ns + 1, round(time_s * 1e9))
        tracks = self._tracks.update(
            boxes_xyxy.astype(np.float32),
            scores.astype(np.float32),
            np.zeros(len(scores), np.uintp),
            self._clock_ns,
        )
        self._forget(time_s)
        names = [
            track.uuid if track is not None else f"{self._clock_ns} {row}" for row, track in enumerate(tracks)
        ]
        numbers = {name: self._known[name].number for name in names if name in self._known}
        strangers = [row for row, name in enumerate(names) if name not in numbers]
        for row, old in self._returned(strangers, names, boxes_xyxy, time_s):
            numbers[names[row]] = self._known.pop(old).number
        for row in strangers:
            if names[row] not in numbers:
                self._count += 1
                numbers[names[row]] = self._count
        for row, name in enumerate(names):
            self._known[name] = _Known(numbers[name], boxes_xyxy[row], time_s)
        return [numbers[name] for name in names]

    def _forget(self, time_s: float) -> None:
        self._known = {
            name: known for name, known in self._known.items() if time_s - known.time_s <= MEMORY_S
        }

    def _returned(
        self, rows: list[int], names: list[str], boxes_xyxy: Floats, time_s: float
    ) -> list[tuple[int, str]]:
        """Which strangers are somebody who was lost, the nearest first."""
        seen = set(names)
        pairs = [
            (distance, row, name)
            for row in rows
            for name, known in self._known.items()
            if name not in seen
            and (distance := _far(boxes_xyxy[row], known.box_xyxy, time_s - known.time_s)) is not None
        ]
        found: list[tuple[int, str]] = []
        for _, row, name in sorted(pairs, key=lambda pair: pair[:2]):
            if all(row != other and name != taken for other, taken in found):
                found.append((row, name))
        return found


def _far(now_xyxy: Floats, then_xyxy: Floats, absent_s: float) -> float | None:
    """Distance of two boxes in body heights; None where it cannot be the same person."""
    now, then = _shape(now_xyxy), _shape(then_xyxy)
    height = (now[3] + then[3]) / 2
    if height <= 0:
        return None
    distance = math.hypot(now[0] - then[0], now[1] - then[1]) / height
    areas = sorted((now[2] * now[3], then[2] * then[3]))
    allowed = min(_NEAR_HEIGHTS + _SPEED_HEIGHTS_S * absent_s, _FAR_HEIGHTS)
    alike = areas[0] > 0 and areas[1] / areas[0] <= _MAX_AREA_RATIO
    return distance if alike and distance <= allowed else None


def _shape(box_xyxy: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """Centre x, centre y, width, height."""
    x1, y1, x2, y2 = (float(value) for value in box_xyxy)
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
