"""MeasureAngles: the joint angles of the people in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.angles import (
    MEASUREMENTS,
    AngleOptions,
    AngleValue,
    Measured,
    MeasurementResult,
    Neutral,
    PersonMeasures,
    Side,
    SideSelection,
    Status,
    Thresholds,
    goniometers,
    measure,
    parse_names,
    person_measures,
)
from service.core.angles import Facing as FacingWish
from service.core.cancellation import checkpoint
from service.core.drawing.angles import draw_angles
from service.core.drawing.poses import draw_poses
from service.core.geometry import Rgb8
from service.core.poses import Poses
from service.core.skeleton.template import Skeleton
from service.errors import InvalidRequest
from service.media.image import MEDIA_TYPES, encode
from service.pipeline.estimator import DetectionOptions, Estimate
from service.servicers.requests.validation import OverlayConfig, Violations, check_image, read_overlay
from service.servicers.responses import messages
from service.telemetry.call_context import StageTimer

MAX_OVERLAYS = 64
"""In one call, with an overlay for each measurement."""

_SIDES: dict[int, SideSelection] = {
    types_pb2.SIDE_UNSPECIFIED: "both",
    types_pb2.SIDE_BOTH: "both",
    types_pb2.SIDE_LEFT: "left",
    types_pb2.SIDE_RIGHT: "right",
}
_FACINGS: dict[int, FacingWish] = {
    pb.FACING_UNSPECIFIED: "auto",
    pb.FACING_TOWARD_CAMERA: "toward",
    pb.FACING_AWAY_FROM_CAMERA: "away",
    pb.FACING_IMAGE_LEFT: "left",
    pb.FACING_IMAGE_RIGHT: "right",
}
_FACING_FOUND: dict[str, pb.Facing.ValueType] = {
    "toward": pb.FACING_TOWARD_CAMERA,
    "away": pb.FACING_AWAY_FROM_CAMERA,
    "left": pb.FACING_IMAGE_LEFT,
    "right": pb.FACING_IMAGE_RIGHT,
    "unknown": pb.FACING_UNSPECIFIED,
}
_ONE_EACH = (pb.ANGLE_OVERLAY_MODE_PER_MEASUREMENT, pb.ANGLE_OVERLAY_MODE_BOTH)
_STATUSES = {
    Status.OK: pb.ANGLE_STATUS_OK,
    Status.DEGRADED: pb.ANGLE_STATUS_DEGRADED,
    Status.UNAVAILABLE: pb.ANGLE_STATUS_UNAVAILABLE,
}
_VIEWS = {"frontal": pb.VIEW_FRONTAL, "sagittal": pb.VIEW_SAGITTAL, "oblique": pb.VIEW_OBLIQUE}


@dataclass(frozen=True)
class AngleConfig:
    """A valid MeasureAnglesRequest, defaults filled in.

    Attributes:
        names: measurements, in the order asked for.
        side: sides to answer.
        detection: how people are found.
        options: how the picture is read; its size is not known yet.
        index: the person asked for by number, or None.
        everybody: all people instead of the largest.
        overlay: what to draw, or None.
        one_each: an overlay per measurement.
        combined: an overlay with all measurements.
    """

    names: tuple[str, ...]
    side: SideSelection
    detection: DetectionOptions
    options: AngleOptions
    index: int | None
    everybody: bool
    overlay: OverlayConfig | None
    one_each: bool
    combined: bool


def read_measuring(
    request: pb.MeasureAnglesRequest, *, max_persons: int, thresholds: Thresholds
) -> AngleConfig:
    """Check a request and fill in its defaults.

    Raises:
        InvalidRequest: with every violation.
    """
    found = Violations()
    check_image(found, request.image, present=request.HasField("image"))
    names = read_names(found, request.measurements, required=True)
    side, options = read_angle_options(found, request, names, thresholds)
    index, everybody = _person(found, request.person)
    min_score = found.number("min_score", request.min_score if request.HasField("min_score") else 0.25, 0, 1)
    overlay = read_overlay(found, request.overlay)
    if request.overlay_mode not in pb.AngleOverlayMode.values():
        found.add("overlay_mode", f"must be COMBINED, PER_MEASUREMENT or BOTH, not {request.overlay_mode}")
    elif request.overlay_mode and request.overlay.format == types_pb2.OVERLAY_FORMAT_UNSPECIFIED:
        found.add("overlay_mode", "needs an overlay: set overlay.format, or leave it unset")
    found.raise_any()
    return AngleConfig(
        names=names,
        side=side,
        detection=DetectionOptions(min_score=min_score, iou_threshold=0.7, max_persons=max_persons),
        options=options,
        index=index,
        everybody=everybody,
        overlay=overlay,
        one_each=request.overlay_mode in _ONE_EACH,
        combined=request.overlay_mode != pb.ANGLE_OVERLAY_MODE_PER_MEASUREMENT,
    )


def read_names(found: Violations, measurements: Sequence[str], *, required: bool = False) -> tuple[str, ...]:
    """The measurements asked for; none is fine unless one is `required`."""
    try:
        names = parse_names(measurements)
    except InvalidRequest as error:
        unknown = ", ".join(violation.description for violation in error.violations)
        found.add("measurements", f"holds {unknown}; must be of: {', '.join(MEASUREMENTS)}")
        return ()
    if required and not names:
        found.add("measurements", "must name at least one measurement")
    return names


def read_angle_options(
    found: Violations,
    wish: pb.MeasureAnglesRequest | pb.AngleOptions,
    names: tuple[str, ...],
    thresholds: Thresholds,
    path: str = "",
) -> tuple[SideSelection, AngleOptions]:
    """How angles are taken.

    Args:
        found: collects what is wrong.
        wish: what the caller asked for.
        names: of the measurements.
        thresholds: the service's.
        path: where `wish` stands within the request.
    """
    side = _SIDES.get(wish.side)
    if side is None:
        found.add(f"{path}side", f"must be LEFT, RIGHT or BOTH, not {wish.side}")
    facing = _FACINGS.get(wish.facing)
    if facing is None:
        found.add(f"{path}facing", f"must be one of the contract's, not {wish.facing}")
    roll = found.number(f"{path}camera_roll_deg", wish.camera_roll_deg, -180, 180)
    baseline = _baseline(found, wish.baseline, names, path)
    if found:  # the request is refused; options would not take what is wrong
        return "both", AngleOptions(thresholds=thresholds)
    return side or "both", AngleOptions(
        thresholds=thresholds,
        facing=facing or "auto",
        mirrored=wish.mirrored,
        camera_roll_deg=roll,
        baseline=baseline,
    )


def _baseline(
    found: Violations, wanted: Sequence[pb.BaselineAngle], names: tuple[str, ...], root: str
) -> dict[tuple[str, Side], Neutral]:
    baseline: dict[tuple[str, Side], Neutral] = {}
    for number, neutral in enumerate(wanted):
        path = f"{root}baseline[{number}]"
        name = neutral.name.strip().lower()
        if name not in names:
            found.add(f"{path}.name", f"'{neutral.name}' is not among the measurements asked for")
        degrees = found.number(f"{path}.degrees", neutral.degrees, -360, 360)
        error = found.number(f"{path}.std_error_deg", neutral.std_error_deg, 0, 360)
        side = _SIDES.get(neutral.side)
        if side is None:
            found.add(f"{path}.side", f"must be LEFT, RIGHT or BOTH, not {neutral.side}")
            continue
        both: tuple[Side, ...] = ("left", "right")
        for each in both if side == "both" else (side,):
            if (name, each) in baseline:
                found.add(path, f"is given twice for {name}, {each}")
            baseline[name, each] = Neutral(degrees=degrees, std_error_deg=error)
    return baseline


def _person(found: Violations, selection: pb.PersonSelection) -> tuple[int | None, bool]:
    if selection.WhichOneof("selection") == "index":
        if selection.index < 0:
            found.add("person.index", f"must be 0 or more, not {selection.index}")
        return selection.index, False
    if selection.choice not in pb.PersonChoice.values():
        found.add("person.choice", f"must be LARGEST or ALL, not {selection.choice}")
    return None, selection.choice == pb.PERSON_CHOICE_ALL


def choose(poses: Poses, wish: AngleConfig) -> list[int]:
    """Numbers of the people to measure, by falling score."""
    if not len(poses):
        return []
    if wish.index is not None:
        return [wish.index] if wish.index < len(poses) else []
    if wish.everybody:
        return list(range(len(poses)))
    sides = poses.boxes_xyxy[:, 2:] - poses.boxes_xyxy[:, :2]
    return [int(np.argmax(sides.prod(axis=1)))]


def answer(
    estimated: Estimate, skeleton: Skeleton, wish: AngleConfig, timer: StageTimer
) -> pb.MeasureAnglesResponse:
    """Measure the people chosen and draw what was asked for. CPU work, for a worker thread.

    Args:
        estimated: the people, and the picture if there is something to draw.
        skeleton: the model's own.
        wish: what was asked for.
        timer: gets what measuring and drawing took.

    Returns:
        The answer but for the model's name and the total time.
    """
    with timer.timed("postprocess"):
        chosen = choose(estimated.poses, wish)
        poses = estimated.poses.select(np.array(chosen, np.intp))
        measured = measure(
            poses, skeleton, wish.names, replace(wish.options, size_wh=estimated.size_wh), side=wish.side
        )
        if wish.overlay is not None and wish.one_each:
            _check_overlays(len(chosen), len(wish.names))
        people = messages.persons(poses, min_keypoint_score=0.0, include_positions=False)
        persons = [
            _person_message(person_measures(measured, place), person, number)
            for place, (number, person) in enumerate(zip(chosen, people, strict=True))
        ]
    overlay = None
    if wish.overlay is not None and estimated.image is not None:
        with timer.timed("draw"):
            # Of one person the angles say enough; of several, the box says who each is.
            labels = wish.overlay.style.labels and len(chosen) > 1
            style = replace(wish.overlay.style, labels=labels)
            base = draw_poses(estimated.image, poses, skeleton, style, numbers=chosen)
            if wish.one_each:
                for place, person in enumerate(persons):
                    for each in person.measurements:
                        checkpoint()
                        each.overlay.CopyFrom(_draw(base, measured, [place], (each.name,), wish.overlay))
            if wish.combined:
                overlay = _draw(base, measured, list(range(len(chosen))), None, wish.overlay)
    return pb.MeasureAnglesResponse(
        image_size=messages.size(estimated.size_wh),
        persons=persons,
        overlay=overlay,
        persons_found=len(estimated.poses),
        skeleton=skeleton.name,
        timings=messages.timings(timer.timings(), total_ms=0.0),
    )


def _check_overlays(people: int, measurements: int) -> None:
    """Each is a whole picture, drawn and encoded."""
    if people * measurements > MAX_OVERLAYS:
        raise InvalidRequest(
            f"{people} people and {measurements} measurements make {people * measurements} overlays; at most "
            f"{MAX_OVERLAYS} are drawn in one call: ask for fewer, or for COMBINED.",
            reason="TOO_MANY_OVERLAYS",
            metadata={"limit": str(MAX_OVERLAYS), "actual": str(people * measurements)},
        )


def _draw(
    base: Rgb8, measured: Measured, places: list[int], names: tuple[str, ...] | None, wish: OverlayConfig
) -> types_pb2.Overlay:
    dials = [dial for place in places for dial in goniometers(measured, place, names)]
    drawn = draw_angles(base, dials, labels=wish.style.labels)
    return types_pb2.Overlay(
        content=encode(drawn, wish.media_format, jpeg_quality=wish.jpeg_quality),
        media_type=MEDIA_TYPES[wish.media_format],
        size=messages.size((drawn.shape[1], drawn.shape[0])),
    )


def _person_message(person: PersonMeasures, found: types_pb2.Person, number: int) -> pb.PersonAngles:
    return pb.PersonAngles(
        person_index=number,
        person=found,
        measurements=[_measurement(result, person) for result in person.results],
        facing=_FACING_FOUND[person.facing],
        swap_suspected=person.swap_suspected,
    )


def _measurement(result: MeasurementResult, person: PersonMeasures) -> pb.AngleMeasurement:
    measurement = result.measurement
    return pb.AngleMeasurement(
        name=measurement.name,
        title=measurement.title,
        body_part=measurement.body_part,
        left=value_message(result.left),
        right=value_message(result.right),
        view=pb.ViewCheck(
            required=_VIEWS.get(measurement.view, pb.VIEW_UNSPECIFIED),
            detected=_VIEWS.get(person.view, pb.VIEW_UNSPECIFIED),
            score=person.view_score,
        ),
        extension=measurement.extension,
    )


def value_message(value: AngleValue | None) -> pb.AngleValue | None:
    """One side's value; None for a side that was not asked for."""
    if value is None:
        return None
    details = {name: number for name, number in value.details.items() if not isinstance(number, str)}
    notes = {name: word for name, word in value.details.items() if isinstance(word, str)}
    return pb.AngleValue(
        degrees=value.degrees,
        status=_STATUSES[value.status],
        reasons=value.reasons,
        keypoint_score=value.keypoint_score,
        std_error_deg=value.std_error_deg,
        reference=value.reference,
        details=details,
        notes=notes,
    )
