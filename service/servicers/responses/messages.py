"""Domain objects as messages."""

from __future__ import annotations

import numpy as np

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.model import Model
from service.core.poses import DepthSource, Poses
from service.core.topdown import STATURE_M
from service.servicers.responses.points import wire_points
from service.servicers.sides import SIDES
from service.telemetry.call_context import Timings

LIFTED_BY = f"x and y by limb lengths of an adult of {STATURE_M:.2f} m; z is the model's own"

_KEYPOINTS = types_pb2.Person.DESCRIPTOR.fields_by_name["keypoints"]
_POSITIONS = types_pb2.Person.DESCRIPTOR.fields_by_name["positions"]

_DEPTH: dict[DepthSource, types_pb2.DepthSource.ValueType] = {
    "none": types_pb2.DEPTH_SOURCE_NONE,
    "measured": types_pb2.DEPTH_SOURCE_MEASURED,
    "lifted": types_pb2.DEPTH_SOURCE_LIFTED,
}


def persons(poses: Poses, *, min_keypoint_score: float, include_positions: bool) -> list[types_pb2.Person]:
    """One message per person or part, keypoints below `min_keypoint_score` hidden as zeros."""
    with_positions = include_positions and poses.positions is not None
    depth = _DEPTH[poses.depth_source] if with_positions else types_pb2.DEPTH_SOURCE_NONE
    shown = np.where(poses.keypoints[..., 2:] >= min_keypoint_score, poses.keypoints, np.float32(0))
    keypoints = wire_points(_KEYPOINTS, shown)
    positions = None
    if with_positions and poses.positions is not None:
        positions = wire_points(_POSITIONS, poses.positions)
    sides = [""] * len(poses) if poses.sides is None else poses.sides.tolist()
    owners = [-1] * len(poses) if poses.person_index is None else poses.person_index.tolist()
    made = []
    for number, (box, score) in enumerate(zip(poses.boxes_xyxy.tolist(), poses.scores.tolist(), strict=True)):
        person = types_pb2.Person(
            box=_box(box),
            score=score,
            depth_source=depth,
            depth_assumption=LIFTED_BY if depth == types_pb2.DEPTH_SOURCE_LIFTED else "",
            side=SIDES[sides[number]],
            person_index=owners[number] if owners[number] >= 0 else None,
        )
        person.MergeFromString(keypoints[number])
        if positions is not None:
            person.MergeFromString(positions[number])
        made.append(person)
    return made


def _box(box_xyxy: list[float]) -> types_pb2.Box:
    x1, y1, x2, y2 = box_xyxy
    return types_pb2.Box(x1=x1, y1=y1, x2=x2, y2=y2)


def size(size_wh: tuple[int, int]) -> types_pb2.ImageSize:
    """A size (width, height)."""
    return types_pb2.ImageSize(width=size_wh[0], height=size_wh[1])


def timings(stages: Timings, *, total_ms: float) -> pb.Timings:
    """Milliseconds of every stage."""
    return pb.Timings(
        decode_ms=stages.decode_ms,
        preprocess_ms=stages.preprocess_ms,
        inference_ms=stages.inference_ms,
        postprocess_ms=stages.postprocess_ms,
        overlay_ms=stages.draw_ms,
        total_ms=total_ms,
    )


def model(served: Model, *, default: bool, detector: Model | None = None) -> pb.Model:
    """A model as ListModels shows it.

    Args:
        detector: the served model that `served.first_stage` names; None if there is none.
    """
    licences = [served.licence]
    if served.first_stage:
        licences.append(detector.licence if detector is not None else "")
    return pb.Model(
        name=served.name,
        version=served.version,
        family=served.family,
        skeleton=served.skeleton,
        keypoint_count=served.keypoint_count,
        input_sizes=[size((width, height)) for height, width in served.shapes_hw],
        precision=served.precision,
        licence=served.licence,
        weights=served.weights,
        source=served.source,
        sha256=served.sha256,
        description=served.description,
        ready=served.ready,
        default=default,
        positions=served.family == "top_down",
        detector=served.first_stage,
        pipeline_licences=dict.fromkeys(licence or "unknown" for licence in licences)
        if served.family
        else [],
    )
