"""Multi-person tracking: stable track ids from frame to frame.

Every detection is matched to where the motion of a track predicts it, in time and not in frames, or to where
the track ended; the cheapest pairs first. `scripts/bench tracking` measures it beside ByteTrack
(Zhang et al., ECCV 2022, https://arxiv.org/abs/2110.06864; package edgefirst-tracker) and
beside a combination in which ByteTrack proposes matches. On 192,000 detections of seeded synthetic scenes
(crossings, overtaking, occlusion, re-entry, groups; 30, 10 and 5 frames per second, walk to run), id switches
and IDF1 were 17,036 and 0.768 for ByteTrack, 1,171 and 0.964 for this tracker, and 1,261 and 0.960 for both
together, which was better on re-entry (IDF1 0.987 to 0.995 against 0.978 to 0.989) and behind a wall only.
On the two clips of the tests no contestant made a switch, from 60 down to 3 frames per second.

What no motion tells: two persons who meet, occlude one another and turn back may swap ids; another person
who appears where one was lost a moment ago may inherit the id; when the camera pans by more than a body
between two frames, every person gets a new id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.core.poses import Floats

MEMORY_S = 3.0
"""A person who is out of sight for longer comes back with a new id."""

# A lost person is looked for within so many body heights, and more for every second of absence.
_NEAR_HEIGHTS, _SPEED_HEIGHTS_S, _FAR_HEIGHTS = 0.5, 1.0, 1.5
_MAX_AREA_RATIO = 4.0  # a person who comes back into the image may be seen in part only
_VELOCITY_S = 0.15  # time constant of the velocity
_PREDICTED_S = 1.0  # no position is predicted further ahead than this
# A return to the last position costs so much more than one on the predicted way: a constant, and a factor on
# the distance in body heights.
_STAYED = 0.3, 3.0
_OTHER_SHAPE = 0.5  # body heights for a box that is e times as high
_DOUBLE_INSIDE = 0.7  # share of the smaller box that lies in the larger one
_DOUBLE_NEAR = 0.1  # mean distance of the keypoints of one and the same person, in body heights
_DOUBLE_SCORE = 0.3  # keypoints below are not compared


@dataclass(frozen=True, eq=False)
class Track:
    """One person over time.

    Attributes:
        track_id: 1 and up.
        box_xyxy: where the person was last seen, px.
        time_s: when.
        velocity: of the centre, px/s.
    """

    track_id: int
    box_xyxy: Floats
    time_s: float
    velocity: tuple[float, float] = (0.0, 0.0)


class Tracker:
    """Numbers the persons of one video or stream: ids are 1 and up, and never used again."""

    def __init__(self) -> None:
        self._tracks: list[Track] = []
        self._doubles: dict[tuple[int, int], int] = {}
        self._count = 0

    @property
    def count(self) -> int:
        """Number of distinct persons seen."""
        return self._count - len(self._doubles)

    def update(
        self, boxes_xyxy: Floats, scores: Floats, time_s: float, keypoints: Floats | None = None
    ) -> list[int]:
        """The track id of every person on the next frame. A person whom the model detected twice has a second
        id for the second detection, and keeps the first.

        Args:
            boxes_xyxy: (N, 4) px, by falling score; of frames of one scale.
            scores: (N,)
            time_s: capture time, seconds; never falling.
            keypoints: (N, K, 3) px and score, to recognise double detections by; None: there are none.
        """
        doubled = _doubled(boxes_xyxy, keypoints)
        rows = [row for row in range(len(boxes_xyxy)) if row not in doubled]
        ids = dict(zip(rows, self._assign(boxes_xyxy[rows], scores[rows], time_s), strict=True))
        detections: dict[int, int] = {}
        for row, first in doubled.items():
            track_id = ids[first]
            detections[track_id] = detections.get(track_id, 0) + 1
            ids[row] = self._double(track_id, detections[track_id])
        return [ids[row] for row in range(len(boxes_xyxy))]

    def _double(self, track_id: int, detection: int) -> int:
        if (track_id, detection) not in self._doubles:
            self._count += 1
            self._doubles[track_id, detection] = self._count
        return self._doubles[track_id, detection]

    def _assign(self, boxes_xyxy: Floats, scores: Floats, time_s: float) -> list[int]:
        self._tracks = [track for track in self._tracks if time_s - track.time_s <= MEMORY_S]
        costs = self._costs(boxes_xyxy, scores, time_s)
        matched = _matched(costs)
        ids = []
        for row, box in enumerate(boxes_xyxy):
            place = matched.get(row)
            if place is None:
                self._count += 1
                self._tracks.append(Track(self._count, box, time_s))
                ids.append(self._count)
            else:
                self._tracks[place] = _moved(self._tracks[place], box, time_s)
                ids.append(self._tracks[place].track_id)
        return ids

    def _costs(self, boxes_xyxy: Floats, scores: Floats, time_s: float) -> list[tuple[float, int, int]]:
        """Cost, row and place in `_tracks` of every pair that may be the same person."""
        if not len(boxes_xyxy) or not self._tracks:
            return []
        costs = _costs(boxes_xyxy, self._tracks, time_s)
        rows, places = np.nonzero(np.isfinite(costs))
        return list(zip(costs[rows, places].tolist(), rows.tolist(), places.tolist(), strict=True))


def _matched(costs: list[tuple[float, int, int]]) -> dict[int, int]:
    """Rows to tracks, the cheapest pairs first."""
    found: dict[int, int] = {}
    taken: set[int] = set()
    for _, row, place in sorted(costs):
        if row not in found and place not in taken:
            found[row] = place
            taken.add(place)
    return found


def _moved(track: Track, box_xyxy: Floats, time_s: float) -> Track:
    """The track with one more position."""
    passed_s = time_s - track.time_s
    if passed_s <= 0:
        return replace(track, box_xyxy=box_xyxy)
    now, then = _shapes(np.stack([box_xyxy, track.box_xyxy]))[:, :2].tolist()
    learnt = 1 - math.exp(-passed_s / _VELOCITY_S)
    velocity = (
        track.velocity[0] + learnt * ((now[0] - then[0]) / passed_s - track.velocity[0]),
        track.velocity[1] + learnt * ((now[1] - then[1]) / passed_s - track.velocity[1]),
    )
    return Track(track.track_id, box_xyxy, time_s, velocity)


def _costs(boxes_xyxy: Floats, tracks: Sequence[Track], time_s: float) -> NDArray[np.float64]:
    """Distance of every box from the predicted position of every track, in body heights.

    Returns:
        (N, M) for N boxes and M tracks; infinite where it cannot be the same person.
    """
    now = _shapes(boxes_xyxy)[:, None]  # (N, 1, 4)
    then = _shapes(np.stack([track.box_xyxy for track in tracks]))  # (M, 4)
    velocity = np.array([track.velocity for track in tracks])  # (M, 2)
    absent_s = time_s - np.array([track.time_s for track in tracks])  # (M,)
    predicted = then[:, :2] + velocity * np.minimum(absent_s, _PREDICTED_S)[:, None]
    smaller = np.minimum(now[..., 2] * now[..., 3], then[:, 2] * then[:, 3])
    larger = np.maximum(now[..., 2] * now[..., 3], then[:, 2] * then[:, 3])
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes without an area are left out below
        height = (now[..., 3] + then[:, 3]) / 2
        on_the_way = np.linalg.norm(now[..., :2] - predicted, axis=-1) / height
        stayed = np.linalg.norm(now[..., :2] - then[:, :2], axis=-1) / height
        other_shape = _OTHER_SHAPE * np.abs(
            np.log(now[..., 3] / then[:, 3])
        )  # tells persons at one place apart
        cost = np.minimum(on_the_way, _STAYED[0] + _STAYED[1] * stayed) + other_shape
        allowed = np.minimum(_NEAR_HEIGHTS + _SPEED_HEIGHTS_S * absent_s, _FAR_HEIGHTS)
        possible = (smaller > 0) & (larger <= _MAX_AREA_RATIO * smaller)
        possible &= np.minimum(on_the_way, stayed) <= allowed
    return np.where(possible, cost, np.inf)


def _doubled(boxes_xyxy: Floats, keypoints: Floats | None) -> dict[int, int]:
    """Rows that are a second detection of a person, and the row of the first."""
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


def _shapes(boxes_xyxy: Floats) -> NDArray[np.float64]:
    """(N, 4): centre x, centre y, width, height."""
    corners = boxes_xyxy.astype(np.float64)
    return np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
