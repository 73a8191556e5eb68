"""What is wanted of a video or a stream: configs to plans, and the configs in force."""

from __future__ import annotations

import math
from dataclasses import dataclass

from google.protobuf import duration_pb2

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.angles import AngleOptions, SideSelection, Thresholds
from service.core.drawing.poses import OverlayStyle
from service.core.model import Model
from service.core.skeleton.mapping import MappingPlan
from service.media.video_reader import Sampling
from service.pipeline.estimator import DetectionOptions
from service.pipeline.sequence_analyzer import SequenceConfig
from service.pipeline.stream import Policy
from service.servicers.angles import read_angle_options, read_names
from service.servicers.requests.validation import Violations, read_options, read_style

_MOST_FPS = 240.0
_MOST_S = 315_576_000_000  # seconds in a Duration, by its own definition


@dataclass(frozen=True)
class PersonOptions:
    """How people are found and followed; the part that videos and streams share."""

    options: DetectionOptions
    min_keypoint_score: float
    include_positions: bool
    track: bool
    smooth: bool
    names: tuple[str, ...]
    side: SideSelection
    angles: AngleOptions

    def following(self, plan: MappingPlan, *, prominent_only: bool) -> SequenceConfig:
        """What a follower has to do."""
        return SequenceConfig(
            plan=plan,
            track=self.track,
            smooth=self.smooth,
            names=self.names,
            side=self.side,
            angles=self.angles,
            prominent_only=prominent_only,
        )


@dataclass(frozen=True)
class VideoConfig:
    """A valid VideoConfig, defaults filled in."""

    people: PersonOptions
    sampling: Sampling
    flat: bool
    annotated: OverlayStyle | None


@dataclass(frozen=True)
class StreamConfig:
    """A valid StreamConfig, defaults filled in."""

    people: PersonOptions
    policy: Policy


def read_video(config: pb.VideoConfig, *, max_persons: int, thresholds: Thresholds) -> VideoConfig:
    """Check a config and fill in its defaults.

    Raises:
        InvalidRequest: with every violation.
    """
    found = Violations("config.")
    sampling = _sampling(found, config)
    if config.layout not in pb.FrameLayout.values():
        found.add("layout", f"must be PERSONS or FLAT, not {config.layout}")
    if config.annotated_video not in pb.AnnotatedVideo.values():
        found.add("annotated_video", f"must be MP4 or unset, not {config.annotated_video}")
    style = _style(found, config)
    people = _people(found, config, max_persons, thresholds)
    found.raise_any()
    return VideoConfig(
        people=people,
        sampling=sampling,
        flat=config.layout == pb.FRAME_LAYOUT_FLAT,
        annotated=style if config.annotated_video == pb.ANNOTATED_VIDEO_MP4 else None,
    )


def read_stream(config: pb.StreamConfig, *, max_persons: int, thresholds: Thresholds) -> StreamConfig:
    """Check a config and fill in its defaults.

    Raises:
        InvalidRequest: with every violation.
    """
    found = Violations("config.")
    if config.frame_policy not in pb.FramePolicy.values():
        found.add("frame_policy", f"must be EVERY or LATEST, not {config.frame_policy}")
    people = _people(found, config, max_persons, thresholds)
    found.raise_any()
    return StreamConfig(people, "latest" if config.frame_policy == pb.FRAME_POLICY_LATEST else "every")


def effective_video(config: pb.VideoConfig, wish: VideoConfig, model: Model, skeleton: str) -> pb.VideoConfig:
    """The config in force."""
    effective = pb.VideoConfig()
    effective.CopyFrom(config)
    _fill(effective, wish.people, model, skeleton)
    if config.WhichOneof("sampling") is None:
        effective.every_nth_frame = 1
    effective.start.CopyFrom(duration(wish.sampling.start_s))
    effective.layout = pb.FRAME_LAYOUT_FLAT if wish.flat else pb.FRAME_LAYOUT_PERSONS
    if wish.annotated is not None:
        style = wish.annotated
        effective.overlay.line_width = style.line_width
        effective.overlay.boxes, effective.overlay.labels = style.boxes, style.labels
        effective.overlay.min_keypoint_score = style.min_keypoint_score
    return effective


