"""One person put together from the parts, in 2D and in one 3D frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from service.skeletons import shipped
from wholebody import keypoints as kp
from wholebody.assembly import assemble, attach_face, attach_hand
from wholebody.faces import Face
from wholebody.fusion import Body
from wholebody.hands import Hand
from wholebody.pipeline import Parts, Pose

Floats = NDArray[np.float32]
RNG = np.random.default_rng(5)
LEFT, RIGHT = slice(91, 112), slice(112, 133)


def random(*shape: int) -> Floats:
    return np.asarray(RNG.random(shape, np.float32))


def row(*values: float) -> Floats:
    return np.array(values, np.float32)


def a_body(pose: Pose | None = None) -> Body:
    """A fused body, at the pose's own joints, or without a third dimension."""
    if pose is None:
        return Body(random(17, 2) * 400, random(17), np.full((17, 3), np.nan, np.float32))
    return Body(pose.body, random(17), pose.world[kp.BODY_FROM_BLAZEPOSE])


def a_pose() -> Pose:
    points = random(33, 2) * 400
    points[[29, 31]] = points[27] + random(2, 2)  # feet are at their ankles
    points[[30, 32]] = points[28] + random(2, 2)
    return Pose(points=points, visibility=random(33), world=random(33, 3) - np.float32(0.5))


def a_hand(score: float) -> Hand:
    return Hand(points=random(21, 2) * 400, world=random(21, 3) * np.float32(0.1), score=score)


def a_face() -> Face:
    return Face(mesh=random(468, 3) * 60 + np.float32(100), score=0.8)


def test_the_body_is_the_fused_one_for_coco_and_for_blazepose() -> None:
    pose = a_pose()
    body = replace(a_body(pose), points=random(17, 2) * 400)
    person = assemble(Parts(body, pose, a_hand(0.9), a_hand(0.8), a_face()))
    shared = kp.BLAZEPOSE_START + kp.BODY_FROM_BLAZEPOSE
    for rows in (slice(0, 17), shared):
        np.testing.assert_array_equal(person.keypoints[rows], body.points)
        np.testing.assert_array_equal(person.scores[rows], body.scores)
        np.testing.assert_array_equal(person.positions[rows], person.positions[:17])


def parts(left: Hand | None = None, right: Hand | None = None, face: Face | None = None) -> Parts:
    """With a pose and the body at its joints."""
    pose = a_pose()
    return Parts(a_body(pose), pose, left, right, face)


def test_nothing_seen_is_score_0_and_not_a_number() -> None:
    person = assemble(Parts(a_body()))
    assert not person.scores[17:].any()
    assert np.isnan(person.keypoints[17:]).all()
    assert np.isnan(person.positions).all()


def test_small_toes_are_never_there() -> None:
    person = assemble(parts(a_hand(0.9), a_hand(0.8), face=a_face()))
    assert [kp.names()[i] for i in (18, 21)] == ["left_small_toe", "right_small_toe"]
    assert not person.scores[[18, 21]].any()
    assert np.isnan(person.positions[[18, 21]]).all()
    seen = np.delete(np.arange(kp.KEYPOINT_COUNT), [18, 21])
    assert (person.scores[seen] > 0).all()
    assert np.isfinite(person.positions[seen]).all()
    assert np.isfinite(person.keypoints[seen]).all()


