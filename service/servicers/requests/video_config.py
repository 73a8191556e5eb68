"""Configs of AnalyzeVideo and StreamPoses: checked, defaults filled in, and as requests of the use cases."""

from __future__ import annotations

import math
from dataclasses import dataclass

from google.protobuf import duration_pb2

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.angles import AngleOptions, SideSelection, Thresholds
from service.core.drawing.poses import OverlayStyle
from service.core.model import PoseModel
from service.core.skeleton.mapping import MappingPlan
from service.media.frame_sampler import Sampling
from service.pipeline.estimator import DetectionOptions
from service.pipeline.sequence_analyzer import SequenceConfig
from service.pipeline.stream import FramePolicy, StreamRequest
from service.pipeline.video.request import VideoRequest
from service.servicers.requests.angles import read_angle_options, read_names
from service.servicers.requests.validation import Violations, read_options, read_style

_MAX_FPS = 240.0
_MAX_S = 315_576_000_000  # of a Duration, by its definition
_NANOS = 1_000_000_000


@dataclass(frozen=True)
class PersonOptions:
    """Options that videos and streams share.

    Attributes:
        detection: of the persons on one frame.
        min_keypoint_score: keypoints below are sent as zeros.
        include_positions: send positions in metres where the model gives them.
        track: number the persons.
        smooth: send smoothed keypoints and angles too.
        measurements: names of angles; may be empty.
        side: of the measurements.
        angles: how they are taken.
    """

    detection: DetectionOptions
    min_keypoint_score: float
    include_positions: bool
    track: bool
    smooth: bool
    measurements: tuple[str, ...]
    side: SideSelection
    angles: AngleOptions

    def sequence(self, plan: MappingPlan, *, prominent_only: bool) -> SequenceConfig:
        """Config of the sequence analyzer."""
        return SequenceConfig(
            plan=plan,
            track=self.track,
            smooth=self.smooth,
            measurements=self.measurements,
            side=self.side,
            angles=self.angles,
            prominent_only=prominent_only,
        )


@dataclass(frozen=True)
class VideoOptions:
    """A valid VideoConfig, defaults filled in.

    Attributes:
        persons: options shared with streams.
        sampling: which frames are analysed.
        flat: layout FLAT: one row of numbers of the most prominent person.
        overlay: style of the annotated video; None for no such video.
        strict: end with an error at the first damage of the file.
    """

    persons: PersonOptions
    sampling: Sampling
    flat: bool
    overlay: OverlayStyle | None
    strict: bool

    def request(self, model: PoseModel, plan: MappingPlan) -> VideoRequest:
        """Request of the use case, with the model and the skeletons that the config names."""
        return VideoRequest(
            model=model,
            options=self.persons.detection,
            sampling=self.sampling,
            sequence=self.persons.sequence(plan, prominent_only=self.flat),
            overlay=self.overlay,
            strict=self.strict,
        )


@dataclass(frozen=True)
class StreamOptions:
    """A valid StreamConfig, defaults filled in.

    Attributes:
        persons: options shared with videos.
        policy: which frames are answered.
    """

    persons: PersonOptions
    policy: FramePolicy

    def request(self, model: PoseModel, plan: MappingPlan) -> StreamRequest:
        """Request of the use case, with the model and the skeletons that the config names."""
        return StreamRequest(
            model=model,
            options=self.persons.detection,
            sequence=self.persons.sequence(plan, prominent_only=False),
            policy=self.policy,
        )


def read_video(config: pb.VideoConfig, *, max_persons: int, thresholds: Thresholds) -> VideoOptions:
    """Check a config and fill in its defaults.

    Raises:
        InvalidRequest: with every violation.
    """
    violations = Violations("config.")
    sampling = _sampling(violations, config)
    if config.layout not in pb.FrameLayout.values():
        violations.add("layout", f"must be PERSONS or FLAT, not {config.layout}")
    if config.annotated_video not in pb.AnnotatedVideo.values():
        violations.add("annotated_video", f"must be MP4 or unset, not {config.annotated_video}")
    style = _style(violations, config)
    persons = _persons(violations, config, max_persons, thresholds)
    violations.raise_any()
    return VideoOptions(
        persons=persons,
        sampling=sampling,
        flat=config.layout == pb.FRAME_LAYOUT_FLAT,
        overlay=style if config.annotated_video == pb.ANNOTATED_VIDEO_MP4 else None,
        strict=config.strict,
    )


