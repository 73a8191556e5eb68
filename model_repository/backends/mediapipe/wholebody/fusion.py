"""One body out of two: the first stage's keypoints and the pose network's, in 2D and in 3D.

Where the two agree, their mean is nearer to the truth than either. Where they do not, one of them is wrong:
the first stage's is taken unless the pose network is clearly surer of its own or a hand was found at it,
and the score falls in proportion. A first stage that finds both knees on one leg is as sure of them as ever;
the pose network, which has them apart, shows that limbs were confused, and then they are the pose network's.
The 3D positions are the pose network's; a joint whose 2D point is elsewhere than the 3D one would appear
takes x and y from the 2D point, so that both are one skeleton.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wholebody.association import PAIRS
from wholebody.rois import FOREARM_PER_TORSO

Floats = NDArray[np.float32]

AGREE = 0.2
"""Two points of a joint that are nearer, in units of the person, are averaged."""

SURER = 0.3
"""By how much the pose network's score must be above the first stage's to be preferred."""

MIN_FIRST = 0.05
"""A first stage's point below this score counts as not given."""

SEEN = 0.5
"""The pose network's score from which on a point of it replaces that of a first stage that joins limbs."""

JOINED_DOUBT = 0.5
"""What a score keeps at least where the first stage has joined two limbs: the distance to its point says
little then, but two networks that contradict each other are not sure."""

MAX_OFF = 0.03
"""How far, in heights of the body, a 3D point may appear from its 2D point before it is moved there."""

ROOT_APART = 0.25
"""How far the root of a hand may be from its wrist, in forearms, before the wrist is moved there: a hand that
is seen says better where its wrist is. Of 273 hands it is 0.09 in the median and more than this at 9; by eye
the root is the better one at all of them."""

ARMS = ((7, 9), (8, 10))
"""Left and right elbow and wrist of COCO's 17."""

LIMBS = slice(5, 17)
"""Shoulders to ankles of COCO's 17, left and right in turn."""


@dataclass(frozen=True, eq=False)
class Body:
    """One person's 17 COCO keypoints.

    Attributes:
        points: (17, 2) px.
        scores: (17,) the larger of the two networks' where they agree; less the more they differ.
        world: (17, 3) metres, origin mid-hip; NaN without a pose.
    """

    points: Floats
    scores: Floats
    world: Floats


def from_first_stage(body: Floats) -> Body:
    """The first stage's keypoints (17, 3) as they are, where there is no pose; NaN where it has none."""
    given = np.isfinite(body).all(1) & (body[:, 2] > 0)
    points = np.where(given[:, None], body[:, :2], np.float32(np.nan))
    return Body(points, np.where(given, body[:, 2], np.float32(0)), np.full((17, 3), np.nan, np.float32))


def fuse(
    body: Floats,
    points: Floats,
    visibility: Floats,
    world: Floats,
    unit: float,
    on_others: NDArray[np.bool_] | None = None,
) -> Body:
    """The two sets of points as one.

    Args:
        body: (17, 3) the first stage's, px and score; may be NaN.
        points: (17, 2) the pose network's, px.
        visibility: (17,) its score.
        world: (17, 3) metres.
        unit: the person's, px.
        on_others: (17,) which of the pose network's points lie on a limb of a neighbour; None: none.
    """
    first = np.where(np.isfinite(body).all(1), body[:, 2], 0).astype(np.float32)
    given = first > MIN_FIRST
    ours = np.where(given[:, None], body[:, :2], points)
    apart = np.linalg.norm(ours - points, axis=1) / unit
    agree = apart <= AGREE
    joined = np.zeros(len(points), np.bool_)
    trusted = visibility >= SEEN
    if on_others is not None:
        trusted &= ~on_others
    if _joins_limbs(body, points, given & trusted, unit):
        joined[LIMBS] = trusted[LIMBS]
    pose_wins = ~given | (visibility > first + SURER) | joined
    chosen = np.where(pose_wins[:, None], points, ours)
    doubt = np.maximum(AGREE / np.maximum(apart, AGREE), np.where(joined, JOINED_DOUBT, 0))
    scores = np.where(agree, np.maximum(first, visibility), np.where(pose_wins, visibility, first) * doubt)
    fused = np.where(agree[:, None], (ours + points) / 2, chosen)
    # A point that only the pose network has is no surer than that network, however near.
    scores = np.where(given, scores, visibility)
    return Body(np.asarray(fused, np.float32), np.asarray(scores, np.float32), world.astype(np.float32))


