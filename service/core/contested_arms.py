"""Forearms of two persons in one place: one of the two is another person's arm.

Where a limb is hidden, or cut by the edge, a model puts it on the nearest limb that it sees, which may be a
neighbour's, and is as sure of it as of any other. Two forearms with both ends in one place are one forearm,
and one of the two wrists is wrong. Where the model is not clearly surer of one, both are doubtful.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.core.poses import Floats, Poses, present

DOUBTFUL = 0.4
"""Score that a contested wrist has at most: below that of a sure keypoint (0.5, `angles.thresholds`), from
which on values are OK, and above that of an unusable one (0.3)."""

MIN_SCORE = 0.3
"""Of the four points that are compared. One that is less sure is doubtful anyhow."""

APART = 0.5
"""How far elbows, and wrists, of one forearm are apart at most, in lengths of the longer of the two."""

CLEARLY_LESS = 0.8
"""Product of elbow's and wrist's score, over the neighbour's, below which the wrist is the wrong one. Nearer
to one another they say nothing: in variants of one image (size, brightness, JPEG, mirrored) the product of
the right one is the lower one in 15 of 21."""

SAME_BODY = 0.5
"""Bodies whose points are nearer in the median, in the same lengths, are one person who was found twice."""


@dataclass(frozen=True)
class Arm:
    """Indices of one arm's keypoints; `hand` has those that go with the wrist, if any."""

    elbow: int
    wrist: int
    hand: tuple[int, ...] = ()


COCO_ARMS = (Arm(7, 9), Arm(8, 10))
"""Left and right of `coco_17`."""


def doubt_contested_arms(
    poses: Poses, names: Sequence[str], first: Floats | None = None, arms: Sequence[Arm] | None = None
) -> Poses:
    """The persons with wrists that may be a neighbour's marked as doubtful.

    Args:
        poses: N persons of one image.
        names: of their K keypoints; arms go by name, and a skeleton without them is left as it is.
        first: (N, J, 3) keypoints of the same persons in which forearms are compared, where a second stage
            gave the poses; None for those of `poses`.
        arms: left and right in `first`; None for those by name.

    Returns:
        The same persons; the scores of a doubtful wrist and of the hand at it are at most `DOUBTFUL`.
    """
    own = arms_of(tuple(names))
    compared = own if arms is None else arms
    points = poses.keypoints if first is None else first
    if len(poses) < 2 or not own or not compared:
        return poses
    persons, sides, places, lengths = _contested(points, compared)
    wrists = np.array([arm.wrist for arm in own], np.intp)[sides]
    away = np.linalg.norm(poses.keypoints[persons, wrists, :2] - places, axis=1)
    kept = away <= APART * lengths
    doubtful = set(zip(persons[kept].tolist(), sides[kept].tolist(), strict=True))
    if not doubtful:
        return poses
    keypoints = poses.keypoints.copy()
    for person, side in doubtful:
        rows = [own[side].wrist, *own[side].hand]
        keypoints[person, rows, 2] = np.minimum(keypoints[person, rows, 2], DOUBTFUL)
    return replace(poses, keypoints=keypoints)


def _contested(
    keypoints: Floats, arms: Sequence[Arm]
) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, Floats]:
    """Forearms that may be another person's: (M,) person, (M,) side, (M, 2) px of the wrist, (M,) length of
    the longer forearm, px."""
    rows = np.array([(arm.elbow, arm.wrist) for arm in arms], np.intp)  # (2, 2)
    ends = keypoints[:, rows].reshape(-1, 2, 3)  # (2N, 2, 3)
    sure = present(ends).all(axis=1) & (ends[..., 2] >= MIN_SCORE).all(axis=1)
    (usable,) = np.nonzero(sure)
    ends = ends[usable]
    owners, sides = usable // len(arms), usable % len(arms)
    lengths = np.linalg.norm(ends[:, 0, :2] - ends[:, 1, :2], axis=1)
    longer = np.maximum(lengths[:, None], lengths)
    x, y = ends[:, 1, 0], ends[:, 1, 1]
    one_wrist = np.hypot(x[:, None] - x, y[:, None] - y) <= APART * longer
    one, other = np.nonzero(one_wrist & (owners[:, None] < owners))
    elbows = np.linalg.norm(ends[one, 0, :2] - ends[other, 0, :2], axis=1)
    one_place = elbows <= APART * longer[one, other]
    one, other = one[one_place], other[one_place]
    two_bodies = _apart(keypoints[owners[one]], keypoints[owners[other]]) > SAME_BODY * longer[one, other]
    one, other = one[two_bodies], other[two_bodies]
    one, other = np.concatenate([one, other]), np.concatenate([other, one])
    trust = ends[..., 2].prod(axis=1)
    lost = trust[other] > CLEARLY_LESS * trust[one]
    one, other = one[lost], other[lost]
    return owners[one], sides[one], ends[one, 1, :2], longer[one, other]


def _apart(bodies: Floats, others: Floats) -> Floats:
    """Median distance (P,) of the points that both of two bodies (P, K, 3) have, px; infinite without any."""
    both = (bodies[..., 2] >= MIN_SCORE) & (others[..., 2] >= MIN_SCORE)
    away = np.where(both, np.linalg.norm(bodies[..., :2] - others[..., :2], axis=2), np.inf)
    away.sort(axis=1)
    return np.asarray(away[np.arange(len(away)), (both.sum(axis=1) - 1) // 2], np.float32)


@lru_cache(maxsize=32)
def arms_of(names: tuple[str, ...]) -> tuple[Arm, ...]:
    """The left and the right arm of a skeleton; empty where it lacks a joint of one."""
    index = {name: i for i, name in enumerate(names)}
    arms = []
    for side in ("left", "right"):
        if not {f"{side}_elbow", f"{side}_wrist"} <= index.keys():
            return ()
        pattern = (
            f"{side}_(hand_root|(thumb|forefinger|middle_finger|ring_finger|pinky_finger)\\d)"
            f"|(blazepose_)?{side}_(pinky|index|thumb)|blazepose_{side}_wrist"
        )
        hand = tuple(i for i, name in enumerate(names) if re.fullmatch(pattern, name))
        arms.append(Arm(index[f"{side}_elbow"], index[f"{side}_wrist"], hand))
    return tuple(arms)
