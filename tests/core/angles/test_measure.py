from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from service.core.angles import (
    MEASUREMENTS,
    AngleOptions,
    Measured,
    Neutral,
    Status,
    Thresholds,
    measure,
    person_measures,
)
from service.core.poses import Floats, Poses
from tests.core.angles.figures import (
    ALL,
    BLAZE,
    COCO,
    COCO_NAMES,
    NINETEEN,
    WHOLEBODY,
    array_of,
    degrees,
    frontal,
    measured,
    poses_of,
    profile,
    skeleton_of,
)
from tests.core.angles.vectors import EXPECTED, FRONTAL, OVER_SPLIT, RIGHTWARD

WITHIN = 0.2


def whole(points: dict[str, complex], names: tuple[str, ...] = ALL) -> Measured:
    return measure(poses_of(array_of(points, WHOLEBODY)), WHOLEBODY, names, AngleOptions())


def test_zero_persons_are_measured_without_an_error() -> None:
    found = measure(Poses.empty(17), COCO, ALL, AngleOptions())
    assert len(found) == 0
    assert found.degrees.shape == (0, len(ALL), 2)


def test_no_measurement_is_a_normal_request() -> None:
    found = measured(FRONTAL, ())
    assert found.degrees.shape == (1, 0, 2)
    assert person_measures(found, 0).results == ()


@pytest.mark.parametrize(
    ("person", "name", "left", "right"),
    [row[1:] for row in EXPECTED],
    ids=[f"{vector}-{name}" for vector, _, name, _, _ in EXPECTED],
)
def test_known_people_have_their_known_angles(person: Floats, name: str, left: float, right: float) -> None:
    assert degrees(measured(person), name) == pytest.approx((left, right), abs=WITHIN)


def test_an_arm_past_overhead_reads_200_not_minus_160() -> None:
    found = measured(array_of(profile(shoulder=200), COCO))
    assert degrees(found, "shoulder_forward_flexion") == pytest.approx((200, 200), abs=WITHIN)
    assert degrees(found, "shoulder_extension") == pytest.approx((-200, -200), abs=WITHIN)


def test_an_over_split_tells_what_each_leg_contributes() -> None:
    value = person_measures(measured(OVER_SPLIT), 0).results[ALL.index("splits")].left
    assert value is not None
    assert value.details["left_contribution_deg"] == pytest.approx(95, abs=WITHIN)
    assert value.details["right_contribution_deg"] == pytest.approx(95, abs=WITHIN)
    assert value.details["legs_deg"] == pytest.approx(190, abs=WITHIN)
    assert value.details["kind"] == "straddle"


@pytest.mark.parametrize("facing", [1, -1], ids=["rightward", "leftward"])
def test_angles_put_into_a_profile_come_out_again(facing: int) -> None:
    figure = profile(
        facing=facing, lean=12, hip=70, knee=95, shoulder=40, elbow=60, neck=15, ankle=11, wrist=25
    )
    found = whole(figure)
    expected = {
        "back_lumbar_forward_flexion": 12,
        "squats_hip_side": 70,
        "hip_side": 110,
        "knee_flexion": 95,
        "knee_side": 85,
        "shoulder_forward_flexion": 40,
        "elbow_side": 120,
        "neck_forward_flexion": 15,
        "ankle_dorsiflexion": 11,
        "wrist_flexion": 25,
    }
    for name, value in expected.items():
        assert degrees(found, name) == pytest.approx((value, value), abs=WITHIN), name


@pytest.mark.parametrize("toward", [1, -1], ids=["front", "back"])
def test_angles_put_into_a_frontal_view_come_out_again(toward: int) -> None:
    figure = frontal(
        toward=toward, lean=8, abduction=(75, 130), thighs=(20, 12), valgus=(7, -4), neck=-18, elbow=30
    )
    found = whole(figure)
    expected = {
        "shoulder_abduction": (75, 130),
        "back_side_flexion": (8, -8),
        "neck_lateral_flexion": (-18, 18),
        "splits": (32, 32),
        "squats_hip_front": (20, 12),
        "squats_knee_front": (7, -4),
        "elbow_side": (150, 150),
    }
    for name, value in expected.items():
        assert degrees(found, name) == pytest.approx(value, abs=WITHIN), name