def read_stream(config: pb.StreamConfig, *, max_persons: int, thresholds: Thresholds) -> StreamOptions:
    """Check a config and fill in its defaults.

    Raises:
        InvalidRequest: with every violation.
    """
    violations = Violations("config.")
    if config.frame_policy not in pb.FramePolicy.values():
        violations.add("frame_policy", f"must be EVERY or LATEST, not {config.frame_policy}")
    persons = _persons(violations, config, max_persons, thresholds)
    violations.raise_any()
    return StreamOptions(persons, "latest" if config.frame_policy == pb.FRAME_POLICY_LATEST else "every")


def read_duration(violations: Violations, field: str, value: duration_pb2.Duration) -> float:
    """A Duration in seconds; not negative."""
    return read_duration_ns(violations, field, value) / _NANOS


def read_duration_ns(violations: Violations, field: str, value: duration_pb2.Duration) -> int:
    """A Duration in nanoseconds; not negative."""
    if abs(value.nanos) >= _NANOS or abs(value.seconds) > _MAX_S or value.seconds * value.nanos < 0:
        violations.add(
            field, "is not a valid Duration: nanos go up to 999,999,999 and have the sign of seconds"
        )
        return 0
    nanoseconds = value.seconds * _NANOS + value.nanos
    if nanoseconds < 0:
        violations.add(field, f"must be 0 or more, not {nanoseconds / _NANOS:g} s")
    return max(nanoseconds, 0)


def _persons(
    violations: Violations, config: pb.VideoConfig | pb.StreamConfig, max_persons: int, thresholds: Thresholds
) -> PersonOptions:
    detection = read_options(violations, config, max_persons=max_persons)
    min_keypoint_score = violations.number("min_keypoint_score", config.min_keypoint_score, 0)
    track = config.track if config.HasField("track") else True
    if config.smoothing not in pb.Smoothing.values():
        violations.add("smoothing", f"must be OFF or ONE_EURO, not {config.smoothing}")
    smooth = config.smoothing == pb.SMOOTHING_ONE_EURO
    if smooth and not track:
        violations.add("smoothing", "needs `track`: leave it unset or set it to true")
    names = read_names(violations, config.measurements)
    if config.HasField("angle_options") and not "".join(config.measurements).replace(",", "").strip():
        violations.add("angle_options", "needs `measurements`: name some, or leave it unset")
    side, angles = read_angle_options(violations, config.angle_options, names, thresholds, "angle_options.")
    return PersonOptions(
        detection=detection,
        min_keypoint_score=min_keypoint_score,
        include_positions=config.include_positions,
        track=track,
        smooth=smooth,
        measurements=names,
        side=side,
        angles=angles,
    )


def _style(violations: Violations, config: pb.VideoConfig) -> OverlayStyle:
    """Style of the annotated video; fields without an effect on it are refused."""
    overlay = config.overlay
    if config.HasField("overlay") and config.annotated_video == pb.ANNOTATED_VIDEO_UNSPECIFIED:
        violations.add("overlay", "needs `annotated_video`: set it to MP4, or leave the overlay unset")
    if overlay.format != types_pb2.OVERLAY_FORMAT_UNSPECIFIED:
        violations.add("overlay.format", "is for single images: leave it unset, the video is an MP4")
    if overlay.HasField("jpeg_quality"):
        violations.add("overlay.jpeg_quality", "is for single images: leave it unset")
    if overlay.space_panel:
        violations.add("overlay.space_panel", "is for DetectPoses, with a model that gives positions")
    return read_style(violations, overlay)


def _sampling(violations: Violations, config: pb.VideoConfig) -> Sampling:
    every_nth, target_fps = 1, None
    chosen = config.WhichOneof("sampling")
    if chosen == "every_nth_frame":
        every_nth = int(violations.number("every_nth_frame", config.every_nth_frame, 1))
    elif chosen == "target_fps":
        target_fps = config.target_fps
        if not (math.isfinite(target_fps) and 0 < target_fps <= _MAX_FPS):
            violations.add("target_fps", f"must be more than 0 and at most {_MAX_FPS:g}, not {target_fps:g}")
    start_s = read_duration(violations, "start", config.start)
    end_s = read_duration(violations, "end", config.end) if config.HasField("end") else None
    if end_s is not None and end_s <= start_s:
        violations.add("end", f"must be after start, which is {start_s:g} s")
    return Sampling(every_nth=every_nth, target_fps=target_fps, start_s=start_s, end_s=end_s)
