"""Results of one person in words and numbers, and the arcs to draw for them."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, isfinite
from typing import Literal

from service.core.angles.compiled import PlannedChoice
from service.core.angles.definitions import SIDES, Measurement, Side, Vertical
from service.core.angles.flags import FATAL, Flag, Status, words
from service.core.angles.orientation import FRONTAL, VIEWS, DetectedView
from service.core.angles.posture import POSTURES, Posture
from service.core.angles.result import Measured

FacingFound = Literal["toward", "away", "left", "right", "unknown"]

# Plain numbers: arithmetic on an IntFlag costs a microsecond each time.
_FATAL = int(FATAL)
_MISSING, _FACING_WITHHELD = int(Flag.MISSING), int(Flag.FACING_WITHHELD)
_RAW_KNOWN = int(
    Flag.VIEW_WITHHELD | Flag.CROSSTALK_WITHHELD | Flag.POSTURE_WITHHELD | Flag.IMPLAUSIBLE_WITHHELD
)
_RAW_UNKNOWN = int(Flag.MISSING | Flag.UNUSABLE_SCORE | Flag.DEGENERATE | Flag.FACING_WITHHELD)
_STATUSES = tuple(Status)


@dataclass(frozen=True)
class AngleValue:
    """One side of one measurement of one person.

    Attributes:
        degrees: None where it could not be measured; never a placeholder.
        status: OK, DEGRADED or UNAVAILABLE.
        reasons: what is wrong, the most severe first; ASSUMED_NEUTRAL alone leaves a value OK.
        keypoint_score: lowest score of its keypoints, 0 where one is missing.
        std_error_deg: standard error from the noise of the keypoints; None where there is no geometry.
        reference: what the value is measured against.
        details: further numbers, angles ending in `_deg`, and words.
    """

    degrees: float | None
    status: Status
    reasons: tuple[str, ...]
    keypoint_score: float
    std_error_deg: float | None
    reference: str
    details: dict[str, float | str]


@dataclass(frozen=True)
class MeasurementResult:
    """One measurement of one person; a side that was not asked for is None."""

    measurement: Measurement
    left: AngleValue | None
    right: AngleValue | None


@dataclass(frozen=True)
class PersonMeasures:
    """All measurements of one person.

    Attributes:
        view: how the camera sees the body.
        view_score: shoulder width over body scale as projected (about 0 in profile, 0.5 or more from
            the front); None where the shoulders are not seen.
        facing: in profile the side of the image that the front points to, else toward or away.
        facing_score: how clear that is, 0 to 1: the votes for it less those against, over all.
        posture: standing, squatting, sitting or lying.
        swap_suspected: shoulders and hips disagree about front and back.
        results: in the order asked for.
    """

    view: DetectedView
    view_score: float | None
    facing: FacingFound
    facing_score: float
    posture: Posture
    swap_suspected: bool
    results: tuple[MeasurementResult, ...]


@dataclass(frozen=True)
class Goniometer:
    """What to draw for one value: an arc from a reference to a moving ray around a centre.

    Attributes:
        measurement: the measurement of the value.
        side: the subject's own; None for a value that belongs to both.
        value: number, status and reasons.
        centre_xy: of the arc, px; None where it is not known.
        moving_xy: from the centre to the end of the moving ray, px; None without geometry.
        sweep_deg: from the reference ray to the moving ray, clockwise positive.
        gravity: the reference is the plumb line.
    """

    measurement: Measurement
    side: Side | None
    value: AngleValue
    centre_xy: tuple[float, float] | None
    moving_xy: tuple[float, float] | None
    sweep_deg: float
    gravity: bool


def person_measures(measured: Measured, index: int) -> PersonMeasures:
    """The results of one person of N.

    Raises:
        IndexError: there is no such person.
    """
    turned = measured.workings.turned
    ratio = float(measured.view_ratios[index])
    read = _read(measured, index)
    asked = SIDES if measured.side == "both" else (measured.side,)
    return PersonMeasures(
        view=read.view,
        view_score=ratio if isfinite(ratio) else None,
        facing=_facing(measured, index),
        facing_score=_facing_score(measured, index),
        posture=POSTURES[int(turned.posture[index])],
        swap_suspected=bool(turned.swap_suspected[index]),
        results=tuple(
            MeasurementResult(
                measurement,
                _value(read, 2 * m) if "left" in asked else None,
                _value(read, 2 * m + 1) if "right" in asked else None,
            )
            for m, measurement in enumerate(measured.measurements)
        ),
    )


def goniometers(
    measured: Measured, index: int, names: tuple[str, ...] | None = None
) -> tuple[Goniometer, ...]:
    """What to draw for one person of N; a movement that both sides share is drawn once.

    Args:
        measured: what was measured.
        index: the person.
        names: measurements to draw, None for all.

    Raises:
        IndexError: there is no such person.
    """
    read = _read(measured, index)
    found = []
    for m, measurement in enumerate(measured.measurements):
        if names is not None and measurement.name not in names:
            continue
        sides: list[Side] = [*SIDES] if measured.side == "both" else [measured.side]
        if len(sides) == 2 and measurement.mirror != "own":
            # the same rays: the side that the body bends to, if it bends
            sides = ["right"] if read.degrees[2 * m + 1] > 0 else ["left"]
        found += [_goniometer(read, 2 * m + SIDES.index(side), side) for side in sides]
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Person:
    """One person's rows of the arrays as lists, which Python reads ten times faster."""

    measured: Measured
    index: int
    view: DetectedView
    degrees: list[float]
    statuses: list[int]
    std_errors: list[float]
    scores: list[float]
    flags: list[int]
    choice: list[int]
    values: list[float]
    sweep: list[float]
    rows: list[float]
    ratios: list[float]
    points: list[int]
    directions: list[int]