@pytest.mark.parametrize("head", ["face", "ears", "eyes"])
def test_the_head_is_read_from_the_best_line_there_is(head: str) -> None:
    hidden = {"face": (), "ears": ("face",), "eyes": ("face", "ear")}[head]
    figure = {name: at for name, at in frontal(neck=12).items() if not any(part in name for part in hidden)}
    result = person_measures(whole(figure, ("neck_lateral_flexion",)), 0).results[0]
    assert result.left is not None
    assert result.right is not None
    assert (result.left.degrees, result.right.degrees) == pytest.approx((12, -12), abs=WITHIN)
    assert result.left.details["head_line"] == head
    assert ("REFERENCE_FALLBACK" in result.left.reasons) == (head == "eyes")


def test_abduction_without_hips_falls_back_to_the_shoulder_line() -> None:
    figure = {name: at for name, at in frontal(lean=10, abduction=(60, 20)).items() if "hip" not in name}
    result = person_measures(whole(figure, ("shoulder_abduction",)), 0).results[0]
    assert result.left is not None
    assert result.right is not None
    assert (result.left.degrees, result.right.degrees) == pytest.approx((60, 20), abs=WITHIN)
    assert result.left.reference == "shoulder_line"
    assert result.left.status is Status.DEGRADED
    assert "REFERENCE_FALLBACK" in result.left.reasons


def test_the_neck_without_a_hip_is_measured_against_gravity() -> None:
    figure = {name: at for name, at in profile(neck=20).items() if "hip" not in name}
    result = person_measures(whole(figure, ("neck_forward_flexion",)), 0).results[0]
    assert result.right is not None
    assert result.right.degrees == pytest.approx(20, abs=WITHIN)
    assert result.right.reference == "gravity"
    assert "REFERENCE_FALLBACK" in result.right.reasons


def test_splits_without_a_trunk_end_at_180() -> None:
    hidden = OVER_SPLIT.copy()
    hidden[COCO_NAMES.index("left_shoulder"), 2] = 0
    result = person_measures(measured(hidden, ("splits",)), 0).results[0]
    assert result.left is not None
    assert result.left.degrees == pytest.approx(170, abs=WITHIN)
    assert result.left.reference == "thighs_without_trunk"


def test_blazepose_has_feet_and_knuckles_by_other_names() -> None:
    figure = profile(ankle=-15, wrist=20)
    found = measure(poses_of(array_of(figure, BLAZE)), BLAZE, ALL, AngleOptions())
    assert degrees(found, "ankle_dorsiflexion") == pytest.approx((-15, -15), abs=WITHIN)
    # without fingers the side of the palm is unknown, and so is the sign
    assert degrees(found, "wrist_flexion") == pytest.approx((20, 20), abs=2)
    result = person_measures(found, 0).results[ALL.index("wrist_flexion")].left
    assert result is not None
    assert "FACING_UNKNOWN" in result.reasons


def test_wrist_extension_is_negative() -> None:
    assert degrees(whole(profile(wrist=-35)), "wrist_flexion") == pytest.approx((-35, -35), abs=WITHIN)


def test_measuring_many_is_measuring_each() -> None:
    people = np.stack([FRONTAL, RIGHTWARD, OVER_SPLIT])
    together = measured(people)
    for index, person in enumerate(people):
        alone = measured(person)
        np.testing.assert_allclose(together.degrees[index], alone.degrees[0], atol=1e-9)
        np.testing.assert_allclose(together.std_errors_deg[index], alone.std_errors_deg[0], atol=1e-9)
        np.testing.assert_array_equal(together.flags[index], alone.flags[0])


def test_measuring_some_is_measuring_them_among_all() -> None:
    everything = measured(RIGHTWARD)
    for name in ALL:
        assert degrees(measured(RIGHTWARD, (name,)), name) == pytest.approx(
            degrees(everything, name), abs=1e-9, nan_ok=True
        )


def test_the_input_is_left_as_it_was() -> None:
    poses = poses_of(FRONTAL)
    before = poses.keypoints.copy()
    poses.keypoints.flags.writeable = False
    measure(poses, COCO, ALL, AngleOptions(size_wh=(640, 480)))
    np.testing.assert_array_equal(poses.keypoints, before)


