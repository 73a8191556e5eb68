"""Computes values, standard errors and flags of measurements, for all persons at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.core.angles.anatomy import STATURE_FRACTIONS
from service.core.angles.compile import plan_for
from service.core.angles.compiled import UPWARD, CompiledAngles, Doubles, Indices
from service.core.angles.directions import Directions, gather
from service.core.angles.flags import FATAL, NO_GEOMETRY, Flag, Flags, status_of
from service.core.angles.orientation import FRONTAL, OBLIQUE, SAGITTAL, Orientations, orient
from service.core.angles.result import Measured, SideSelection, Workings
from service.core.angles.thresholds import AngleOptions
from service.core.angles.uncertainty import keypoint_spread_px, slopes, std_errors_deg
from service.core.poses import Floats, Poses
from service.core.skeleton.template import Skeleton

_Scalar = TypeVar("_Scalar", bound=np.generic)

_SHANK_OVER_TRUNK = STATURE_FRACTIONS["shank"] / STATURE_FRACTIONS["trunk"]
# Without geometry only flags of the keypoints and of the view are meaningful.
_WITHOUT_GEOMETRY = np.uint32(
    NO_GEOMETRY | Flag.WEAK_SCORE | Flag.OUT_OF_FRAME | Flag.VIEW_WITHHELD | Flag.VIEW_MISMATCH
)
# Without a value, flags about its direction or its zero are meaningless.
_OF_VALUES = np.uint32(Flag.OPPOSITE_DIRECTION | Flag.ASSUMED_NEUTRAL | Flag.FAR_SIDE | Flag.IMPLAUSIBLE)


def measure(
    poses: Poses,
    skeleton: Skeleton,
    names: tuple[str, ...],
    options: AngleOptions,
    *,
    side: SideSelection = "both",
    sigmas_px: Floats | None = None,
) -> Measured:
    """Measure persons. A value that cannot be measured carries its reasons and fails no other.

    Args:
        poses: N persons with the keypoints of `skeleton`; any value is allowed in them.
        skeleton: names of the keypoints, and their published sigmas if there are any.
        names: of measurements, as `parse_names` gives them.
        options: thresholds, facing, mirror, roll, baseline and the size of the image.
        side: which sides are answered.
        sigmas_px: (N, K) standard deviation of every keypoint per axis, where the model gives it.

    Raises:
        KeyError: a measurement that does not exist; `parse_names` refuses those.
        ValueError: the poses, or `sigmas_px`, do not have the skeleton's number of keypoints.
    """
    expected = (len(poses), len(skeleton.keypoints))
    if poses.keypoints.shape[:2] != expected or (sigmas_px is not None and sigmas_px.shape != expected):
        raise ValueError(f"keypoints and sigmas of {skeleton.name} must be {expected}")
    plan = plan_for(skeleton, names)
    with np.errstate(all="ignore"):  # every value that is not finite has a flag
        found = gather(poses, plan, options)
        turned = orient(found, plan, options)
        rows = _measure_rows(found, turned, plan, options)
        choice, chosen = _choose(found, plan)
        spread = keypoint_spread_px(poses, found, turned, plan, options, sigmas_px)
        error = std_errors_deg(slopes(found, chosen, plan), spread, plan.mixing)
        if sigmas_px is None:
            error = error * plan.factors
        return _settle(found, turned, rows, choice, chosen, error, plan, options, side)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Angles of N persons, R each: `inner` is σ · difference + offset, wrapped, before `outer`."""

    sigma: Doubles
    inner: Doubles
    flags: Flags
    direction_flags: Flags


def _measure_rows(
    found: Directions, turned: Orientations, plan: CompiledAngles, options: AngleOptions
) -> _Rows:
    rows, line = plan.rows, options.thresholds
    moving, reference = found.degrees[:, rows.moving], found.degrees[:, rows.reference]
    through = found.degrees[:, rows.through]
    turn = np.where(
        rows.is_through,
        _wrap(moving - through, -180.0) - _wrap(reference - through, -180.0),
        _wrap(moving - reference, -180.0),
    )
    sign = turned.signs[:, rows.orientation] * rows.factor
    magnitude = (rows.orientation == 0) | (rows.unsigned & (sign == 0))
    sigma = np.where(magnitude | (sign == 0), np.where(turn < 0, -1.0, 1.0), sign)
    offset = rows.offset_deg - line.neck_neutral_deg * rows.neutral
    inner = _wrap_rows(sigma * turn + offset, rows.lowest_deg, rows.turns)

    expected = plan.stature / STATURE_FRACTIONS["trunk"] * turned.scale[:, None]
    short = (found.lengths < line.foreshortened * expected) & found.usable
    of_directions = found.flags | np.where(short, np.uint32(Flag.FORESHORTENED), np.uint32(0))
    flags = of_directions[:, rows.moving] | of_directions[:, rows.reference] | of_directions[:, rows.through]
    unknown = (sign == 0) & (rows.orientation != 0)
    flags |= np.where(unknown & rows.unsigned, np.uint32(Flag.FACING_UNKNOWN), np.uint32(0))
    flags |= np.where(unknown & ~rows.unsigned, np.uint32(Flag.FACING_WITHHELD), np.uint32(0))
    flags |= np.where(plan.fallback, np.uint32(Flag.REFERENCE_FALLBACK), np.uint32(0))
    return _Rows(sigma, inner, flags, of_directions)


