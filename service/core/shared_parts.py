"""Hands, faces and feet that two persons of one image would share, or one person would have twice.

A top-down model looks at one person at a time, and where people overlap it may find the same hand for two
of them. A part belongs to the person whose joint it hangs on most closely; with the other one it is removed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.core.poses import Floats, Poses, present

SAME = 0.3
"""Two parts of one kind are the same when their points are nearer, in the median, than this share of the
larger's extent. Of two hands that hold each other the medians are about half a hand apart."""

MIN_POINTS = 2
"""A skeleton whose parts of a kind have fewer points has none of that kind."""

_FINGERS = "hand_root|thumb|forefinger|middle_finger|ring_finger|pinky_finger"


@dataclass(frozen=True, eq=False)
class _Kind:
    """Parts that can be mistaken for one another.

    Attributes:
        compared: (P, J) indices of the points of each of the P parts that a person has of this kind.
        cleared: of each part, the indices of all points that go with it.
        joints: (P,) index of the joint that each part hangs on.
    """

    compared: NDArray[np.intp]
    cleared: tuple[NDArray[np.intp], ...]
    joints: NDArray[np.intp]


def without_shared_parts(poses: Poses, names: Sequence[str]) -> Poses:
    """The persons with every hand, face and foot given once.

    Args:
        poses: N persons of one image.
        names: of their K keypoints; parts go by name, and a skeleton without them is left as it is.

    Returns:
        The same persons; points of a removed part are x = y = score = 0, its positions NaN.
    """
    kinds = _kinds(tuple(names))
    lost = [pair for kind in kinds for pair in _losers(poses.keypoints, kind)]
    if not lost:
        return poses
    keypoints = poses.keypoints.copy()
    positions = None if poses.positions is None else poses.positions.copy()
    for person, rows in lost:
        keypoints[person, rows] = 0
        if positions is not None:
            positions[person, rows] = np.nan
    return replace(poses, keypoints=keypoints, positions=positions)


def _losers(keypoints: Floats, kind: _Kind) -> list[tuple[int, NDArray[np.intp]]]:
    points = keypoints[:, kind.compared]  # (N, P, J, 3)
    there = present(points).all(axis=2)  # (N, P)
    persons, parts = np.nonzero(there)
    if len(persons) < 2:
        return []
    xy = points[persons, parts][..., :2]  # (M, J, 2)
    extents = np.ptp(xy, axis=1).max(axis=1)  # (M,)
    centers = xy.mean(axis=1)
    roots = keypoints[persons, kind.joints[parts]]
    away = np.linalg.norm(xy - roots[:, None, :2], axis=2).min(axis=1)
    away[~present(roots)] = np.inf
    # The part that hangs on its joint most closely is first, of equals the one with the higher score.
    order = np.lexsort((-points[persons, parts][..., 2].min(axis=1), away))
    kept: list[int] = []
    lost: list[int] = []
    for one in order.tolist():
        near = [
            other
            for other in kept
            if np.abs(centers[one] - centers[other]).max() <= max(extents[one], extents[other])
        ]
        same = any(
            np.median(np.linalg.norm(xy[one] - xy[other], axis=1))
            <= SAME * max(extents[one], extents[other], 1)
            for other in near
        )
        (lost if same else kept).append(one)
    return [(int(persons[one]), kind.cleared[int(parts[one])]) for one in lost]


@lru_cache(maxsize=32)
def _kinds(names: tuple[str, ...]) -> tuple[_Kind, ...]:
    index = {name: i for i, name in enumerate(names)}

    def matching(pattern: str) -> list[int]:
        return [i for i, name in enumerate(names) if re.fullmatch(pattern, name)]

    def kind(parts: list[tuple[str, str, str]]) -> _Kind | None:
        """From (pattern of the compared points, pattern of those cleared, joint) of each part."""
        compared = [matching(pattern) for pattern, _, _ in parts]
        if min(map(len, compared)) < MIN_POINTS or not all(joint in index for _, _, joint in parts):
            return None
        return _Kind(
            compared=np.array(compared, np.intp),
            cleared=tuple(np.array(matching(pattern), np.intp) for _, pattern, _ in parts),
            joints=np.array([index[joint] for _, _, joint in parts], np.intp),
        )

    hands = [(f"{side}_({_FINGERS})\\d*",) * 2 + (f"{side}_wrist",) for side in ("left", "right")]
    feet = [
        (
            f"{side}_(big_toe|heel)",
            f"(blazepose_)?{side}_(big_toe|small_toe|heel|foot_index)",
            f"{side}_ankle",
        )
        for side in ("left", "right")
    ]
    face = [(r"face_\d+", r"face_(mesh_)?\d+", "nose")]
    return tuple(found for found in (kind(hands), kind(feet), kind(face)) if found is not None)