def _joins_limbs(body: Floats, points: Floats, given: NDArray[np.bool_], unit: float) -> bool:
    """Whether the first stage has both limbs on one spot where the pose network has them apart.

    On one spot both points of a pair cannot be told apart (`AGREE`); the pose network has them at least twice
    as far from one another. Limbs that do hide one another are on one spot for both.
    """
    left, right = np.array(PAIRS).T
    first = np.linalg.norm(body[left, :2] - body[right, :2], axis=1) / unit
    pose = np.linalg.norm(points[left] - points[right], axis=1) / unit
    return bool((given[left] & given[right] & (first <= AGREE) & (pose > 2 * AGREE)).any())


def with_arm(body: Body, side: int, elbow: Floats, wrist: Floats, score: float) -> Body:
    """The body with an arm as the pose network has it, because a hand was found at that wrist.

    Args:
        body: the fused one.
        side: 0 left, 1 right.
        elbow: (2,) px.
        wrist: (2,) px.
        score: of the hand.
    """
    return _with_points(body, list(ARMS[side]), np.stack([elbow, wrist]), score)


def with_wrist(body: Body, side: int, root: Floats, score: float, unit: float) -> Body:
    """The body with its wrist at the root of a hand that was found, where the two are too far apart.

    Args:
        body: the fused one.
        side: 0 left, 1 right.
        root: (2,) of the hand, px.
        score: of the hand.
        unit: the person's, px.
    """
    elbow, wrist = body.points[list(ARMS[side])]
    forearm = np.fmax(np.linalg.norm(wrist - elbow), FOREARM_PER_TORSO * unit)
    if np.linalg.norm(wrist - root) <= ROOT_APART * forearm:
        return body
    return _with_points(body, [ARMS[side][1]], root[None], score)


def _with_points(body: Body, rows: list[int], places: Floats, score: float) -> Body:
    points, scores = body.points.copy(), body.scores.copy()
    points[rows] = places
    scores[rows] = np.maximum(scores[rows], np.float32(score) * np.float32(0.9))
    return replace(body, points=points, scores=scores)


def reconcile(body: Body, pose_points: Floats) -> Body:
    """The body with 3D positions that appear where its 2D points are.

    The camera is the weak-perspective one that fits the joints best on which 2D and 3D agree: one scale, one
    shift. Joints that appear more than `MAX_OFF` of the body's height from their 2D point keep their depth
    and take x and y from it.

    Args:
        body: with `world` that belongs to `pose_points`.
        pose_points: (17, 2) px, where the pose network itself has the joints.
    """
    height = float(np.ptp(body.points[:, 1]))
    height = max(height, float(np.ptp(body.points[:, 0])), 1.0)
    near = np.linalg.norm(body.points - pose_points, axis=1) <= MAX_OFF * height
    fitted = near if near.sum() >= 4 else np.ones(len(near), bool)
    scale, shift = camera(body.world[fitted], body.points[fitted])
    if scale is None:
        return body
    off = np.linalg.norm(body.world[:, :2] * scale + shift - body.points, axis=1) > MAX_OFF * height
    world = body.world.copy()
    world[off, :2] = (body.points[off] - shift) / scale
    return replace(body, world=world)


def camera(world: Floats, points: Floats) -> tuple[np.float32 | None, Floats]:
    """The weak-perspective camera that shows `world` (J, 3) at `points` (J, 2): px per metre, shift in px.

    None for the scale where the joints do not fix one.
    """
    xy, centre = world[:, :2] - world[:, :2].mean(0), points.mean(0)
    spread = float((xy * xy).sum())
    scale = float((xy * (points - centre)).sum()) / spread if spread > 1e-6 else 0.0
    if not scale > 1e-6:
        return None, np.zeros(2, np.float32)
    return np.float32(scale), np.asarray(centre - np.float32(scale) * world[:, :2].mean(0), np.float32)
