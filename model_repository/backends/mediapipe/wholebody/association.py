"""Association: whose body, hand, face or foot a network has found.

A square that is cut out around one person often shows another one too, and the networks answer for the most
prominent of them. So everything that is found is held against the first stage's keypoints of the person it
was looked for, and against those of the neighbours.

Distances are in units of the person: the length of the torso, or what the width of the shoulders or the
size of the box makes of it where that is more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wholebody.rois import Roi

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

MIN_SCORE = 0.5
"""From which score on a first stage's keypoint is compared with anything."""

MIN_COMMON = 4
"""With fewer comparable keypoints it cannot be decided whether two bodies agree."""

TORSO_PER_BOX = 0.2
"""The unit in sides of the box, where the torso is shorter or unknown."""

TORSO_PER_SHOULDERS = 1.1
"""The unit in widths of the shoulders, for people who are cut off at the hips or bend forward (Drillis and
Contini: 0.288 and 0.259 of stature)."""

CLOSE = 0.25
"""Bodies whose common points are nearer, in the median, are one person's without further tries."""

MAX_APART = 0.5
"""Bodies whose common points are farther apart, in the median, are not one person's."""

SWAPPED_GAIN = 0.6
"""Sides count as swapped when exchanging them shortens the distances to less than this share."""

MIN_SWAPPED = 0.15
"""Distances below this, in units, carry no information about sides: a person in profile."""

LIMB_REACH = 0.15
"""Half the width of a limb with its clothes, in units."""

SHOULDERS, HIPS = (5, 6), (11, 12)
PAIRS = ((5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))
BONES = (
    (5, 7), (7, 9), (6, 8), (8, 10), (5, 6), (11, 12), (5, 11), (6, 12), (11, 13), (13, 15),
    (12, 14), (14, 16), (0, 5), (0, 6),
)  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """How far a second body is from the first stage's.

    Attributes:
        apart: median distance of the common points, in units; infinite with fewer than `MIN_COMMON`.
        common: number of points compared.
        swapped: whether left and right are exchanged between the two.
    """

    apart: float
    common: int
    swapped: bool

    @property
    def close(self) -> bool:
        """Whether the two are the same person's beyond doubt."""
        return self.apart <= CLOSE and not self.swapped

    @property
    def same(self) -> bool:
        """Whether the two may be the same person's."""
        return self.apart <= MAX_APART and not self.swapped


def unit_of(body: Floats, box_side: float) -> float:
    """The person's unit of length in px: see the module's docstring. At least 1."""
    known = confident(body)
    torso = across = 0.0
    if known[[*SHOULDERS]].all():
        across = TORSO_PER_SHOULDERS * float(np.linalg.norm(body[SHOULDERS[0], :2] - body[SHOULDERS[1], :2]))
        if known[[*HIPS]].all():
            torso = float(np.linalg.norm(body[[*SHOULDERS], :2].mean(0) - body[[*HIPS], :2].mean(0)))
    return max(torso, across, TORSO_PER_BOX * box_side, 1.0)


def confident(body: Floats) -> NDArray[np.bool_]:
    """Which keypoints (17, 3) of a first stage can be relied upon."""
    return np.asarray(np.isfinite(body).all(1) & (body[:, 2] > MIN_SCORE))


def compare(points: Floats, body: Floats, unit: float) -> Agreement:
    """Hold a second body against the first stage's.

    Args:
        points: (17, 2) COCO keypoints of the second one, px.
        body: (17, 3) the first stage's, px and score.
        unit: the person's, px.
    """
    known = confident(body)
    common = int(known.sum())
    if common < MIN_COMMON:
        return Agreement(np.inf, common, swapped=False)
    away = np.linalg.norm(points - body[:, :2], axis=1) / unit
    return Agreement(float(np.median(away[known])), common, _is_swapped(points, body, known, unit))


def is_anothers(points: Floats, body: Floats, others: Floats, unit: float) -> bool:
    """Whether a second body lies on a neighbour rather than on the person it was looked for.

    Args:
        points: (17, 2) of the second body, px.
        body: (17, 3) the person's by the first stage.
        others: (M, 17, 3) the neighbours' by the first stage.
        unit: the person's, px.
    """
    own = compare(points, body, unit)
    return any(compare(points, other, unit).apart < min(own.apart, MAX_APART) for other in others)


