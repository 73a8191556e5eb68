"""Orientation of each person: view (frontal, oblique, profile), facing (toward, away, left, right), palms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.core.angles.anatomy import STATURE_FRACTIONS
from service.core.angles.compiled import CompiledAngles, Doubles, Indices
from service.core.angles.directions import Directions
from service.core.angles.thresholds import AngleOptions

DetectedView = Literal["frontal", "oblique", "sagittal", "unknown"]
VIEWS: tuple[DetectedView, ...] = ("unknown", "frontal", "oblique", "sagittal")
UNKNOWN, FRONTAL, OBLIQUE, SAGITTAL = range(4)

# A trunk is 1.17 times a thigh or a shank: ratio of the segments' heights in D. A. Winter,
# Biomechanics and Motor Control of Human Movement.
_TRUNK_OVER_LEG = STATURE_FRACTIONS["trunk"] / STATURE_FRACTIONS["shank"]
_TRUNK_OVER_ARM = STATURE_FRACTIONS["trunk"] / STATURE_FRACTIONS["upper_arm"]

# Weights of the cues to the facing in profile, relative to nose against ear. Sports2D uses toe
# against heel; knees and elbows bend in one direction only.
_NOSE_SHOULDER, _TOE_HEEL, _KNEE, _ELBOW = 0.5, 1.5, 1.0, 0.5


@dataclass(frozen=True, eq=False)
class Orientations:
    """Orientation of N persons.

    Attributes:
        view: (N,) index into `VIEWS`.
        ratio: (N,) shoulder width over body scale as projected, NaN where unknown.
        scale: (N,) length of the trunk in px as far as the image shows it, 0 where unknown.
        signs: (N, 5) by `Orientation`: 1 for none, toward the camera, front to the right, and the curl
            of the left and the right hand; each +1, −1, or 0 where unknown.
        swap_suspected: (N,) shoulders and hips disagree about front and back.
    """

    view: Indices
    ratio: Doubles
    scale: Doubles
    signs: Doubles
    swap_suspected: NDArray[np.bool_]


def orient(found: Directions, plan: CompiledAngles, options: AngleOptions) -> Orientations:
    """View, facing and palms of every person."""
    ratio, scale = _view_ratio(found, plan)
    line = options.thresholds
    view = np.full(ratio.shape, UNKNOWN, np.intp)
    view[ratio <= line.profile_ratio] = SAGITTAL
    view[(ratio > line.profile_ratio) & (ratio < line.frontal_ratio)] = OBLIQUE
    view[ratio >= line.frontal_ratio] = FRONTAL

    toward, swapped = _toward(found, plan, options)
    front = _front(found, plan, options, view)
    palms = _curl(found, plan, options)
    signs = np.stack([np.ones_like(toward), toward, front, palms[:, 0], palms[:, 1]], axis=1)
    return Orientations(view, ratio, scale, signs, swapped)


def _view_ratio(found: Directions, plan: CompiledAngles) -> tuple[Doubles, Doubles]:
    cues = plan.cues
    legs = np.concatenate([cues.thighs, cues.shanks])
    trunk = _longest(found, np.array([cues.midline]))
    trunk = np.where(trunk > 0, trunk, _longest(found, cues.flanks))
    scale = np.maximum(trunk, _TRUNK_OVER_LEG * _longest(found, legs))
    # a portrait shows only arms
    scale = np.where(scale > 0, scale, _TRUNK_OVER_ARM * _longest(found, cues.upper_arms))
    # shoulders that coincide are a perfect profile, not an error
    known = (found.bad_points[:, cues.shoulders] == 0) & (scale > 0)
    width = found.lengths[:, cues.shoulders]
    return np.where(known, width / np.where(known, scale, 1.0), np.nan), scale


def _longest(found: Directions, directions: Indices) -> Doubles:
    """Length of the longest usable direction, 0 if none is."""
    longest: Doubles = np.where(found.usable[:, directions], found.lengths[:, directions], 0.0).max(axis=1)
    return longest


def _cross(found: Directions, a: int, b: int) -> Doubles:
    """Cross product of two directions, 0 where either is not usable."""
    product = (found.vectors[:, a].conj() * found.vectors[:, b]).imag
    return np.where(found.usable[:, a] & found.usable[:, b], product, 0.0)


def _toward(
    found: Directions, plan: CompiledAngles, options: AngleOptions
) -> tuple[Doubles, NDArray[np.bool_]]:
    """+1 facing the camera, −1 turning the back: on which side of the trunk the left shoulder is."""
    cues = plan.cues
    shoulders = np.sign(_cross(found, cues.shoulders, cues.midline))
    hips = np.sign(_cross(found, cues.hips, cues.midline))
    least = options.thresholds.swap_width * found.lengths[:, cues.midline]
    wide = (found.lengths[:, cues.shoulders] > least) & (found.lengths[:, cues.hips] > least)
    swapped = wide & (shoulders * hips < 0)

    toward = shoulders
    # without hips the head defines up, and without a head gravity
    for line, down in ((cues.shoulders, cues.neck), (cues.shoulders, 1), (cues.hips, 1)):
        toward = np.where(toward == 0, np.sign(_cross(found, line, down)), toward)
    if options.facing in ("toward", "away"):
        # a mirror image shows the other hand at the same place
        sign = 1.0 if (options.facing == "toward") != options.mirrored else -1.0
        toward = np.full_like(toward, sign)
    return toward, swapped


def _front(found: Directions, plan: CompiledAngles, options: AngleOptions, view: Indices) -> Doubles:
    """+1 with the front to the right of the image, −1 to the left, 0 undecided: a weighted vote."""
    if options.facing in ("left", "right"):
        return np.full(len(found.xy), 1.0 if options.facing == "right" else -1.0)
    line, cues = options.thresholds, plan.cues
    up = _trunk_up(found, plan)
    scores = np.clip(found.scores, 0.0, 1.0)

    def ahead(directions: Indices | list[int]) -> Doubles:
        """Side of the trunk's axis that directions point to, 0 along the axis or unusable."""
        turn = found.vectors[:, directions] * up.conj()[:, None]
        length = np.abs(turn)
        clear = np.abs(turn.imag) > np.sin(np.radians(line.cue_dead_zone_deg)) * length
        return np.where(clear & found.usable[:, directions], np.sign(turn.imag), 0.0)

    def bent(upper: Indices, lower: Indices, least_deg: float) -> tuple[Doubles, Doubles]:
        turn, usable = _bend(found, upper, lower)
        votes = np.where(usable & (np.abs(turn) > least_deg), np.sign(turn), 0.0)
        return votes, np.minimum(scores[:, upper], scores[:, lower])

    # The nose lies to one side of both ears in profile and between them from the front, where the
    # two cancel. The ear with the higher score weighs more.
    faces, says = ahead(cues.faces), np.where(found.usable[:, cues.faces], scores[:, cues.faces], 0.0)
    vote = _mean(faces, says) * says.max(axis=1)
    vote = vote + _NOSE_SHOULDER * (-ahead([cues.neck]) * scores[:, [cues.neck]])[:, 0]
    feet = ahead(cues.feet)
    vote = vote + _TOE_HEEL * _mean(feet, np.abs(feet)) * _strongest(feet, scores[:, cues.feet])
    knees, knee_scores = bent(cues.thighs, cues.shanks, line.knee_bend_deg)
    vote = vote + _KNEE * _mean(knees, np.abs(knees)) * _strongest(knees, knee_scores)
    elbows, elbow_scores = bent(cues.upper_arms, cues.forearms, line.elbow_bend_deg)
    vote = vote - _ELBOW * _mean(elbows, np.abs(elbows)) * _strongest(elbows, elbow_scores)
    # from the front there is no facing in profile, unless the cues are many and agree
    margin = np.where(view == FRONTAL, line.facing_margin_frontal, line.facing_margin)
    return np.where(np.abs(vote) >= margin, np.sign(vote), 0.0)


