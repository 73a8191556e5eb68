"""Persons over time as messages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.angles import Side
from service.core.poses import Floats
from service.core.sequence.motion import symmetry
from service.core.sequence.recording import MeasurementMotion, SideMotion
from service.pipeline.sequence_analyzer import FrameAnalysis, PersonAngles
from service.servicers.requests.video_config import PersonOptions
from service.servicers.responses import messages
from service.servicers.responses.angles import value_message
from service.servicers.responses.durations import duration


def tracked_persons(analysis: FrameAnalysis, options: PersonOptions) -> list[types_pb2.Person]:
    """One message per person or part, with its track id and its smoothed keypoints."""
    persons = messages.persons(
        analysis.poses,
        min_keypoint_score=options.min_keypoint_score,
        include_positions=options.include_positions,
    )
    if analysis.track_ids is not None:
        for place, person in enumerate(persons):
            person.track_id = analysis.track_ids[analysis.owner(place)]
    if analysis.smoothed is not None:
        for person, points in zip(persons, _hidden(analysis.smoothed, options).tolist(), strict=True):
            person.smoothed_keypoints.extend(types_pb2.Keypoint(x=x, y=y, score=s) for x, y, s in points)
    return persons


def flat_values(
    analysis: FrameAnalysis, options: PersonOptions, keypoint_count: int
) -> tuple[list[float], list[float]]:
    """n_kpts × 6 numbers of the most prominent person, raw and smoothed; the second empty without smoothing.

    All are 0 while that person is out of sight.
    """
    zeros = np.zeros(keypoint_count * 6, np.float32)
    place = _prominent_place(analysis)
    smooth = analysis.smoothed is not None or (options.smooth and place is None)
    if place is None:
        return zeros.tolist(), zeros.tolist() if smooth else []
    positions = np.zeros((keypoint_count, 3), np.float32)
    if analysis.poses.positions is not None:
        positions = np.nan_to_num(analysis.poses.positions[place], nan=0.0, posinf=0.0, neginf=0.0)
    raw = np.concatenate([_hidden(analysis.poses.keypoints[place], options).ravel(), positions.ravel()])
    if analysis.smoothed is None:
        return raw.tolist(), []
    smoothed = np.concatenate([_hidden(analysis.smoothed[place], options).ravel(), positions.ravel()])
    return raw.tolist(), smoothed.tolist()


def frame_angles(analysis: FrameAnalysis, *, flat: bool) -> list[pb.FrameAngle]:
    """One message for each person and measurement."""
    return [
        message
        for seen in analysis.angles
        for message in _angles_of(
            seen,
            person_index=0 if flat else seen.place,
            track_id=analysis.track_ids[seen.place] if analysis.track_ids is not None else None,
        )
    ]


def motions(seen: Sequence[MeasurementMotion]) -> list[pb.MeasurementSummary]:
    """Measurements over time."""
    return [
        pb.MeasurementSummary(
            name=one.measurement.name,
            title=one.measurement.title,
            body_part=one.measurement.body_part,
            track_id=one.track_id,
            left=_side(one.left),
            right=_side(one.right),
            symmetry=_symmetry(one),
        )
        for one in seen
    ]


def _hidden(keypoints: Floats, options: PersonOptions) -> Floats:
    return np.where(keypoints[..., 2:] >= options.min_keypoint_score, keypoints, np.float32(0))


def _prominent_place(analysis: FrameAnalysis) -> int | None:
    """Place of the most prominent person, or of the first of their parts, among `poses`."""
    if analysis.prominent is None:
        return None
    places = (place for place in range(len(analysis.poses)) if analysis.owner(place) == analysis.prominent)
    return next(places, None)


def _angles_of(seen: PersonAngles, *, person_index: int, track_id: int | None) -> list[pb.FrameAngle]:
    measurements = []
    for result in seen.measures.results:
        name = result.measurement.name
        left, right = value_message(result.left), value_message(result.right)
        sides: tuple[tuple[Side, pb.AngleValue | None], ...] = (("left", left), ("right", right))
        for side, message in sides:
            if message is not None and (name, side) in seen.smoothed:
                message.smoothed_degrees = seen.smoothed[name, side]
        measurements.append(
            pb.FrameAngle(name=name, person_index=person_index, track_id=track_id, left=left, right=right)
        )
    return measurements


def _side(seen: SideMotion | None) -> pb.SideSummary | None:
    if seen is None:
        return None
    counted = pb.SideSummary(frames_measured=seen.frames_measured, frames_degraded=seen.frames_degraded)
    motion = seen.motion
    if motion is None:
        return counted
    counted.min_deg, counted.max_deg = motion.min_deg, motion.max_deg
    counted.range_of_motion_deg = motion.range_deg
    counted.min_time.CopyFrom(duration(motion.min_time_s))
    counted.max_time.CopyFrom(duration(motion.max_time_s))
    counted.repetitions.extend(
        pb.Repetition(
            start=duration(one.start_s),
            end=duration(one.end_s),
            peak=duration(one.peak_s),
            peak_deg=one.peak_deg,
            range_of_motion_deg=one.range_deg,
        )
        for one in motion.repetitions
    )
    return counted


def _symmetry(one: MeasurementMotion) -> pb.Symmetry | None:
    if one.measurement.mirror != "own":  # the sides are one movement: they cannot differ
        return None
    if one.left is None or one.right is None or one.left.motion is None or one.right.motion is None:
        return None
    difference_deg, percent = symmetry(one.left.motion.range_deg, one.right.motion.range_deg)
    return pb.Symmetry(difference_deg=difference_deg, difference_percent=percent)
