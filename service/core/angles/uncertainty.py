"""Keypoint noise, in px per axis, and what it makes of the angles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.core.angles.anatomy import STATURE_FRACTIONS
from service.core.angles.compiled import CompiledAngles, Doubles, Indices
from service.core.angles.directions import Directions
from service.core.angles.noise import SCORES
from service.core.angles.orientation import Orientations
from service.core.angles.thresholds import AngleOptions
from service.core.poses import Floats, Poses

# Area of a person over the area of the box, as xtcocotools/cocoeval.py takes it where no mask is known.
_AREA_OVER_BOX = 0.53
# Area of a person over the square of the trunk: a stature H fills a box of about 0.41 H by H standing.
_AREA_OVER_TRUNK = _AREA_OVER_BOX * 0.41 / STATURE_FRACTIONS["trunk"] ** 2


def keypoint_spread_px(
    poses: Poses,
    found: Directions,
    turned: Orientations,
    plan: CompiledAngles,
    options: AngleOptions,
    sigmas_px: Floats | None,
) -> Doubles:
    """Standard deviation per axis of the P keypoints of a plan, (N, P), in px.

    Without `sigmas_px` it is the spread among annotators (OKS sigma · √area, which is for the distance
    and so divided by √2 per axis) times λ of the stage, the kind of keypoint and its score (`noise`), and
    never below a floor.

    Args:
        poses: N persons.
        found: their keypoints.
        turned: their scale in the image.
        plan: which keypoints.
        options: a factor of λ and the floor are among its thresholds.
        sigmas_px: (N, K) by the skeleton's order, where the model's own spread is known; used as given,
            except where it is not a length.
    """
    line = options.thresholds
    prior, size = prior_px(poses, found, turned, plan)
    floor = np.maximum(line.spread_floor_px, line.spread_floor_fraction * size)
    spread = np.hypot(line.spread_scale * _lambdas(found, plan) * prior, floor[:, None])
    if sigmas_px is None:
        return spread
    columns = plan.swapped if options.mirrored else plan.columns
    given = np.asarray(sigmas_px, np.float64)[
        :, columns
    ]  # a missing point gets the value of another one; it is unused
    return np.where(np.isfinite(given) & (given >= 0), given, spread)


def slopes(found: Directions, chosen: Indices, plan: CompiledAngles) -> NDArray[np.complex128]:
    """How the chosen rows turn with each keypoint, (N, G, P), per px.

    A direction v = Σ w p turns by Im(w δ / v) radians when p moves by δ. With v moving against u, the slope
    is w_v / v − w_u / u; the turn is the imaginary part of its product with δ.
    """
    rows, by_direction = plan.rows, plan.weights.T
    moving, reference = rows.moving[chosen], rows.reference[chosen]
    v = np.take_along_axis(found.vectors, moving, axis=1)[..., None]
    u = np.take_along_axis(found.vectors, reference, axis=1)[..., None]
    return np.asarray(by_direction[moving] / v - by_direction[reference] / u, np.complex128)


def std_errors_deg(slopes: NDArray[np.complex128], spread_px: Doubles, mixing: Doubles) -> Doubles:
    """First-order standard error in degrees of angles, (…,), from the noise of their keypoints.

    Noise is as large along x as along y and independent between the two, so that the variance is
    Σ c_ij s_i s_j Re(a_i ā_j) for slopes a, standard deviations s and correlations c.

    Args:
        slopes: (…, P) as `slopes` gives them.
        spread_px: (N, P) for slopes of (N, G, P), or of the shape of the slopes.
        mixing: (P, P) as in `CompiledAngles`.
    """
    spread = spread_px if spread_px.ndim == slopes.ndim else spread_px[:, None]
    moved = slopes * spread
    mixed = np.stack([moved.real, moved.imag]) @ mixing.T
    return np.asarray(np.degrees(np.sqrt(np.einsum("...p,...p->...", mixed, mixed).sum(axis=0))), np.float64)


def prior_px(
    poses: Poses, found: Directions, turned: Orientations, plan: CompiledAngles
) -> tuple[Doubles, Doubles]:
    """Spread among annotators, per axis in px: (N, P); and the longer side of every person, px: (N,)."""
    wide, high = _extent(poses, found)
    # arms and legs held out widen the box, not the person
    body = np.where(turned.scale > 0, _AREA_OVER_TRUNK * turned.scale**2, np.inf)
    area = np.minimum(_AREA_OVER_BOX * wide * high, body)
    return plan.oks_sigmas * np.sqrt(area / 2.0)[:, None], np.maximum(wide, high)


def _lambdas(found: Directions, plan: CompiledAngles) -> Doubles:
    """λ of every keypoint at its score, (N, P)."""
    lambdas = np.zeros_like(found.point_scores)
    for place, column in enumerate(plan.noise):
        lambdas[:, place] = np.interp(found.point_scores[:, place], SCORES, column)
    return lambdas


def _extent(poses: Poses, found: Directions) -> tuple[Doubles, Doubles]:
    """Width and height of every person: of the box, or of the keypoints where there is no box."""
    boxes = poses.boxes_xyxy.astype(np.float64)
    size = boxes[:, 2:] - boxes[:, :2]
    known = (np.isfinite(size) & (size > 0)).all(axis=1)
    if not known.all() and found.xy.shape[1]:
        seen = (found.point_flags & 3) == 0
        xy = np.stack([found.xy.real, found.xy.imag], axis=2)
        low = np.where(seen[..., None], xy, np.inf).min(axis=1)
        high = np.where(seen[..., None], xy, -np.inf).max(axis=1)
        size = np.where(known.reshape(-1, 1), size, np.where(high > low, high - low, 0.0))
    size = np.where(np.isfinite(size), size, 0.0)
    return size[:, 0], size[:, 1]
