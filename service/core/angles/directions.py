"""Keypoints of all persons in the order of the compiled measurements, and the directions between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.core.angles.compiled import CompiledAngles, Doubles
from service.core.angles.flags import Flag, Flags
from service.core.angles.thresholds import AngleOptions
from service.core.poses import Poses

_POINT_FATAL = np.uint32(Flag.MISSING | Flag.UNUSABLE_SCORE)
# atan2(0, 0) is 0 by definition, so a zero direction needs no guard.


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions of N persons, J each; lengths in px, angles in degrees clockwise on the screen.

    Attributes:
        xy: (N, P) complex; x + iy in px, 0 where missing.
        point_flags: (N, P) what is wrong with a keypoint.
        point_scores: (N, P), 0 where missing.
        vectors: (N, J) complex.
        lengths: (N, J)
        degrees: (N, J) in (−180, 180].
        flags: (N, J) what is wrong with a direction or its keypoints.
        bad_points: (N, J) number of its keypoints that cannot be used.
        scores: (N, J) its weakest keypoint, infinite for gravity.
        usable: (N, J) every keypoint can be used and the length is not zero.
    """

    xy: NDArray[np.complex128]
    point_flags: Flags
    point_scores: Doubles
    vectors: NDArray[np.complex128]
    lengths: Doubles
    degrees: Doubles
    flags: Flags
    bad_points: Doubles
    scores: Doubles
    usable: NDArray[np.bool_]


def gather(poses: Poses, plan: CompiledAngles, options: AngleOptions) -> Directions:
    """Coordinates, scores and flags of the keypoints and directions."""
    n = len(poses)
    line = options.thresholds
    columns = plan.swapped if options.mirrored else plan.columns
    found = np.zeros((n, len(plan.names), 3), np.float64)
    supplied = columns >= 0
    found[:, supplied] = poses.keypoints[:, columns[supplied]]

    xy, scores = found[..., :2], found[..., 2]
    missing = ~np.isfinite(xy).all(axis=-1) | ~supplied
    xy[missing] = 0.0
    scores[np.isnan(scores) | missing] = 0.0
    unusable = ~missing & (scores < line.min_score)

    point_flags = np.where(missing, np.uint32(Flag.MISSING), np.uint32(0))
    point_flags |= np.where(unusable, np.uint32(Flag.UNUSABLE_SCORE), np.uint32(0))
    weak = ~missing & ~unusable & (scores < line.sure_score)
    point_flags |= np.where(weak, np.uint32(Flag.WEAK_SCORE), np.uint32(0))
    if options.size_wh is not None:
        size = np.array(options.size_wh, np.float64)
        margin = line.edge_fraction * size
        outside = ((xy < margin) | (xy > size - margin)).any(axis=-1) & ~missing
        point_flags |= np.where(outside, np.uint32(Flag.OUT_OF_FRAME), np.uint32(0))

    z = xy[..., 0] + 1j * xy[..., 1]
    roll = np.exp(-1j * np.radians(options.camera_roll_deg))
    vectors = z @ plan.weights - 1j * roll * plan.vertical
    lengths = np.abs(vectors)

    # one more column stands for the padding of short directions
    flags_of = np.concatenate([point_flags, np.zeros((n, 1), np.uint32)], axis=1)[:, plan.points]
    scores_of = np.concatenate([scores, np.full((n, 1), np.inf)], axis=1)[:, plan.points]
    flags = np.bitwise_or.reduce(flags_of, axis=2)
    bad_points = ((flags_of & _POINT_FATAL) != 0).sum(axis=2, dtype=np.float64)
    from_points = plan.vertical == 0.0
    coincident = (bad_points == 0) & (lengths <= line.coincident_px) & from_points
    flags |= np.where(coincident, np.uint32(Flag.DEGENERATE), np.uint32(0))
    short = (lengths < line.min_length_px) & from_points
    flags |= np.where(short, np.uint32(Flag.LOW_RESOLUTION), np.uint32(0))
    return Directions(
        xy=z,
        point_flags=point_flags,
        point_scores=scores,
        vectors=vectors,
        lengths=lengths,
        degrees=np.degrees(np.angle(vectors)),
        flags=flags,
        bad_points=bad_points,
        scores=scores_of.min(axis=2),
        usable=(bad_points == 0) & ~coincident,
    )