def nearest_is_own(place: Floats, own: Floats, others: Floats, rows: Sequence[int], *, reach: float) -> bool:
    """Whether a part belongs to the person rather than to a neighbour, by whose joint it is nearest to.

    Args:
        place: (2,) where the part is attached to the body, px: the wrist of a hand, the middle of a face.
        own: (J, 2) where the person has the joint, px: one or more estimates of it.
        others: (M, 17, 3) the neighbours' bodies.
        rows: the neighbours' joints of this kind.
        reach: from how near on a neighbour's joint counts, px.
    """
    if not len(others):
        return True
    joints = others[:, list(rows)].reshape(-1, 3)
    joints = joints[np.isfinite(joints).all(1) & (joints[:, 2] > MIN_SCORE), :2]
    if not len(joints):
        return True
    nearest = float(np.linalg.norm(joints - place, axis=1).min())
    mine = float(np.linalg.norm(own - place, axis=1).min()) if len(own) else np.inf
    return nearest >= mine or nearest > reach


def on_limbs(points: Floats, others: Floats) -> NDArray[np.bool_]:
    """Which points (J, 2) lie on a limb of a neighbour, within `LIMB_REACH` of its middle.

    Args:
        points: px.
        others: (M, 17, 3) the neighbours' bodies.
    """
    found = np.zeros(len(points), np.bool_)
    for other in others:
        known = confident(other)
        bones = np.array([bone for bone in BONES if known[list(bone)].all()], np.intp).reshape(-1, 2)
        starts, along = other[bones[:, 0], :2], other[bones[:, 1], :2] - other[bones[:, 0], :2]
        from_start = points[:, None] - starts
        share = (from_start * along).sum(2) / np.maximum((along * along).sum(1), 1e-6)
        away = np.linalg.norm(from_start - np.clip(share, 0, 1)[..., None] * along, axis=2)
        found |= (away <= LIMB_REACH * unit_of(other, 0.0)).any(axis=1)
    return found


def hide_others(cut: Bytes, square: Roi, own: Floats, others: Floats) -> Bytes:
    """The square of a person with the neighbours painted over in its mean colour.

    A pixel is a neighbour's when it is nearer to the neighbours' limbs than to the person's own.

    Args:
        cut: (size, size, 3) uint8, from `rois.cut_out`; left as it is.
        square: where it lies in the image.
        own: (17, 3) the person's keypoints, px of the image, and score.
        others: (M, 17, 3) the neighbours'.
    """
    size = len(cut)
    to_mine = _distance_to_limbs(own[None], square, size)
    to_theirs = _distance_to_limbs(others, square, size)
    reach = size * 0.12  # a limb with its clothes; what is farther away is background
    theirs = (to_theirs < to_mine) & (to_theirs < reach)
    hidden = cut.copy()
    hidden[theirs] = cut.reshape(-1, 3).mean(0).astype(np.uint8)
    return hidden


def _is_swapped(points: Floats, body: Floats, known: NDArray[np.bool_], unit: float) -> bool:
    straight = crossed = 0.0
    for left, right in PAIRS:
        if not (known[left] and known[right]):
            continue
        a, b = body[left, :2], body[right, :2]
        straight += float(np.linalg.norm(points[left] - a) + np.linalg.norm(points[right] - b)) / unit
        crossed += float(np.linalg.norm(points[left] - b) + np.linalg.norm(points[right] - a)) / unit
    count = 2 * sum(bool(known[left] and known[right]) for left, right in PAIRS)
    return count > 0 and straight / count > MIN_SWAPPED and crossed < SWAPPED_GAIN * straight


def _distance_to_limbs(bodies: Floats, square: Roi, size: int) -> Floats:
    free = np.full((size, size), 255, np.uint8)
    cos, sin = np.cos(square.rotation), np.sin(square.rotation)
    turn = np.array([[cos, -sin], [sin, cos]], np.float32)
    for body in bodies:
        known = np.isfinite(body).all(1) & (body[:, 2] > 0.3)
        with np.errstate(invalid="ignore", over="ignore"):
            places = (body[:, :2] - (square.x, square.y)) @ turn * (size / square.side) + size / 2
        known &= (np.abs(places) < 1e4).all(1)
        for start, end in BONES:
            if known[start] and known[end]:
                (x1, y1), (x2, y2) = places[[start, end]].astype(int).tolist()
                cv2.line(free, (x1, y1), (x2, y2), 0, 3)
        if known[:5].any():
            x, y = places[:5][known[:5]].mean(0)
            cv2.circle(free, (int(x), int(y)), max(2, size // 20), 0, -1)
    if free.all():
        return np.full((size, size), np.inf, np.float32)
    return np.asarray(cv2.distanceTransform(free, cv2.DIST_L2, 3), np.float32)