def _trunk_up(found: Directions, plan: CompiledAngles) -> NDArray[np.complex128]:
    """Unit vector along the trunk toward the head: the midline, else a flank, else gravity."""
    up = found.vectors[:, 0].copy()
    for direction in (plan.cues.flanks[0], plan.cues.flanks[1], plan.cues.midline):
        usable = found.usable[:, direction]
        length = np.where(usable, found.lengths[:, direction], 1.0)
        up = np.where(usable, -found.vectors[:, direction] / length, up)
    return up


def _curl(found: Directions, plan: CompiledAngles, options: AngleOptions) -> Doubles:
    """(N, 2) direction in which the fingers of the left and the right hand bend: toward the palm."""
    turn, usable = _bend(found, plan.cues.hands, plan.cues.fingers)
    return np.where(usable & (np.abs(turn) > options.thresholds.finger_bend_deg), np.sign(turn), 0.0)


def _bend(found: Directions, upper: Indices, lower: Indices) -> tuple[Doubles, NDArray[np.bool_]]:
    """Signed turn in degrees from one segment to the next, and whether both are usable."""
    turn = np.degrees(np.angle(found.vectors[:, lower] * found.vectors[:, upper].conj()))
    return turn, found.usable[:, upper] & found.usable[:, lower]


def _mean(votes: Doubles, weights: Doubles) -> Doubles:
    """Weighted mean over the two sides, 0 where nothing weighs."""
    total = weights.sum(axis=1)
    mean: Doubles = (votes * weights).sum(axis=1) / np.where(total > 0, total, 1.0)
    return mean


def _strongest(votes: Doubles, scores: Doubles) -> Doubles:
    """Best score among the sides that voted."""
    best: Doubles = np.where(votes != 0, scores, 0.0).max(axis=1)
    return best