def _wrap(degrees: Doubles, lowest: float | Doubles) -> Doubles:
    """Degrees in (lowest, lowest + 360]."""
    return degrees - 360.0 * np.ceil((degrees - lowest) / 360.0 - 1.0)


def _wrap_rows(degrees: Doubles, lowest: Doubles, turns: Doubles) -> Doubles:
    """The same with a bound per row; rows whose `turns` is 0 stay unwrapped."""
    return degrees - 360.0 * turns * np.ceil((degrees - lowest) / 360.0 - 1.0)


def _choose(found: Directions, plan: CompiledAngles) -> tuple[Indices, Indices]:
    """For every slot the first choice whose keypoints are all usable, else the one that lacks the fewest."""
    rows = plan.rows
    bad = found.bad_points[:, rows.moving] + found.bad_points[:, rows.reference]
    bad = bad + found.bad_points[:, rows.through]
    choice = np.where(plan.choices >= 0, bad[:, plan.choices], np.inf).argmin(axis=2)
    return choice, plan.choices[np.arange(len(plan.slots)), choice]


def _pick(values: NDArray[_Scalar], columns: Indices) -> NDArray[_Scalar]:
    """values[n, columns[n, g]]."""
    return np.take_along_axis(values, columns, axis=1)


def _settle(
    found: Directions,
    turned: Orientations,
    rows: _Rows,
    choice: Indices,
    chosen: Indices,
    noise_deg: Doubles,
    plan: CompiledAngles,
    options: AngleOptions,
    side: SideSelection,
) -> Measured:
    """Subtract the baseline, add the flags of the view, and withhold values with a fatal flag."""
    line, described = options.thresholds, plan.rows
    neutral, neutral_error, has_neutral = _baseline(plan, options)
    outer = described.outer[chosen]
    inner = _pick(rows.inner, chosen) - outer * neutral
    inner = _wrap_rows(inner, described.lowest_deg[chosen], described.turns[chosen])
    values = outer * inner + 0.0  # no negative zero

    assumed = described.neutral[chosen] & ~has_neutral
    error = np.sqrt(noise_deg**2 + neutral_error**2 + np.where(assumed, line.neck_neutral_sd_deg**2, 0.0))
    flags = (
        _pick(rows.flags, chosen)
        | _view_flags(turned, plan, options)
        | _gate_flags(found, turned, plan, options)
        | _posture_flags(turned, plan)
        | _range_flags(outer * _pick(rows.inner, chosen), error, plan, options)
    )
    for which, flag in (
        (error > line.max_std_error_deg, Flag.LOW_RESOLUTION),
        (plan.opposite & (values < -line.opposite_deg), Flag.OPPOSITE_DIRECTION),
        (assumed, Flag.ASSUMED_NEUTRAL),
        (turned.swap_suspected[:, None], Flag.SWAP_SUSPECTED),
    ):
        flags |= np.where(which, np.uint32(flag), np.uint32(0))
    nothing = (flags & np.uint32(NO_GEOMETRY)) != 0
    flags = np.where(nothing, flags & _WITHOUT_GEOMETRY, flags)
    withheld = (flags & np.uint32(FATAL)) != 0
    flags = np.where(withheld, flags & ~_OF_VALUES, flags)
    # a sign that is not known puts nothing out of range
    signless = (flags & np.uint32(Flag.FACING_WITHHELD)) != 0
    flags = np.where(signless, flags & ~np.uint32(Flag.IMPLAUSIBLE_WITHHELD), flags)

    scores = np.minimum(
        _pick(found.scores, described.moving[chosen]), _pick(found.scores, described.reference[chosen])
    )
    scores = np.minimum(scores, _pick(found.scores, described.through[chosen]))
    rows_lost = (rows.flags & np.uint32(NO_GEOMETRY | Flag.FACING_WITHHELD)) != 0
    ratio_usable = found.usable[:, plan.ratios].all(axis=2)
    ratios = found.lengths[:, plan.ratios[:, 0]] / found.lengths[:, plan.ratios[:, 1]]
    shape = (len(turned.view), len(plan.measurements), 2)
    return Measured(
        measurements=plan.measurements,
        side=side,
        degrees=np.where(withheld, np.nan, values).reshape(shape),
        statuses=status_of(flags).reshape(shape),
        std_errors_deg=np.where(nothing, np.nan, error).reshape(shape),
        keypoint_scores=scores.reshape(shape),
        flags=flags.reshape(shape),
        view_ratios=turned.ratio,
        workings=Workings(
            plan=plan,
            options=options,
            found=found,
            turned=turned,
            choice=choice,
            chosen=chosen,
            values_deg=values,
            sweep_deg=_pick(rows.sigma, chosen) * inner,
            direction_flags=rows.direction_flags,
            rows_deg=np.where(rows_lost, np.nan, described.outer * rows.inner + 0.0),
            ratios=np.where(ratio_usable, ratios, np.nan),
        ),
    )