def effective_stream(
    config: pb.StreamConfig, wish: StreamConfig, model: Model, skeleton: str
) -> pb.StreamConfig:
    """The config in force."""
    effective = pb.StreamConfig()
    effective.CopyFrom(config)
    _fill(effective, wish.people, model, skeleton)
    effective.frame_policy = pb.FRAME_POLICY_LATEST if wish.policy == "latest" else pb.FRAME_POLICY_EVERY
    return effective


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a Duration, to the nanosecond."""
    nanos = round(seconds * 1e9)
    whole, rest = divmod(abs(nanos), 1_000_000_000)
    sign = -1 if nanos < 0 else 1  # of both parts, as Duration wants it
    return duration_pb2.Duration(seconds=sign * whole, nanos=sign * rest)


def read_duration(found: Violations, field: str, value: duration_pb2.Duration) -> float:
    """A Duration in seconds; not negative."""
    if abs(value.nanos) >= 1_000_000_000 or abs(value.seconds) > _MOST_S or value.seconds * value.nanos < 0:
        found.add(field, "is not a valid Duration: nanos go up to 999,999,999 and have the sign of seconds")
        return 0.0
    seconds = value.seconds + value.nanos / 1e9
    if seconds < 0:
        found.add(field, f"must be 0 or more, not {seconds:g} s")
    return max(seconds, 0.0)


def _people(
    found: Violations, config: pb.VideoConfig | pb.StreamConfig, max_persons: int, thresholds: Thresholds
) -> PersonOptions:
    options = read_options(found, config, max_persons=max_persons)
    min_keypoint_score = found.number("min_keypoint_score", config.min_keypoint_score, 0)
    track = config.track if config.HasField("track") else True
    if config.smoothing not in pb.Smoothing.values():
        found.add("smoothing", f"must be OFF or ONE_EURO, not {config.smoothing}")
    smooth = config.smoothing == pb.SMOOTHING_ONE_EURO
    if smooth and not track:
        found.add("smoothing", "needs `track`: leave it unset or set it to true")
    names = read_names(found, config.measurements)
    if config.HasField("angle_options") and not "".join(config.measurements).replace(",", "").strip():
        found.add("angle_options", "needs `measurements`: name some, or leave it unset")
    side, angles = read_angle_options(found, config.angle_options, names, thresholds, "angle_options.")
    return PersonOptions(
        options=options,
        min_keypoint_score=min_keypoint_score,
        include_positions=config.include_positions,
        track=track,
        smooth=smooth,
        names=names,
        side=side,
        angles=angles,
    )


def _style(found: Violations, config: pb.VideoConfig) -> OverlayStyle:
    """How the annotated video is drawn; what can be of no effect is refused."""
    wish = config.overlay
    if config.HasField("overlay") and config.annotated_video == pb.ANNOTATED_VIDEO_UNSPECIFIED:
        found.add("overlay", "needs `annotated_video`: set it to MP4, or leave the overlay unset")
    if wish.format != types_pb2.OVERLAY_FORMAT_UNSPECIFIED:
        found.add("overlay.format", "is for single pictures: leave it unset, the video is an MP4")
    if wish.HasField("jpeg_quality"):
        found.add("overlay.jpeg_quality", "is for single pictures: leave it unset")
    if wish.space_panel:
        found.add("overlay.space_panel", "is for DetectPoses, with a model that gives positions")
    return read_style(found, wish)


def _sampling(found: Violations, config: pb.VideoConfig) -> Sampling:
    every_nth, target_fps = 1, None
    chosen = config.WhichOneof("sampling")
    if chosen == "every_nth_frame":
        every_nth = int(found.number("every_nth_frame", config.every_nth_frame, 1))
    elif chosen == "target_fps":
        target_fps = config.target_fps
        if not (math.isfinite(target_fps) and 0 < target_fps <= _MOST_FPS):
            found.add("target_fps", f"must be more than 0 and at most {_MOST_FPS:g}, not {target_fps:g}")
    start_s = read_duration(found, "start", config.start)
    end_s = read_duration(found, "end", config.end) if config.HasField("end") else None
    if end_s is not None and end_s <= start_s:
        found.add("end", f"must be after start, which is {start_s:g} s")
    return Sampling(every_nth=every_nth, target_fps=target_fps, start_s=start_s, end_s=end_s)


def _fill(
    effective: pb.VideoConfig | pb.StreamConfig, people: PersonOptions, model: Model, skeleton: str
) -> None:
    effective.model, effective.model_version, effective.skeleton = model.name, model.version, skeleton
    effective.min_score, effective.iou_threshold = people.options.min_score, people.options.iou_threshold
    effective.max_persons = people.options.max_persons
    effective.min_keypoint_score = people.min_keypoint_score
    effective.track = people.track
    effective.smoothing = pb.SMOOTHING_ONE_EURO if people.smooth else pb.SMOOTHING_OFF
    del effective.measurements[:]
    effective.measurements.extend(people.names)
    if people.names and effective.angle_options.side == types_pb2.SIDE_UNSPECIFIED:
        effective.angle_options.side = types_pb2.SIDE_BOTH
