"""Configs in force: the caller's configs with every default filled in."""

from __future__ import annotations

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.model import Model
from service.servicers.requests.video_config import PersonOptions, StreamOptions, VideoOptions
from service.servicers.responses.durations import duration


def effective_video(
    config: pb.VideoConfig, options: VideoOptions, model: Model, skeleton: str
) -> pb.VideoConfig:
    """The config in force of a video."""
    effective = pb.VideoConfig()
    effective.CopyFrom(config)
    _fill(effective, options.persons, model, skeleton)
    if config.WhichOneof("sampling") is None:
        effective.every_nth_frame = 1
    effective.start.CopyFrom(duration(options.sampling.start_s))
    effective.layout = pb.FRAME_LAYOUT_FLAT if options.flat else pb.FRAME_LAYOUT_PERSONS
    if options.overlay is not None:
        style = options.overlay
        effective.overlay.line_width = style.line_width
        effective.overlay.boxes, effective.overlay.labels = style.boxes, style.labels
        effective.overlay.min_keypoint_score = style.min_keypoint_score
    return effective


def effective_stream(
    config: pb.StreamConfig, options: StreamOptions, model: Model, skeleton: str
) -> pb.StreamConfig:
    """The config in force of a stream."""
    effective = pb.StreamConfig()
    effective.CopyFrom(config)
    _fill(effective, options.persons, model, skeleton)
    latest = options.policy == "latest"
    effective.frame_policy = pb.FRAME_POLICY_LATEST if latest else pb.FRAME_POLICY_EVERY
    return effective


def _fill(
    effective: pb.VideoConfig | pb.StreamConfig, persons: PersonOptions, model: Model, skeleton: str
) -> None:
    effective.model, effective.model_version, effective.skeleton = model.name, model.version, skeleton
    effective.min_score = persons.detection.min_score
    effective.iou_threshold = persons.detection.iou_threshold
    effective.max_persons = persons.detection.max_persons
    effective.min_keypoint_score = persons.min_keypoint_score
    effective.track = persons.track
    effective.smoothing = pb.SMOOTHING_ONE_EURO if persons.smooth else pb.SMOOTHING_OFF
    del effective.measurements[:]
    effective.measurements.extend(persons.measurements)
    if persons.measurements and effective.angle_options.side == types_pb2.SIDE_UNSPECIFIED:
        effective.angle_options.side = types_pb2.SIDE_BOTH