def test_a_baseline_is_subtracted_and_adds_its_error() -> None:
    neutral = {("knee_flexion", "left"): Neutral(12.0, 3.0)}
    plain = measured(RIGHTWARD, ("knee_flexion",))
    relative = measured(RIGHTWARD, ("knee_flexion",), baseline=neutral)
    left, right = degrees(plain, "knee_flexion")
    assert degrees(relative, "knee_flexion") == pytest.approx((left - 12, right))
    assert relative.std_errors_deg[0, 0, 0] == pytest.approx(np.hypot(plain.std_errors_deg[0, 0, 0], 3))
    assert relative.std_errors_deg[0, 0, 1] == pytest.approx(plain.std_errors_deg[0, 0, 1])


def test_a_baseline_replaces_the_assumed_neutral_head() -> None:
    neutral = {("neck_forward_flexion", "right"): Neutral(4.0)}
    plain = measured(RIGHTWARD, ("neck_forward_flexion",))
    relative = measured(RIGHTWARD, ("neck_forward_flexion",), baseline=neutral)
    assert degrees(relative, "neck_forward_flexion")[1] == pytest.approx(
        degrees(plain, "neck_forward_flexion")[1] - 4
    )
    before, after = (person_measures(found, 0).results[0].right for found in (plain, relative))
    assert before is not None
    assert after is not None
    assert "ASSUMED_NEUTRAL" in before.reasons
    assert "ASSUMED_NEUTRAL" not in after.reasons
    assert before.std_error_deg is not None
    assert after.std_error_deg is not None
    assert before.std_error_deg**2 - after.std_error_deg**2 == pytest.approx(36)


def test_a_baseline_across_the_cut_does_not_turn_a_circle() -> None:
    upside_down = array_of(profile(lean=175), COCO)
    neutral = {("back_lumbar_forward_flexion", "right"): Neutral(-175.0)}
    found = measured(
        upside_down,
        ("back_lumbar_forward_flexion",),
        facing="right",
        baseline=neutral,
        thresholds=Thresholds(implausible_errors=1000.0),
    )
    assert degrees(found, "back_lumbar_forward_flexion")[1] == pytest.approx(-10, abs=WITHIN)


@pytest.mark.parametrize("person", [FRONTAL, RIGHTWARD], ids=["frontal", "profile"])
def test_a_mirror_image_exchanges_left_and_right(person: Floats) -> None:
    plain, mirrored = measured(person), measured(person, mirrored=True)
    for name, measurement in MEASUREMENTS.items():
        left, right = degrees(plain, name)
        expected = (left, right) if measurement.mirror == "same" else (right, left)
        assert degrees(mirrored, name) == pytest.approx(expected, abs=1e-9, nan_ok=True), name
    assert person_measures(mirrored, 0).facing == person_measures(plain, 0).facing


def test_a_mirror_image_of_a_whole_body_exchanges_the_face_too() -> None:
    poses = poses_of(array_of(frontal(neck=14), WHOLEBODY))
    found = measure(poses, WHOLEBODY, ("neck_lateral_flexion",), AngleOptions(mirrored=True))
    assert degrees(found, "neck_lateral_flexion") == pytest.approx((-14, 14), abs=WITHIN)


@pytest.mark.parametrize("roll", [-20.0, 7.0, 90.0])
def test_a_known_roll_of_the_camera_changes_nothing(roll: float) -> None:
    for person in (FRONTAL, RIGHTWARD):
        turned = person.copy()
        # a camera turned clockwise sees the world turned anticlockwise
        z = (person[:, 0] + 1j * person[:, 1]) * np.exp(-1j * np.radians(roll))
        turned[:, 0], turned[:, 1] = z.real, z.imag
        np.testing.assert_allclose(
            measured(turned, camera_roll_deg=roll).degrees, measured(person).degrees, atol=0.02
        )


def test_the_facing_that_is_told_is_believed() -> None:
    leaning = array_of(profile(facing=1, lean=10), COCO)
    found = measured(leaning, ("back_lumbar_forward_flexion",), facing="left")
    assert degrees(found, "back_lumbar_forward_flexion") == pytest.approx((-10, -10), abs=WITHIN)
    away = measured(FRONTAL, ("back_side_flexion",), facing="away")
    assert degrees(away, "back_side_flexion") == pytest.approx((-20, 20), abs=WITHIN)