def _read(measured: Measured, index: int) -> _Person:
    work = measured.workings
    return _Person(
        measured=measured,
        index=index,
        view=VIEWS[int(work.turned.view[index])],
        degrees=measured.degrees[index].ravel().tolist(),
        statuses=measured.statuses[index].ravel().tolist(),
        std_errors=measured.std_errors_deg[index].ravel().tolist(),
        scores=measured.keypoint_scores[index].ravel().tolist(),
        flags=measured.flags[index].ravel().tolist(),
        choice=work.choice[index].tolist(),
        values=work.values_deg[index].tolist(),
        sweep=work.sweep_deg[index].tolist(),
        rows=work.rows_deg[index].tolist(),
        ratios=work.ratios[index].tolist(),
        points=work.found.point_flags[index].tolist(),
        directions=work.direction_flags[index].tolist(),
    )


def _facing(measured: Measured, index: int) -> FacingFound:
    turned = measured.workings.turned
    _, toward, front = turned.signs[index, :3].tolist()
    if turned.view[index] == FRONTAL:
        # with left and right exchanged back, a mirror image shows front as back
        sign = -toward if measured.workings.options.mirrored else toward
        return "toward" if sign > 0 else "away" if sign < 0 else "unknown"
    return "right" if front > 0 else "left" if front < 0 else "unknown"


def _facing_score(measured: Measured, index: int) -> float:
    turned = measured.workings.turned
    return float(turned.clarity[index, 0 if turned.view[index] == FRONTAL else 1])


def _value(read: _Person, slot: int) -> AngleValue:
    planned = read.measured.workings.plan.slots[slot].choices[read.choice[slot]]
    flags, degrees, std_error = read.flags[slot], read.degrees[slot], read.std_errors[slot]
    return AngleValue(
        degrees=degrees if isfinite(degrees) else None,
        status=_STATUSES[read.statuses[slot]],
        reasons=_reasons(read, planned, flags) if flags else (),
        keypoint_score=read.scores[slot],
        std_error_deg=std_error if isfinite(std_error) else None,
        reference=planned.choice.reference,
        details=_details(read, slot, planned),
    )


def _reasons(read: _Person, planned: PlannedChoice, flags: int) -> tuple[str, ...]:
    points = ((name, read.points[place]) for name, place in planned.points)
    segments = ((name, read.directions[j]) for name, j in planned.segments)
    return words(flags, points, segments)


def _details(read: _Person, slot: int, planned: PlannedChoice) -> dict[str, float | str]:
    work = read.measured.workings
    line, measurement = work.options.thresholds, work.plan.slots[slot].measurement
    flags, std_error = read.flags[slot], read.std_errors[slot]
    details: dict[str, float | str] = dict(planned.choice.notes)
    for detail in work.plan.slots[slot].details:
        number = (read.ratios if detail.is_ratio else read.rows)[detail.row]
        if isfinite(number) and all(abs(read.rows[row]) <= line.straight_deg for row in detail.straight_rows):
            details[detail.key] = number
    if flags & _RAW_KNOWN and not flags & _RAW_UNKNOWN:
        details[measurement.raw_key] = read.values[slot]
    if flags & _FACING_WITHHELD and planned.choice.angle.offset_deg == 0:
        details["magnitude_deg"] = abs(read.sweep[slot])
    if planned.choice.angle.neutral:
        details["neutral_offset_deg"] = line.neck_neutral_deg
    for view, kind in measurement.kinds:
        if view == read.view:
            details["kind"] = kind
    if not flags & _FATAL and isfinite(std_error):
        details["typical_error_deg"] = hypot(std_error, measurement.form_error_deg)
    return details


def _goniometer(read: _Person, slot: int, side: Side) -> Goniometer:
    work = read.measured.workings
    measurement = work.plan.slots[slot].measurement
    planned = work.plan.slots[slot].choices[read.choice[slot]]
    angle, flags = planned.choice.angle, read.flags[slot]
    vector = complex(work.found.vectors[read.index, work.plan.rows.moving[planned.row]])
    centre = complex(work.found.xy[read.index] @ work.plan.anchors[:, planned.row])
    return Goniometer(
        measurement=measurement,
        side=None if measurement.mirror == "same" else side,
        value=_value(read, slot),
        centre_xy=None if flags & _MISSING else (centre.real, centre.imag),
        moving_xy=None if flags & _RAW_UNKNOWN else (vector.real, vector.imag),
        sweep_deg=read.sweep[slot],
        gravity=isinstance(angle.reference, Vertical) and angle.offset_deg == 0,
    )
