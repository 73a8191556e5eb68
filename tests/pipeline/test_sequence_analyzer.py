from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from service.core.angles import AngleOptions
from service.core.poses import Poses
from service.core.skeleton.mapping import plan_mapping
from service.pipeline.sequence_analyzer import FrameAnalysis, SequenceAnalyzer, SequenceConfig
from service.skeletons import shipped

COCO = shipped()["coco_17"]
SIZE_WH = (1280, 720)
CONFIG = SequenceConfig(
    plan=plan_mapping(COCO, COCO),
    track=True,
    smooth=False,
    measurements=(),
    side="both",
    angles=AngleOptions(),
    prominent_only=False,
)


def standing(x: float, height: float = 360.0, bend: float = 0.0, scale: float = 1.0) -> Poses:
    """One person at x px, right arm bent by `bend` degrees at the elbow."""
    names = COCO.names
    points = np.zeros((1, 17, 3), np.float32)
    for k, name in enumerate(names):
        side = -0.08 if name.startswith("left") else 0.08
        level = {"shoulder": 0.2, "elbow": 0.35, "wrist": 0.5, "hip": 0.5, "knee": 0.75, "ankle": 1.0}
        row = next((value for part, value in level.items() if part in name), 0.05)
        points[0, k] = x + side * height, 200 + row * height, 0.9
    elbow = points[0, names.index("right_elbow"), :2]
    angle = np.radians(bend)
    points[0, names.index("right_wrist"), :2] = elbow + 0.15 * height * np.array(
        [np.sin(angle), np.cos(angle)]
    )
    points[..., :2] *= scale
    box = np.array([(x - 0.2 * height, 200, x + 0.2 * height, 200 + height)], np.float32) * scale
    return Poses(boxes_xyxy=box, scores=np.array([0.9], np.float32), keypoints=points)


def together(*persons: Poses) -> Poses:
    return Poses(
        boxes_xyxy=np.concatenate([one.boxes_xyxy for one in persons]),
        scores=np.concatenate([one.scores for one in persons]),
        keypoints=np.concatenate([one.keypoints for one in persons]),
    )


def test_frames_without_persons_are_analysed_too() -> None:
    sequence = SequenceAnalyzer(replace(CONFIG, smooth=True, measurements=("elbow_side",)), COCO)
    seen = sequence.add_frame(Poses.empty(17), SIZE_WH, 0.0)
    assert (seen.track_ids, seen.angles, seen.prominent) == ((), (), None)
    assert seen.smoothed is not None
    assert seen.smoothed.shape == (0, 17, 3)
    assert sequence.persons_tracked == 0
    assert sequence.summary() == []


def test_persons_keep_their_track_ids_in_whichever_order_they_come() -> None:
    sequence = SequenceAnalyzer(CONFIG, COCO)
    assert sequence.add_frame(together(standing(300), standing(900)), SIZE_WH, 0.0).track_ids == (1, 2)
    assert sequence.add_frame(together(standing(905), standing(305)), SIZE_WH, 0.1).track_ids == (2, 1)
    assert sequence.persons_tracked == 2


def test_a_change_of_the_image_size_changes_no_track() -> None:
    sequence = SequenceAnalyzer(CONFIG, COCO)
    both = together(standing(300), standing(900))
    assert sequence.add_frame(both, SIZE_WH, 0.0).track_ids == (1, 2)
    half = together(standing(300, scale=0.5), standing(900, scale=0.5))
    assert sequence.add_frame(half, (640, 360), 0.1).track_ids == (1, 2)


def test_without_tracking_there_are_no_ids_and_nothing_is_smoothed() -> None:
    sequence = SequenceAnalyzer(replace(CONFIG, track=False, smooth=True), COCO)
    seen = sequence.add_frame(standing(300), SIZE_WH, 0.0)
    assert (seen.track_ids, seen.smoothed, seen.prominent) == (None, None, 0)
    assert sequence.persons_tracked == 0


def test_smoothing_takes_jitter_away_and_leaves_the_scores() -> None:
    sequence = SequenceAnalyzer(replace(CONFIG, smooth=True), COCO)
    rng = np.random.default_rng(1)
    raw, smoothed = [], []
    for number in range(60):
        person = standing(300)
        noise = np.zeros((1, 17, 3), np.float32)
        noise[..., :2] = rng.normal(0, 2, (1, 17, 2))
        seen = sequence.add_frame(replace(person, keypoints=person.keypoints + noise), SIZE_WH, number / 30)
        assert seen.smoothed is not None
        raw.append(seen.poses.keypoints[0, :, :2])
        smoothed.append(seen.smoothed[0, :, :2])
        assert (seen.smoothed[..., 2] == seen.poses.keypoints[..., 2]).all()
    assert np.std(smoothed[20:], axis=0).mean() < 0.5 * np.std(raw[20:], axis=0).mean()