def test_feet_and_3d_are_the_poses() -> None:
    pose = a_pose()
    person = assemble(Parts(a_body(pose), pose))
    mid_hip = pose.world[[23, 24]].mean(0)
    np.testing.assert_allclose(person.positions[9], pose.world[15] - mid_hip, atol=1e-6)  # left wrist
    np.testing.assert_allclose(person.keypoints[[17, 19, 20, 22]], pose.points[[31, 29, 32, 30]])
    np.testing.assert_allclose(person.scores[[17, 19, 20, 22]], pose.visibility[[31, 29, 32, 30]])
    np.testing.assert_allclose(person.positions[[11, 12]].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(person.keypoints[133:166], pose.points)


def test_without_hands_their_scores_are_0_and_their_positions_nan() -> None:
    hand = a_hand(0.9)
    person = assemble(parts(right=hand))
    assert not person.scores[LEFT].any()
    assert np.isnan(person.positions[LEFT]).all()
    assert np.isnan(person.keypoints[LEFT]).all()
    np.testing.assert_array_equal(person.keypoints[RIGHT], hand.points)
    assert (person.scores[RIGHT] == np.float32(0.9)).all()


def test_each_hand_hangs_on_its_own_wrist_in_its_own_size() -> None:
    left, right = a_hand(0.9), a_hand(0.8)
    person = assemble(parts(left, right))
    for rows, hand, wrist in ((LEFT, left, 9), (RIGHT, right, 10)):
        np.testing.assert_allclose(person.positions[rows][0], person.positions[wrist], atol=1e-6)
        np.testing.assert_allclose(
            np.diff(person.positions[rows], axis=0), np.diff(hand.world, axis=0), atol=1e-6
        )
    np.testing.assert_allclose(attach_hand(left, np.zeros(3, np.float32))[0], 0, atol=1e-7)


def test_the_face_has_the_size_of_a_face_whatever_its_pixels() -> None:
    mesh = random(468, 3)
    for scale in (10, 70, 900):
        metric = attach_face(Face(mesh * np.float32(scale), 0.9), random(17, 3))
        factors = [
            np.linalg.norm(metric[a] - metric[b]) / length
            for a, b, length in ((33, 263, 0.0889172), (234, 454, 0.1532836), (10, 152, 0.1766646))
        ]
        assert np.mean(1 / np.array(factors)) == pytest.approx(1, rel=1e-4)


def test_the_face_is_where_the_poses_nose_and_ears_are() -> None:
    pose, face = a_pose(), a_face()
    metric = attach_face(face, pose.world[kp.BODY_FROM_BLAZEPOSE])
    np.testing.assert_allclose(metric[[1, 234, 454]].mean(0), pose.world[[0, 8, 7]].mean(0), atol=1e-5)


def test_the_68_points_are_the_tables_means_of_the_mesh() -> None:
    face = a_face()
    person = assemble(parts(face=face))
    np.testing.assert_allclose(person.keypoints[23], face.mesh[127, :2], rtol=1e-6)
    np.testing.assert_allclose(person.keypoints[26], face.mesh[[132, 58], :2].mean(0), rtol=1e-6)
    np.testing.assert_allclose(person.keypoints[90], face.mesh[87, :2], rtol=1e-6)
    np.testing.assert_allclose(person.keypoints[166:], face.mesh[:, :2])
    assert (person.scores[23:91] == np.float32(0.8)).all()


def test_a_foot_that_is_not_at_its_ankle_is_not_given() -> None:
    pose = a_pose()
    body = a_body(pose)
    moved = body.points.copy()
    moved[15] += (
        5000  # the left ankle is elsewhere by the first stage; so the shank is long, the knee goes along
    )
    moved[13] = moved[15] + row(0, 100)
    person = assemble(Parts(replace(body, points=moved), pose))
    for rows, there in (([17, 19], False), ([20, 22], True)):
        assert (person.scores[rows] > 0).all() == there
        assert np.isfinite(person.positions[rows]).all() == there
    assert not person.scores[[kp.BLAZEPOSE_START + 29, kp.BLAZEPOSE_START + 31]].any()


def test_in_3d_a_foot_stays_at_an_ankle_that_was_moved() -> None:
    pose = a_pose()
    body = a_body(pose)
    world = body.world.copy()
    world[15] += row(0.3, -0.2, 0)
    plain, moved = (assemble(Parts(one, pose)) for one in (body, replace(body, world=world)))
    for foot in (17, 19):
        np.testing.assert_allclose(
            moved.positions[foot] - moved.positions[15],
            plain.positions[foot] - plain.positions[15],
            atol=1e-6,
        )


def test_hands_and_face_without_a_pose_have_no_third_dimension() -> None:
    person = assemble(Parts(a_body(), None, a_hand(0.9), None, a_face()))
    assert (person.scores[LEFT] == np.float32(0.9)).all()
    assert (person.scores[166:] == np.float32(0.8)).all()
    assert np.isnan(person.positions).all()


def test_the_names_are_those_of_the_shipped_skeleton() -> None:
    skeleton = shipped()["mediapipe_wholebody"]
    assert kp.names() == skeleton.names
    assert len(set(kp.names())) == kp.KEYPOINT_COUNT == 634


def test_a_mirrored_face_gives_the_mirrored_68_points() -> None:
    skeleton = shipped()["mediapipe_wholebody"]
    names = skeleton.names
    partner = {a: b for pair in skeleton.flip_pairs for a, b in (pair, pair[::-1])}

    def mirror(rows: range) -> list[int]:
        return [names.index(partner.get(names[i], names[i])) for i in rows]

    mesh = random(468, 2)
    flipped = mesh[np.array(mirror(range(166, 634))) - 166]
    order = np.array(mirror(range(23, 91))) - 23
    np.testing.assert_allclose(kp.face_68(flipped), kp.face_68(mesh)[order], atol=1e-6)
