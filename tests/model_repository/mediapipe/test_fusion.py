"""One body out of the first stage's and the pose network's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.model_repository.mediapipe.test_association import Floats, standing
from wholebody.fusion import Body, camera, from_first_stage, fuse, reconcile, with_arm, with_wrist

UNIT = 100.0
WORLD = np.concatenate([(standing()[:, :2] - (200, 260)) / 200, np.zeros((17, 1))], axis=1).astype(np.float32)


def fused(body: Floats, points: Floats, visibility: float | Floats = 0.8) -> Body:
    return fuse(body, points, np.full(17, visibility, np.float32), WORLD, UNIT)


def test_points_that_agree_are_averaged_and_keep_the_larger_score() -> None:
    body = standing(score=0.6)
    found = fused(body, body[:, :2] + np.float32(10))
    np.testing.assert_allclose(found.points, body[:, :2] + 5)
    np.testing.assert_allclose(found.scores, 0.8)


@pytest.mark.parametrize(
    ("first", "visibility", "taken"),
    [(0.9, 0.9, "first"), (0.6, 0.85, "first"), (0.5, 0.95, "pose"), (0.02, 0.1, "pose")],
    ids=["as sure", "a little surer", "much surer", "not given"],
)
def test_of_points_that_differ_one_is_taken(first: float, visibility: float, taken: str) -> None:
    body = standing(score=first)
    points = body[:, :2] + np.float32(60)
    found = fused(body, points, visibility)
    np.testing.assert_allclose(found.points, body[:, :2] if taken == "first" else points)


def test_the_score_falls_as_the_points_differ() -> None:
    body = standing(score=0.9)
    scores = [
        float(fused(body, body[:, :2] + np.array([off, 0], np.float32)).scores[0]) for off in (10, 40, 80)
    ]
    assert scores == pytest.approx([0.9, 0.45, 0.225])


def joined(*pairs: tuple[int, int], score: float = 0.95) -> Floats:
    """The standing body of a first stage that has both points of these pairs in the place of the left one."""
    body = standing(score=score)
    for left, right in pairs:
        body[right] = body[left]
    return body


def test_a_first_stage_that_has_both_legs_in_one_place_gives_way_to_the_pose() -> None:
    truth = standing()[:, :2]
    truth[14] += (-60, 0)
    truth[16] += (-90, 0)
    found = fused(joined((13, 14), (15, 16)), truth)
    np.testing.assert_allclose(found.points, truth, atol=1e-4)
    assert found.scores[[14, 16]] == pytest.approx(0.8 * 0.5)  # two networks contradict each other
    assert found.scores[[13, 15]] == pytest.approx(0.95)


def test_a_first_stage_that_confuses_the_legs_gives_way_at_the_arms_too() -> None:
    truth = standing()[:, :2]
    truth[14] += (-60, 0)
    body = joined((13, 14))
    body[9, :2] += (70, -90)
    np.testing.assert_allclose(fused(body, truth).points, truth, atol=1e-4)
    guessed = np.full(17, 0.8, np.float32)
    guessed[14] = 0.1
    np.testing.assert_allclose(fused(body, truth, guessed).points[9], body[9, :2])
    body[14, :2] = truth[14]
    np.testing.assert_allclose(fused(body, truth).points[9], body[9, :2])


def test_legs_that_hide_one_another_stay_where_the_first_stage_has_them() -> None:
    body = joined((13, 14), (15, 16))
    points = body[:, :2].copy()
    points[[13, 14]] += (
        (-15, 0),
        (15, 0),
    )  # in one place for the pose network too
    points[9] += (0, 60)
    np.testing.assert_allclose(fused(body, points).points[9], body[9, :2])


def test_a_pose_that_is_not_seen_or_on_a_neighbour_separates_no_legs() -> None:
    truth = standing()[:, :2]
    truth[14] += (-60, 0)
    body = joined((13, 14))
    hidden = np.full(17, 0.8, np.float32)
    hidden[14] = 0.4
    np.testing.assert_allclose(fused(body, truth, hidden).points[14], body[14, :2])
    on_others = np.zeros(17, np.bool_)
    on_others[14] = True
    found = fuse(body, truth, np.full(17, 0.8, np.float32), WORLD, UNIT, on_others)
    np.testing.assert_allclose(found.points[14], body[14, :2])


def test_points_of_the_pose_alone_have_its_score() -> None:
    body = standing()
    body[9] = np.nan
    points = standing()[:, :2]
    found = fused(body, points, 0.4)
    np.testing.assert_allclose(found.points[9], points[9])
    assert found.scores[9] == np.float32(0.4)


def test_without_a_pose_the_first_stages_points_stay_and_what_it_lacks_is_nan() -> None:
    body = standing()
    body[3] = 0
    found = from_first_stage(body)
    np.testing.assert_array_equal(np.delete(found.points, 3, axis=0), np.delete(body[:, :2], 3, axis=0))
    assert np.isnan(found.points[3]).all()
    assert found.scores[3] == 0
    assert np.isnan(found.world).all()


def test_a_hand_decides_between_two_arms() -> None:
    body = from_first_stage(standing(score=0.4))
    elbow, wrist = np.array([250, 100], np.float32), np.array([260, 60], np.float32)
    moved = with_arm(body, 0, elbow, wrist, 0.9)
    np.testing.assert_array_equal(moved.points[[7, 9]], [elbow, wrist])
    assert moved.scores[[7, 9]] == pytest.approx(0.81)
    assert moved.scores[[8, 10]] == pytest.approx(0.4)


@pytest.mark.parametrize(("off", "moved"), [(0.2, False), (0.3, True)])
def test_a_wrist_that_is_not_at_the_root_of_its_hand_is_moved_there(off: float, moved: bool) -> None:
    body = from_first_stage(standing(score=0.4))
    forearm = max(float(np.linalg.norm(body.points[9] - body.points[7])), 0.5 * UNIT)
    root = body.points[9] + np.array([off * forearm, 0], np.float32)
    found = with_wrist(body, 0, root, 0.9, UNIT)
    np.testing.assert_array_equal(found.points[9], root if moved else body.points[9])
    assert found.scores[9] == pytest.approx(0.81 if moved else 0.4)
    np.testing.assert_array_equal(np.delete(found.points, 9, axis=0), np.delete(body.points, 9, axis=0))


def test_a_joint_whose_2d_is_elsewhere_takes_its_3d_there_and_keeps_its_depth() -> None:
    points = standing()[:, :2]
    world = WORLD.copy()
    world[:, 2] = np.linspace(-0.2, 0.2, 17)
    body = Body(points.copy(), np.ones(17, np.float32), world)
    np.testing.assert_array_equal(reconcile(body, points).world, world)
    elsewhere = points.copy()
    elsewhere[9] += (80, -40)
    found = reconcile(replace(body, points=elsewhere), points)
    scale, shift = camera(found.world, elsewhere)
    assert scale is not None
    np.testing.assert_allclose(found.world[9, :2] * scale + shift, elsewhere[9], atol=2)
    assert found.world[9, 2] == world[9, 2]
    np.testing.assert_array_equal(np.delete(found.world, 9, axis=0), np.delete(world, 9, axis=0))


def test_joints_in_one_point_fix_no_camera() -> None:
    body = Body(np.zeros((17, 2), np.float32), np.ones(17, np.float32), np.zeros((17, 3), np.float32))
    assert camera(body.world, body.points)[0] is None
    np.testing.assert_array_equal(reconcile(body, body.points).world, body.world)
