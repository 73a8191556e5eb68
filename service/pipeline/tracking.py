"""Who is who from picture to picture: numbers for people that stay theirs.

ByteTrack (Zhang et al., ECCV 2022, https://arxiv.org/abs/2110.06864) as `edgefirst-tracker` implements it
proposes who is who: by overlap of boxes with where its Kalman filters foresee them, in time and not in
frames. Its filters learn a velocity slowly, and it forgets who is out of sight or moved further than a box
between two pictures. So every proposal is held against where people were heading: that decides when few
pictures a second come, after an occlusion, and when somebody returns.

What no motion tells: two people who meet, hide one another and turn back may swap numbers; somebody else
who appears where a person was lost a moment ago may inherit the number; when the camera pans by more than
a body between two pictures, everybody is new.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

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
_VELOCITY_S = 0.15  # time in which a new velocity is learnt
_HEADING_S = 1.0  # nobody is foreseen further ahead than this
_PROPOSED = 0.05  # body heights that a proposal of ByteTrack may be off before another one wins
_STAYED = 0.3, 3.0  # a return to where somebody was last seen costs so much more than one on their way
_OTHER_SHAPE = 0.5  # body heights for a box that is e times as high
_DOUBLE_INSIDE = 0.7  # share of the smaller box that lies in the larger one
_DOUBLE_NEAR = 0.1  # mean distance of the keypoints of one and the same person, in body heights
_DOUBLE_SCORE = 0.3  # keypoints below are not compared
_LATEST_S = 1e10  # ByteTrack's clock is in nanoseconds, 64 bits


@dataclass(frozen=True, eq=False)
class _Known:
    """Somebody with a number.

    Attributes:
        number: theirs.
        box_xyxy: where they were last seen.
        time_s: and when.
        velocity: of the centre, px/s.
    """

    number: int
    box_xyxy: Floats
    time_s: float
    velocity: tuple[float, float] = (0.0, 0.0)


class Tracker:
    """Numbers the people of one video or stream: 1 and up, never used again."""

    def __init__(self) -> None:
        self._tracks = ByteTrack(
            high_conf=0.0, iou=_MIN_OVERLAP, lifespan_ns=int(_KALMAN_MEMORY_S * 1e9)
        )  # whoever is not sure enough was left out before
        self._known: dict[str, _Known] = {}
        self._doubles: dict[tuple[int, int], int] = {}
        self._count = 0
        self._clock_ns = -1

    @property
    def count(self) -> int:
        """How many different people were seen."""
        return self._count - len(self._doubles)

    def update(
        self, boxes_xyxy: Floats, scores: Floats, time_s: float, keypoints: Floats | None = None
    ) -> list[int]:
        """The number of every person in the next picture. A person whom the model found twice has a second
        number for the second find, and keeps the first.

        Args:
            boxes_xyxy: (N, 4) px, by falling score; of pictures of one scale.
            scores: (N,)
            time_s: when the picture was taken, seconds; never falling, at most 1e10.
            keypoints: (N, K, 3) px and score, to tell doubles by; None: there are none.
        """
        self._clock_ns = max(self._clock_ns + 1, round(min(time_s, _LATEST_S) * 1e9))
        doubled = _doubled(boxes_xyxy, keypoints)
        rows = [row for row in range(len(boxes_xyxy)) if row not in doubled]
        numbers = dict(zip(rows, self._follow(boxes_xyxy[rows], scores[rows], time_s), strict=True))
        finds: dict[int, int] = {}
        for row, first in doubled.items():
            number = numbers[first]
            finds[number] = finds.get(number, 0) + 1
            numbers[row] = self._double(number, finds[number])
        return [numbers[row] for row in range(len(boxes_xyxy))]

    def _double(self, number: int, find: int) -> int:
        if (number, find) not in self._doubles:
            self._count += 1
            self._doubles[number, find] = self._count
        return self._doubles[number, find]

    def _follow(self, boxes_xyxy: Floats, scores: Floats, time_s: float) -> list[int]:
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
        matched = self._matched(names, boxes_xyxy, time_s)
        old = {row: self._known.pop(name) for row, name in matched.items()}
        numbers = []
        for row, (name, box) in enumerate(zip(names, boxes_xyxy, strict=True)):
            known = old.get(row)
            if known is None:
                self._count += 1
                known = _Known(self._count, box, time_s)
            else:
                known = _moved(known, box, time_s)
            if name in self._known:  # its owner was found elsewhere or is out of sight: he keeps his number
                self._known[f"{name} {self._clock_ns}"] = self._known.pop(name)
            self._known[name] = known
            numbers.append(known.number)
        return numbers

    def _forget(self, time_s: float) -> None:
        self._known = {
            name: known for name, known in self._known.items() if time_s - known.time_s <= MEMORY_S
        }

    def _matched(self, names: list[str], boxes_xyxy: Floats, time_s: float) -> dict[int, str]:
        """Rows to the names under which their people are known, the surest first."""
        pairs = []
        for row, box in enumerate(boxes_xyxy):
            for name, known in self._known.items():
                far = _far(box, known, time_s)
                if name == names[row]:
                    pairs.append(((far if far is not None else _FAR_HEIGHTS) - _PROPOSED, row, name))
                elif far is not None:
                    pairs.append((far, row, name))
        found: dict[int, str] = {}
        taken: set[str] = set()
        for _, row, name in sorted(pairs):
            if row not in found and name not in taken:
                found[row] = name
                taken.add(name)
        return found


def _moved(known: _Known, box_xyxy: Floats, time_s: float) -> _Known:
    """Somebody, seen again."""
    passed_s = time_s - known.time_s
    if passed_s <= 0:
        return replace(known, box_xyxy=box_xyxy)
    now, then = _shape(box_xyxy), _shape(known.box_xyxy)
    learnt = 1 - math.exp(-passed_s / _VELOCITY_S)
    velocity = (
        known.velocity[0] + learnt * ((now[0] - then[0]) / passed_s - known.velocity[0]),
        known.velocity[1] + learnt * ((now[1] - then[1]) / passed_s - known.velocity[1]),
    )
    return _Known(known.number, box_xyxy, time_s, velocity)


def _far(now_xyxy: Floats, known: _Known, time_s: float) -> float | None:
    """How far a box is from where somebody should be, in body heights; None where it cannot be them."""
    now, then = _shape(now_xyxy), _shape(known.box_xyxy)
    height = (now[3] + then[3]) / 2
    if height <= 0:
        return None
    absent_s = time_s - known.time_s
    ahead_s = min(absent_s, _HEADING_S)
    heading = (then[0] + known.velocity[0] * ahead_s, then[1] + known.velocity[1] * ahead_s)
    on_the_way = math.hypot(now[0] - heading[0], now[1] - heading[1]) / height
    stayed = math.hypot(now[0] - then[0], now[1] - then[1]) / height
    areas = sorted((now[2] * now[3], then[2] * then[3]))
    allowed = min(_NEAR_HEIGHTS + _SPEED_HEIGHTS_S * absent_s, _FAR_HEIGHTS)
    alike = areas[0] > 0 and areas[1] / areas[0] <= _MAX_AREA_RATIO
    if not alike or min(on_the_way, stayed) > allowed:
        return None
    other_shape = _OTHER_SHAPE * abs(math.log(now[3] / then[3]))  # tells people at one place apart
    return min(on_the_way, _STAYED[0] + _STAYED[1] * stayed) + other_shape


def _doubled(boxes_xyxy: Floats, keypoints: Floats | None) -> dict[int, int]:
    """Rows that are a second find of somebody, and the row of the first."""
    if keypoints is None:
        return {}
    found: dict[int, int] = {}
    for row in range(1, len(boxes_xyxy)):
        for first in range(row):
            if first not in found and _is_double(boxes_xyxy, keypoints, first, row):
                found[row] = first
                break
    return found


def _is_double(boxes_xyxy: Floats, keypoints: Floats, first: int, second: int) -> bool:
    a, b = boxes_xyxy[first], boxes_xyxy[second]
    inside = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    smaller = min(float((a[2:] - a[:2]).prod()), float((b[2:] - b[:2]).prod()))
    if smaller <= 0 or inside / smaller < _DOUBLE_INSIDE:
        return False
    both = (keypoints[first, :, 2] >= _DOUBLE_SCORE) & (keypoints[second, :, 2] >= _DOUBLE_SCORE)
    if not both.any():
        return False
    apart = np.linalg.norm(keypoints[first, both, :2] - keypoints[second, both, :2], axis=1)
    return float(apart.mean()) < _DOUBLE_NEAR * max(float(a[3] - a[1]), float(b[3] - b[1]))


def _shape(box_xyxy: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """Centre x, centre y, width, height."""
    x1, y1, x2, y2 = (float(value) for value in box_xyxy)
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