def test_a_squat_from_the_front_gives_what_stays_meaningful_at_depth() -> None:
    found = measured(FRONTAL, ("squats_knee_front",))
    left = person_measures(found, 0).results[0].left
    assert left is not None
    assert left.details["shank_tilt_deg"] == pytest.approx(30, abs=WITHIN)
    assert left.details["knee_ankle_separation"] == pytest.approx(130.7 / 226.9, abs=0.01)
    assert left.details["thigh_shank_ratio"] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    "name",
    [
        "knee_flexion",
        "knee_extension",
        "squats_knee_side",
        "squats_hip_side",
        "squats_knee_front",
        "elbow_side",
        "hip_side",
        "knee_side",
    ],
)
def test_three_point_angles_come_with_interior_and_flexion(name: str) -> None:
    person = FRONTAL if name == "squats_knee_front" else RIGHTWARD
    value = person_measures(measured(person, (name,)), 0).results[0].right
    assert value is not None
    interior, flexion = value.details["interior_deg"], value.details["flexion_deg"]
    assert isinstance(interior, float)
    assert isinstance(flexion, float)
    assert interior + abs(flexion) == pytest.approx(180)


def test_the_shoulder_comes_with_the_lean_of_the_trunk() -> None:
    value = person_measures(measured(RIGHTWARD, ("shoulder_extension",)), 0).results[0].right
    assert value is not None
    assert value.details["trunk_inclination_deg"] == pytest.approx(30, abs=WITHIN)


def test_the_back_comes_with_hip_and_thigh() -> None:
    value = person_measures(measured(RIGHTWARD, ("back_lumbar_forward_flexion",)), 0).results[0].right
    assert value is not None
    assert value.details["trunk_thigh_deg"] == pytest.approx(80, abs=WITHIN)
    assert value.details["thigh_inclination_deg"] == pytest.approx(50, abs=WITHIN)
    assert value.details["midline_deg"] == pytest.approx(30, abs=WITHIN)


def test_a_tilted_pelvis_is_reported_positive_when_the_left_hip_is_lower() -> None:
    figure = frontal(toward=1)
    figure["left_hip"] += 8j
    value = person_measures(whole(figure, ("back_side_flexion",)), 0).results[0].left
    assert value is not None
    obliquity = value.details["pelvic_obliquity_deg"]
    assert obliquity == pytest.approx(np.degrees(np.arctan2(8, 66)), abs=WITHIN)


def test_keypoints_that_do_not_fit_the_skeleton_are_refused() -> None:
    with pytest.raises(ValueError, match="coco_17"):
        measure(poses_of(np.zeros((5, 3), np.float32)), COCO, NINETEEN, AngleOptions())


def test_a_typical_error_holds_noise_and_method() -> None:
    value = person_measures(measured(RIGHTWARD, ("knee_flexion",)), 0).results[0].right
    assert value is not None
    assert value.std_error_deg is not None
    assert value.details["typical_error_deg"] == pytest.approx(np.hypot(value.std_error_deg, 5.0))


def test_published_sigmas_go_before_known_names() -> None:
    sure = replace(COCO, keypoints=tuple(replace(k, sigma=0.001) for k in COCO.keypoints))
    small = measure(poses_of(RIGHTWARD), sure, ("knee_flexion",), AngleOptions())
    assert small.std_errors_deg[0, 0, 0] < measured(RIGHTWARD, ("knee_flexion",)).std_errors_deg[0, 0, 0]


def test_skeletons_of_ten_thousand_points_are_measured_like_any_other() -> None:
    names = (*COCO_NAMES, *(f"extra_{i}" for i in range(10_000)))
    keypoints = np.zeros((2, len(names), 3), np.float32)
    keypoints[:, :17] = array_of(profile(knee=40), COCO)
    found = measure(poses_of(keypoints), skeleton_of(names), NINETEEN, AngleOptions())
    alone = measure(poses_of(keypoints[:, :17]), COCO, NINETEEN, AngleOptions())
    np.testing.assert_array_equal(found.degrees, alone.degrees)
