"""Measured angles as messages."""

from __future__ import annotations

from collections.abc import Sequence

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.angles import AngleValue, MeasurementResult, PersonMeasures, Status
from service.core.model import PoseModel
from service.pipeline.angles import AngleReport
from service.pipeline.estimator import Estimate
from service.pipeline.overlay import Overlay
from service.servicers.responses import messages
from service.servicers.responses.overlays import overlay_message
from service.telemetry.call_context import Timings

_FACINGS: dict[str, pb.Facing.ValueType] = {
    "toward": pb.FACING_TOWARD_CAMERA,
    "away": pb.FACING_AWAY_FROM_CAMERA,
    "left": pb.FACING_IMAGE_LEFT,
    "right": pb.FACING_IMAGE_RIGHT,
    "unknown": pb.FACING_UNSPECIFIED,
}
_STATUSES = {
    Status.OK: pb.ANGLE_STATUS_OK,
    Status.DEGRADED: pb.ANGLE_STATUS_DEGRADED,
    Status.UNAVAILABLE: pb.ANGLE_STATUS_UNAVAILABLE,
}
_POSTURES: dict[str, pb.Posture.ValueType] = {
    "unknown": pb.POSTURE_UNSPECIFIED,
    "standing": pb.POSTURE_STANDING,
    "squatting": pb.POSTURE_SQUATTING,
    "sitting": pb.POSTURE_SITTING,
    "lying": pb.POSTURE_LYING,
}
_VIEWS = {"frontal": pb.VIEW_FRONTAL, "sagittal": pb.VIEW_SAGITTAL, "oblique": pb.VIEW_OBLIQUE}


def angles_response(
    report: AngleReport, estimate: Estimate, model: PoseModel, timings: Timings, total_ms: float
) -> pb.MeasureAnglesResponse:
    """Measured persons as the answer of MeasureAngles. CPU work, for a worker thread."""
    persons = messages.persons(report.poses, min_keypoint_score=0.0, include_positions=False)
    return pb.MeasureAnglesResponse(
        image_size=messages.size(estimate.size_wh),
        persons=[
            _person_message(measures, person, number, report.overlays[place] if report.overlays else ())
            for place, (measures, person, number) in enumerate(
                zip(report.measures, persons, report.numbers, strict=True)
            )
        ],
        overlay=overlay_message(report.overlay) if report.overlay is not None else None,
        persons_found=len(estimate.poses),
        skeleton=model.skeleton.name,
        model=model.model.name,
        model_version=model.model.version,
        timings=messages.timings(timings, total_ms=total_ms),
    )


def _person_message(
    person: PersonMeasures, message: types_pb2.Person, number: int, overlays: Sequence[Overlay]
) -> pb.PersonAngles:
    measurements = [_measurement(result, person) for result in person.results]
    for measurement, overlay in zip(measurements, overlays, strict=False):  # there may be no overlays
        measurement.overlay.CopyFrom(overlay_message(overlay))
    return pb.PersonAngles(
        person_index=number,
        person=message,
        measurements=measurements,
        facing=_FACINGS[person.facing],
        swap_suspected=person.swap_suspected,
        facing_score=person.facing_score,
        posture=_POSTURES[person.posture],
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
