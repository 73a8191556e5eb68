"""Measurements compiled to matrices, for one skeleton and one selection of measurements.

They list the keypoints that are needed (P), the directions between them (J) and the angles
between those (R rows), so that all persons are computed in a few array operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.core.angles.definitions import (
    Choice,
    Measurement,
    Side,
)

Indices = NDArray[np.intp]
Doubles = NDArray[np.float64]

UPWARD, DOWNWARD = 0, 1  # the first two directions are always gravity's


@dataclass(frozen=True)
class DetailRow:
    """Where a detail is found: a row of angles or of ratios."""

    key: str
    row: int
    is_ratio: bool
    straight_rows: tuple[int, ...]


@dataclass(frozen=True)
class PlannedChoice:
    """A choice, its row, and the keypoints and known segments that it uses, by name and number."""

    choice: Choice
    row: int
    points: tuple[tuple[str, int], ...]
    segments: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Slot:
    """One side of one measurement: G of them, left and right in turn.

    Attributes:
        gate: directions of thigh and shank, both UPWARD where there is no gate.
    """

    measurement: Measurement
    side: Side
    choices: tuple[PlannedChoice, ...]
    details: tuple[DetailRow, ...]
    gate: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Rows:
    """Angles as arrays, one element per row (R).

    Attributes:
        moving, reference, through: directions; `through` is UPWARD where there is none.
        is_through: whether there is one.
        orientation: value of `Orientation`.
        factor, offset_deg, outer: as in `Angle`.
        lowest_deg: where the turn is cut, the excluded lower end.
        turns: 1.0 where whole turns are taken off, 0.0 where not.
        unsigned, neutral: as in `Angle`.
    """

    moving: Indices
    reference: Indices
    through: Indices
    is_through: NDArray[np.bool_]
    orientation: Indices
    factor: Doubles
    offset_deg: Doubles
    outer: Doubles
    lowest_deg: Doubles
    turns: Doubles
    unsigned: NDArray[np.bool_]
    neutral: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Cues:
    """Numbers of the directions from which the orientation of the body is read; pairs are left, right."""

    shoulders: int
    midline: int
    hips: int
    legs: int
    neck: int
    flanks: Indices
    thighs: Indices
    shanks: Indices
    upper_arms: Indices
    forearms: Indices
    heads: Indices
    faces: Indices
    feet: Indices
    hands: Indices
    fingers: Indices


@dataclass(frozen=True, eq=False)
class CompiledAngles:
    """What to compute for one skeleton and one choice of measurements.

    Attributes:
        measurements: M of them, in the order asked for.
        slots: G = 2M, left and right of each in turn.
        names: P keypoints.
        columns: (P,) their place in the skeleton, −1 where it lacks them.
        swapped: (P,) the same with left and right exchanged.
        oks_sigmas: (P,)
        noise: (P, 5) λ of every keypoint at the scores of `noise.SCORES`.
        mixing: (P, P); independent noise of the keypoints @ mixing has the correlations of theirs.
        factors: (G,) what the standard error of every slot is multiplied by, as `noise.FACTORS` has it.
        cues: directions that give the orientation of the body.
        weights: (P, J) complex; coordinates @ weights are the directions.
        vertical: (J,) complex; 1 for up, −1 for down, 0 elsewhere.
        points: (J, most) keypoints of every direction, padded with P.
        stature: (J,) expected length over stature, NaN where unknown.
        rows: the angles; the choices come first, then the details.
        choices: (G, most) rows of every slot in order of preference, padded with −1.
        anchors: (P, R) complex weights of the arc's centre.
        ratios: (Q, 2) directions, numerator then denominator.
        gates: (G, 2) directions of thigh and shank, (UPWARD, UPWARD) where there is no gate.
        fallback: (R,) rows that are substitutes.
        wants_frontal, wants_sagittal, strict, opposite: (G,) as in `Measurement`.
        lowest_deg, highest_deg: (G,) range of the joint, as in `Limits`.
        presumed: (G, 5) whether the measurement may be taken in each of `POSTURES`.
        own_side: (G,) +1 for left and −1 for right, 0 for a movement that both sides share.
    """

    measurements: tuple[Measurement, ...]
    slots: tuple[Slot, ...]
    names: tuple[str, ...]
    columns: Indices
    swapped: Indices
    oks_sigmas: Doubles
    noise: Doubles
    mixing: Doubles
    factors: Doubles
    cues: Cues
    weights: NDArray[np.complex128]
    vertical: Doubles
    points: Indices
    stature: Doubles
    rows: Rows
    choices: Indices
    anchors: NDArray[np.complex128]
    ratios: Indices
    gates: Indices
    fallback: NDArray[np.bool_]
    wants_frontal: NDArray[np.bool_]
    wants_sagittal: NDArray[np.bool_]
    strict: NDArray[np.bool_]
    opposite: NDArray[np.bool_]
    lowest_deg: Doubles
    highest_deg: Doubles
    presumed: NDArray[np.bool_]
    own_side: Doubles