def test_a_keypoint_that_is_missing_stays_missing() -> None:
    sequence = SequenceAnalyzer(replace(CONFIG, smooth=True), COCO)
    sequence.add_frame(standing(300), SIZE_WH, 0.0)
    person = standing(300)
    keypoints = person.keypoints.copy()
    keypoints[0, 9] = 0
    seen = sequence.add_frame(replace(person, keypoints=keypoints), SIZE_WH, 0.1)
    assert seen.smoothed is not None
    assert (seen.smoothed[0, 9] == 0).all()
    assert (seen.smoothed[0, 10] != 0).all()


def test_the_most_prominent_person_is_kept_while_tracked_and_for_a_second_after() -> None:
    sequence = SequenceAnalyzer(CONFIG, COCO)
    small, large = standing(300, 300), standing(900, 360)

    def prominent(persons: Poses, time_s: float) -> int | None:
        return sequence.add_frame(persons, SIZE_WH, time_s).prominent

    assert prominent(together(small, large), 0.0) == 1
    larger = standing(310, 380)  # the first person comes closer
    assert prominent(together(larger, large), 0.1) == 1
    assert prominent(larger, 0.6) is None
    assert prominent(larger, 1.2) == 0
    assert prominent(together(larger, large), 1.3) == 0


@pytest.mark.parametrize(("prominent_only", "measured"), [(False, [0, 1]), (True, [1])])
def test_angles_are_measured_of_all_persons_or_of_the_most_prominent_one(
    prominent_only: bool, measured: list[int]
) -> None:
    config = replace(CONFIG, measurements=("elbow_side",), prominent_only=prominent_only)
    seen = SequenceAnalyzer(config, COCO).add_frame(
        together(standing(300, 300), standing(900, 360)), SIZE_WH, 0.0
    )
    assert [angles.place for angles in seen.angles] == measured
    assert all(angles.measures.results for angles in seen.angles)
    assert seen.measured is not None


def right_elbow(seen: FrameAnalysis) -> tuple[float | None, float | None]:
    """Raw and smoothed degrees of the first person."""
    (angles,) = seen.angles
    (result,) = angles.measures.results
    assert result.right is not None
    return result.right.degrees, angles.smoothed.get(("elbow_side", "right"))


def test_the_summary_has_the_range_and_the_repetitions_of_every_measurement() -> None:
    sequence = SequenceAnalyzer(replace(CONFIG, measurements=("elbow_side",), smooth=True), COCO)
    raw, smoothed = [], []
    for number in range(180):  # three bends of two seconds each
        bend = 40 - 40 * np.cos(2 * np.pi * number / 60)
        seen = sequence.add_frame(standing(300, bend=float(bend)), SIZE_WH, number / 30)
        one, other = right_elbow(seen)
        assert one is not None
        assert other is not None
        raw.append(one)
        smoothed.append(other)
    (motion,) = sequence.summary()
    assert (motion.measurement.name, motion.track_id) == ("elbow_side", 1)
    assert motion.right is not None
    assert motion.right.motion is not None
    assert motion.right.frames_measured == 180
    assert motion.right.motion.range_deg == pytest.approx(max(raw) - min(raw), abs=3)
    assert len(motion.right.motion.repetitions) == 3
    assert raw != smoothed
    assert np.abs(np.subtract(raw, smoothed)).max() < 30


def test_only_the_sides_that_were_asked_for_are_in_the_summary() -> None:
    sequence = SequenceAnalyzer(replace(CONFIG, measurements=("elbow_side",), side="left"), COCO)
    sequence.add_frame(standing(300), SIZE_WH, 0.0)
    (motion,) = sequence.summary()
    assert motion.left is not None
    assert motion.right is None


def test_poses_are_mapped_to_the_skeleton_that_was_asked_for() -> None:
    blaze = shipped()["blazepose_33"]
    sequence = SequenceAnalyzer(replace(CONFIG, plan=plan_mapping(blaze, COCO)), blaze)
    points = np.array([[(300 + 3 * k, 200 + 10 * k, 0.9) for k in range(33)]], np.float32)
    seen = sequence.add_frame(replace(standing(300), keypoints=points), SIZE_WH, 0.0)
    assert seen.native.keypoint_count == 33
    assert seen.poses.keypoint_count == 17
    place = blaze.names.index("left_knee")
    assert seen.poses.keypoints[0, COCO.names.index("left_knee")] == pytest.approx(points[0, place])
