"""Requests for angles: measurements, persons and options."""

from __future__ import annotations

from collections.abc import Sequence

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.angles import (
    MEASUREMENTS,
    AngleOptions,
    Neutral,
    Side,
    SideSelection,
    Thresholds,
    parse_names,
)
from service.core.angles import Facing as FacingOption
from service.errors import InvalidRequest
from service.pipeline.angles import AngleRequest
from service.pipeline.estimator import DetectionOptions
from service.servicers.requests.validation import (
    DEFAULT_IOU_THRESHOLD,
    Violations,
    check_image,
    read_min_score,
    read_overlay,
)
from service.servicers.sides import SIDE_SELECTIONS

_FACINGS: dict[int, FacingOption] = {
    pb.FACING_UNSPECIFIED: "auto",
    pb.FACING_TOWARD_CAMERA: "toward",
    pb.FACING_AWAY_FROM_CAMERA: "away",
    pb.FACING_IMAGE_LEFT: "left",
    pb.FACING_IMAGE_RIGHT: "right",
}
_OVERLAY_EACH = (pb.ANGLE_OVERLAY_MODE_PER_MEASUREMENT, pb.ANGLE_OVERLAY_MODE_BOTH)


def read_measuring(
    request: pb.MeasureAnglesRequest, *, max_persons: int, thresholds: Thresholds
) -> AngleRequest:
    """Check a MeasureAnglesRequest and fill in its defaults.

    Raises:
        InvalidRequest: with every violation.
    """
    violations = Violations()
    check_image(violations, request.image, present=request.HasField("image"))
    names = read_names(violations, request.measurements, required=True)
    side, options = read_angle_options(violations, request, names, thresholds)
    index, all_persons = _person(violations, request.person)
    min_score = read_min_score(violations, request)
    overlay = read_overlay(violations, request.overlay)
    if request.overlay_mode not in pb.AngleOverlayMode.values():
        violations.add(
            "overlay_mode", f"must be COMBINED, PER_MEASUREMENT or BOTH, not {request.overlay_mode}"
        )
    elif request.overlay_mode and request.overlay.format == types_pb2.OVERLAY_FORMAT_UNSPECIFIED:
        violations.add("overlay_mode", "needs an overlay: set overlay.format, or leave it unset")
    violations.raise_any()
    return AngleRequest(
        names=names,
        side=side,
        detection=DetectionOptions(
            min_score=min_score, iou_threshold=DEFAULT_IOU_THRESHOLD, max_persons=max_persons
        ),
        options=options,
        index=index,
        all_persons=all_persons,
        overlay=overlay,
        overlay_all=request.overlay_mode != pb.ANGLE_OVERLAY_MODE_PER_MEASUREMENT,
        overlay_each=request.overlay_mode in _OVERLAY_EACH,
    )


def read_names(
    violations: Violations, measurements: Sequence[str], *, required: bool = False
) -> tuple[str, ...]:
    """Read the names of measurements; with `required` there must be one at least."""
    try:
        names = parse_names(measurements)
    except InvalidRequest as error:
        unknown = ", ".join(violation.description for violation in error.violations)
        violations.add("measurements", f"holds {unknown}; must be of: {', '.join(MEASUREMENTS)}")
        return ()
    if required and not names:
        violations.add("measurements", "must name at least one measurement")
    return names


def read_angle_options(
    violations: Violations,
    requested: pb.MeasureAnglesRequest | pb.AngleOptions,
    names: tuple[str, ...],
    thresholds: Thresholds,
    path: str = "",
) -> tuple[SideSelection, AngleOptions]:
    """Read the options of measuring, defaults filled in.

    Args:
        violations: collects the violations of the request.
        requested: the message with the options.
        names: of the measurements.
        thresholds: of the service.
        path: prefix of the fields of `requested` within the request, such as `angles.`.
    """
    side = SIDE_SELECTIONS.get(requested.side)
    if side is None:
        violations.add(f"{path}side", f"must be LEFT, RIGHT or BOTH, not {requested.side}")
    facing = _FACINGS.get(requested.facing)
    if facing is None:
        violations.add(f"{path}facing", f"must be one of the contract's, not {requested.facing}")
    roll = violations.number(f"{path}camera_roll_deg", requested.camera_roll_deg, -180, 180)
    baseline = _baseline(violations, requested.baseline, names, path)
    if violations:  # the request is refused; options would not take what is wrong
        return "both", AngleOptions(thresholds=thresholds)
    return side or "both", AngleOptions(
        thresholds=thresholds,
        facing=facing or "auto",
        mirrored=requested.mirrored,
        camera_roll_deg=roll,
        baseline=baseline,
    )


def _baseline(
    violations: Violations, wanted: Sequence[pb.BaselineAngle], names: tuple[str, ...], root: str
) -> dict[tuple[str, Side], Neutral]:
    baseline: dict[tuple[str, Side], Neutral] = {}
    for number, neutral in enumerate(wanted):
        path = f"{root}baseline[{number}]"
        name = neutral.name.strip().lower()
        if name not in names:
            violations.add(f"{path}.name", f"'{neutral.name}' is not among the measurements asked for")
        degrees = violations.number(f"{path}.degrees", neutral.degrees, -360, 360)
        error = violations.number(f"{path}.std_error_deg", neutral.std_error_deg, 0, 360)
        side = SIDE_SELECTIONS.get(neutral.side)
        if side is None:
            violations.add(f"{path}.side", f"must be LEFT, RIGHT or BOTH, not {neutral.side}")
            continue
        both: tuple[Side, ...] = ("left", "right")
        for each in both if side == "both" else (side,):
            if (name, each) in baseline:
                violations.add(path, f"is given twice for {name}, {each}")
            baseline[name, each] = Neutral(degrees=degrees, std_error_deg=error)
    return baseline


def _person(violations: Violations, selection: pb.PersonSelection) -> tuple[int | None, bool]:
    if selection.WhichOneof("selection") == "index":
        if selection.index < 0:
            violations.add("person.index", f"must be 0 or more, not {selection.index}")
        return selection.index, False
    if selection.choice not in pb.PersonChoice.values():
        violations.add("person.choice", f"must be LARGEST or ALL, not {selection.choice}")
    return None, selection.choice == pb.PERSON_CHOICE_ALL
