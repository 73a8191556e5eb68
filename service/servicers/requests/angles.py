"""Requests for angles: what to measure, of whom, and how."""

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
    """Check a request and fill in its defaults.

    Raises:
        InvalidRequest: with every violation.
    """
    found = Violations()
    check_image(found, request.image, present=request.HasField("image"))
    names = read_names(found, request.measurements, required=True)
    side, options = read_angle_options(found, request, names, thresholds)
    index, all_persons = _person(found, request.person)
    min_score = read_min_score(found, request)
    overlay = read_overlay(found, request.overlay)
    if request.overlay_mode not in pb.AngleOverlayMode.values():
        found.add("overlay_mode", f"must be COMBINED, PER_MEASUREMENT or BOTH, not {request.overlay_mode}")
    elif request.overlay_mode and request.overlay.format == types_pb2.OVERLAY_FORMAT_UNSPECIFIED:
        found.add("overlay_mode", "needs an overlay: set overlay.format, or leave it unset")
    found.raise_any()
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
    requested: pb.MeasureAnglesRequest | pb.AngleOptions,
    names: tuple[str, ...],
    thresholds: Thresholds,
    path: str = "",
) -> tuple[SideSelection, AngleOptions]:
    """How angles are measured.

    Args:
        found: collects what is wrong.
        requested: what the caller asked for.
        names: of the measurements.
        thresholds: the service's.
        path: where `requested` stands within the request.
    """
    side = SIDE_SELECTIONS.get(requested.side)
    if side is None:
        found.add(f"{path}side", f"must be LEFT, RIGHT or BOTH, not {requested.side}")
    facing = _FACINGS.get(requested.facing)
    if facing is None:
        found.add(f"{path}facing", f"must be one of the contract's, not {requested.facing}")
    roll = found.number(f"{path}camera_roll_deg", requested.camera_roll_deg, -180, 180)
    baseline = _baseline(found, requested.baseline, names, path)
    if found:  # the request is refused; options would not take what is wrong
        return "both", AngleOptions(thresholds=thresholds)
    return side or "both", AngleOptions(
        thresholds=thresholds,
        facing=facing or "auto",
        mirrored=requested.mirrored,
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
        side = SIDE_SELECTIONS.get(neutral.side)
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
