"""Orientation of each person: view (frontal, oblique, profile), facing (toward, away, left, right), palms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.core.angles.anatomy import STATURE_FRACTIONS
from service.core.angles.compiled import CompiledAngles, Doubles, Indices
from service.core.angles.directions import Directions
from service.core.angles.posture import postures
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

# Weights of the pairs of lines that tell front from back, relative to the shoulders against the trunk. Lines
# of the hips and the head are short. The legs point down however the trunk leans.
_SHOULDERS_TRUNK, _SHOULDERS_LEGS, _HIPS_TRUNK, _HIPS_LEGS, _HEAD = 1.0, 0.6, 0.3, 0.3, 0.2
# Of the body's scale: from this length on a line counts in full.
_LONG = 0.3


@dataclass(frozen=True, eq=False)
class Orientations:
    """Orientation of N persons.

    Attributes:
        view: (N,) index into `VIEWS`.
        ratio: (N,) shoulder width over body scale as projected, NaN where unknown.
        scale: (N,) length of the trunk in px as far as the image shows it, 0 where unknown.
        signs: (N, 5) by `Orientation`: 1 for none, toward the camera, front to the right, and the curl
            of the left and the right hand; each +1, −1, or 0 where unknown.
        clarity: (N, 2) of toward or away, and of left or right: 0 nothing is known to 1.
        posture: (N,) index into `POSTURES`.
        swap_suspected: (N,) shoulders and hips disagree about front and back.
    """

    view: Indices
    ratio: Doubles
    scale: Doubles
    signs: Doubles
    clarity: Doubles
    posture: Indices
    swap_suspected: NDArray[np.bool_]


def orient(found: Directions, plan: CompiledAngles, options: AngleOptions) -> Orientations:
    """View, facing and palms of every person."""
    ratio, scale = _view_ratio(found, plan)
    line = options.thresholds
    view = np.full(ratio.shape, UNKNOWN, np.intp)
    view[ratio <= line.profile_ratio] = SAGITTAL
    view[(ratio > line.profile_ratio) & (ratio < line.frontal_ratio)] = OBLIQUE
    view[ratio >= line.frontal_ratio] = FRONTAL

    toward, toward_clarity, swapped = _toward(found, plan, options, scale)
    front, front_clarity = _front(found, plan, options, view)
    palms = _curl(found, plan, options)
    signs = np.stack([np.ones_like(toward), toward, front, palms[:, 0], palms[:, 1]], axis=1)
    clarity = np.stack([toward_clarity, front_clarity], axis=1)
    posture = postures(found, plan, scale, options)
    return Orientations(view, ratio, scale, signs, clarity, posture, swapped)


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
    found: Directions, plan: CompiledAngles, options: AngleOptions, scale: Doubles
) -> tuple[Doubles, Doubles, NDArray[np.bool_]]:
    """+1 facing the camera, −1 turning the back, 0 undecided; how clear that is; sides swapped or not.

    A line from the right to the left of the body, crossed with one from up to down, gives the side that is
    seen. Several such pairs vote, because a trunk that leans at the camera points anywhere in the image.
    """
    cues = plan.cues
    midline = np.sign(_cross(found, cues.shoulders, cues.midline))
    hips = np.sign(_cross(found, cues.hips, cues.midline))
    least = options.thresholds.swap_width * found.lengths[:, cues.midline]
    wide = (found.lengths[:, cues.shoulders] > least) & (found.lengths[:, cues.hips] > least)
    swapped = wide & (midline * hips < 0)

    ears, eyes = cues.heads.tolist()
    pairs = (
        (cues.shoulders, cues.midline, _SHOULDERS_TRUNK),
        (cues.hips, cues.midline, _HIPS_TRUNK),
        (cues.shoulders, cues.legs, _SHOULDERS_LEGS),
        (cues.hips, cues.legs, _HIPS_LEGS),
        (ears, cues.neck, _HEAD),
        (eyes, cues.neck, _HEAD),
    )
    votes, total = np.zeros(len(scale)), np.zeros(len(scale))
    for across, along, weight in pairs:
        sine, weighs = _handedness(found, across, along, scale)
        votes, total = votes + weight * weighs * sine, total + weight * weighs
    vote = votes / np.where(total > 0, total, 1.0)
    # without any pair of the trunk the neck defines up, and without a head gravity
    for across, down in ((cues.shoulders, cues.neck), (cues.shoulders, 1), (cues.hips, 1)):
        sine, weighs = _handedness(found, across, down, scale)
        vote = np.where((total == 0) & (vote == 0), sine * (weighs > 0), vote)
    toward = np.where(np.abs(vote) >= options.thresholds.toward_margin, np.sign(vote), 0.0)
    clarity = np.minimum(np.abs(vote), 1.0)
    if options.facing in ("toward", "away"):
        # a mirror image shows the other hand at the same place
        sign = 1.0 if (options.facing == "toward") != options.mirrored else -1.0
        toward, clarity = np.full_like(toward, sign), np.ones_like(clarity)
    return toward, clarity, swapped


def _handedness(found: Directions, across: int, along: int, scale: Doubles) -> tuple[Doubles, Doubles]:
    """Sine of the angle from one direction to another, and its weight: 0 where either cannot be used.

    Short lines say little: the weight grows with the lengths up to `_LONG` of the body's scale each.
    """
    lengths = found.lengths[:, across] * np.where(along < 2, 1.0, found.lengths[:, along])
    usable = found.usable[:, across] & found.usable[:, along] & (lengths > 0)
    sine = _cross(found, across, along) / np.where(usable, lengths, 1.0)
    reach = np.where(scale > 0, _LONG * scale, np.inf)
    weight = np.minimum(found.lengths[:, across] / reach, 1.0)
    if along >= 2:
        weight = weight * np.minimum(found.lengths[:, along] / reach, 1.0)
    return np.where(usable, sine, 0.0), np.where(usable, weight, 0.0)


def _front(
    found: Directions, plan: CompiledAngles, options: AngleOptions, view: Indices
) -> tuple[Doubles, Doubles]:
    """+1 with the front to the right of the image, −1 to the left, 0 undecided; and how clear the vote is."""
    if options.facing in ("left", "right"):
        sign = 1.0 if options.facing == "right" else -1.0
        return np.full(len(found.xy), sign), np.ones(len(found.xy))
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
    knees, knee_scores = bent(cues.thighs, cues.shanks, line.knee_bend_deg)
    elbows, elbow_scores = bent(cues.upper_arms, cues.forearms, line.elbow_bend_deg)
    feet = ahead(cues.feet)
    votes = np.stack(
        [
            _mean(faces, says) * says.max(axis=1),
            _NOSE_SHOULDER * (-ahead([cues.neck]) * scores[:, [cues.neck]])[:, 0],
            _TOE_HEEL * _mean(feet, np.abs(feet)) * _strongest(feet, scores[:, cues.feet]),
            _KNEE * _mean(knees, np.abs(knees)) * _strongest(knees, knee_scores),
            -_ELBOW * _mean(elbows, np.abs(elbows)) * _strongest(elbows, elbow_scores),
        ]
    )
    vote, cast = votes.sum(axis=0), np.abs(votes).sum(axis=0)
    agreement = np.abs(vote) / np.where(cast > 0, cast, 1.0)
    # from the front there is no facing in profile, unless the cues are many and agree
    margin = np.where(view == FRONTAL, line.facing_margin_frontal, line.facing_margin)
    clear = (np.abs(vote) >= margin) & (agreement >= line.facing_agreement)
    return np.where(clear, np.sign(vote), 0.0), agreement * np.minimum(np.abs(vote), 1.0)


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
