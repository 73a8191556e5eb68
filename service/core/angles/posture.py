"""Posture of each person: standing, squatting, sitting or lying, from the plumb line and the centre of mass.

A body that stands or squats has its centre of mass over the feet, a sitting one has not. The masses and their
places are those of D. A. Winter, Biomechanics and Motor Control of Human Movement, table 4.1 (Dempster's).
From the front a chair may be hidden behind thighs that point at the camera: such a posture reads as a squat,
and the ratio of thigh to shank withholds its frontal angles.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.core.angles.anatomy import STATURE_FRACTIONS
from service.core.angles.compiled import DOWNWARD, CompiledAngles, Doubles, Indices
from service.core.angles.directions import Directions
from service.core.angles.thresholds import AngleOptions

UNKNOWN, STANDING, SQUATTING, SITTING, LYING = range(5)
Posture = Literal["unknown", "standing", "squatting", "sitting", "lying"]
POSTURES: tuple[Posture, ...] = ("unknown", "standing", "squatting", "sitting", "lying")

# Winter, table 4.1: head, arms and trunk have 0.678 of the mass, at 0.626 of the way from hip to shoulder; a
# thigh 0.100 at 0.433 from the hip; a shank with its foot 0.061 at 0.606 from the knee.
_UPPER_MASS, _UPPER_PLACE = 0.678, 0.626
_THIGH_MASS, _THIGH_PLACE = 0.100, 0.433
_SHANK_MASS, _SHANK_PLACE = 0.061, 0.606


def postures(found: Directions, plan: CompiledAngles, scale_px: Doubles, options: AngleOptions) -> Indices:
    """Index into `POSTURES` of every person, (N,).

    Args:
        found: directions of the body.
        plan: which of them is which.
        scale_px: (N,) length of the trunk as far as the image shows it, 0 where unknown.
        options: its thresholds, and the roll of the camera by way of `found`.
    """
    cues, line = plan.cues, options.thresholds
    down = found.vectors[:, DOWNWARD]

    def plumb(direction: Indices | int) -> NDArray[np.complex128]:
        """Directions in a frame whose real axis is down and whose imaginary axis is level."""
        vectors = found.vectors[:, direction]
        return vectors * (down.conj() if vectors.ndim == 1 else down.conj()[:, None])

    # A leg with its ankle; without one the thigh alone says where the body is above the knee.
    thigh, shank = plumb(cues.thighs), plumb(cues.shanks)
    has_thigh = found.usable[:, cues.thighs]
    has_leg = has_thigh & found.usable[:, cues.shanks]
    trunk = plumb(cues.midline)
    has_trunk = found.usable[:, cues.midline]

    leg = np.where(has_leg, thigh + shank, np.where(has_thigh, thigh, 0.0)).sum(axis=1)
    inclined = np.abs(np.degrees(np.angle(trunk)))
    legs_inclined = np.where(has_thigh.any(axis=1), np.abs(np.degrees(np.angle(leg))), np.nan)
    level = inclined >= line.lying_trunk_deg
    lying = has_trunk & level & (legs_inclined >= line.lying_legs_deg)
    lying |= has_trunk & np.isnan(legs_inclined) & (inclined >= line.lying_without_legs_deg)

    beyond = _beyond_feet(plumb(cues.hips), trunk, thigh, shank, has_leg)
    stature = scale_px / STATURE_FRACTIONS["trunk"]
    known = has_trunk & found.usable[:, cues.hips] & has_leg.any(axis=1) & (stature > 0)
    # A straight body that leans is a camera that is not level, or a fall: sitting bends hips or knees.
    bent = np.where(has_leg, np.maximum(_between(trunk[:, None], thigh), _between(thigh, shank)), 0.0)
    sitting = known & (beyond > line.unsupported * stature) & (bent.max(axis=1) >= line.sitting_bend_deg)
    thigh_inclined = np.where(has_leg, np.abs(np.degrees(np.angle(thigh))), 0.0).max(axis=1)
    posture = np.full(len(scale_px), UNKNOWN, np.intp)
    posture[known] = np.where(thigh_inclined >= line.squatting_thigh_deg, SQUATTING, STANDING)[known]
    posture[sitting] = SITTING
    # a level trunk over feet is a bow; one that they do not carry lies, or is on hands and knees
    posture[lying | (known & level & (beyond > line.unsupported * stature))] = LYING
    return posture


def _between(a: NDArray[np.complex128], b: NDArray[np.complex128]) -> Doubles:
    """Angle between directions, 0 to 180 degrees."""
    return np.asarray(np.abs(np.degrees(np.angle(b * a.conj()))), np.float64)


def _beyond_feet(
    hips: NDArray[np.complex128],
    trunk: NDArray[np.complex128],
    thigh: NDArray[np.complex128],
    shank: NDArray[np.complex128],
    has_leg: NDArray[np.bool_],
) -> Doubles:
    """Level distance of the centre of mass from the span between the ankles, px; 0 above it.

    Places are relative to the mid-hip. A leg that is not seen is taken to be like the other.
    """
    own_hip = np.stack([hips / 2, -hips / 2], axis=1)  # from right to left
    knees, ankles = own_hip + thigh, own_hip + thigh + shank
    of_legs = _THIGH_MASS * (own_hip + _THIGH_PLACE * thigh) + _SHANK_MASS * (knees + _SHANK_PLACE * shank)
    count = np.maximum(has_leg.sum(axis=1), 1)
    legs = np.where(has_leg, of_legs, 0.0).sum(axis=1) * 2 / count
    mass = (_UPPER_MASS * -_UPPER_PLACE * trunk + legs).imag
    low = np.where(has_leg, ankles.imag, np.inf).min(axis=1)
    high = np.where(has_leg, ankles.imag, -np.inf).max(axis=1)
    beyond: Doubles = np.maximum(np.maximum(low - mass, mass - high), 0.0)
    return beyond
