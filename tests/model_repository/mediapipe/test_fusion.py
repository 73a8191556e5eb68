"""One body out of the first stage's and the pose network's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.model_repository.mediapipe.test_association import Floats, standing
from wholebody.fusion import Body, camera, from_first_stage, fuse, reconcile, with_wrist

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
    moved = with_wrist(body, 0, elbow, wrist, 0.9)
    np.testing.assert_array_equal(moved.points[[7, 9]], [elbow, wrist])
    assert moved.scores[[7, 9]] == pytest.approx(0.81)
    assert moved.scores[[8, 10]] == pytest.approx(0.4)


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