def _baseline(plan: CompiledAngles, options: AngleOptions) -> tuple[Doubles, Doubles, NDArray[np.bool_]]:
    """Neutral value and its standard error for every slot, and whether there is one."""
    given = [options.baseline.get((slot.measurement.name, slot.side)) for slot in plan.slots]
    return (
        np.array([0.0 if neutral is None else neutral.degrees for neutral in given], np.float64),
        np.array([0.0 if neutral is None else neutral.std_error_deg for neutral in given], np.float64),
        np.array([neutral is not None for neutral in given], np.bool_),
    )


def _view_flags(turned: Orientations, plan: CompiledAngles, options: AngleOptions) -> Flags:
    """Flags of each slot that follow from the view of the body."""
    profile, frontal = (turned.view == SAGITTAL)[:, None], (turned.view == FRONTAL)[:, None]
    withheld = plan.wants_frontal & plan.strict & profile
    oblique = (turned.view == OBLIQUE)[:, None]
    mismatch = (plan.wants_frontal & ~plan.strict & profile) | (plan.wants_sagittal & frontal)
    mismatch |= (plan.wants_frontal | plan.wants_sagittal) & oblique
    # Facing right, the right side is near; in a mirror image it is the other side.
    front = turned.signs[:, 2, None] * (-1.0 if options.mirrored else 1.0)
    far = profile & (plan.own_side * front > 0)
    flags = np.where(withheld, np.uint32(Flag.VIEW_WITHHELD), np.uint32(0))
    flags |= np.where(mismatch, np.uint32(Flag.VIEW_MISMATCH), np.uint32(0))
    flags |= np.where(far, np.uint32(Flag.FAR_SIDE), np.uint32(0))
    return flags


def _posture_flags(turned: Orientations, plan: CompiledAngles) -> Flags:
    """A body in another posture than a measurement presumes: what is seen is something else."""
    other = ~plan.presumed[:, turned.posture].T
    flags = np.where(other & plan.strict, np.uint32(Flag.POSTURE_WITHHELD), np.uint32(0))
    flags |= np.where(other & ~plan.strict, np.uint32(Flag.POSTURE), np.uint32(0))
    return flags


def _range_flags(values: Doubles, error: Doubles, plan: CompiledAngles, options: AngleOptions) -> Flags:
    """Values that no joint has: withheld where noise cannot explain them."""
    outside = np.maximum(plan.lowest_deg - values, values - plan.highest_deg)
    withheld = (outside > 0) & (outside > options.thresholds.implausible_errors * error)
    flags = np.where(withheld, np.uint32(Flag.IMPLAUSIBLE_WITHHELD), np.uint32(0))
    flags |= np.where((outside > 0) & ~withheld, np.uint32(Flag.IMPLAUSIBLE), np.uint32(0))
    return flags


def _gate_flags(
    found: Directions, turned: Orientations, plan: CompiledAngles, options: AngleOptions
) -> Flags:
    """Planar cross-talk: a thigh or a shank that points at the camera leaves no meaningful frontal angle."""
    line = options.thresholds
    thigh, shank = plan.gates[:, 0], plan.gates[:, 1]
    # without an ankle the shank's length comes from the scale of the body
    shank_px = np.where(
        found.usable[:, shank], found.lengths[:, shank], _SHANK_OVER_TRUNK * turned.scale[:, None]
    )
    ratio = found.lengths[:, thigh] / shank_px
    gated = thigh != UPWARD
    withheld = gated & ((ratio < line.crosstalk_withheld) | (ratio > line.crosstalk_withheld_above))
    doubtful = (
        gated & ((ratio < line.crosstalk_doubtful) | (ratio > line.crosstalk_doubtful_above)) & ~withheld
    )
    flags = np.where(doubtful, np.uint32(Flag.PLANAR_CROSSTALK), np.uint32(0))
    flags |= np.where(withheld, np.uint32(Flag.CROSSTALK_WITHHELD), np.uint32(0))
    return flags
