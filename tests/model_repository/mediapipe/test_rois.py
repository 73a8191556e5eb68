"""Where each network looks."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.pictures import noise
from wholebody import rois
from wholebody.rois import Roi

Floats = NDArray[np.float32]


def points(*rows: tuple[float, float]) -> Floats:
    return np.array(rows, np.float32)


@given(
    x=st.floats(-100, 900),
    y=st.floats(-100, 900),
    side=st.floats(2, 900),
    rotation=st.floats(-math.pi, math.pi),
)
def test_the_corners_of_a_square_are_where_its_rotation_puts_them(
    x: float, y: float, side: float, rotation: float
) -> None:
    corners = rois.to_image(points((0, 0), (1, 0), (0, 1), (0.5, 0.5)), Roi(x, y, side, rotation))
    right, down = corners[1] - corners[0], corners[2] - corners[0]
    np.testing.assert_allclose(corners[3], [x, y], atol=1e-3)
    np.testing.assert_allclose(right, side * np.array([math.cos(rotation), math.sin(rotation)]), atol=2e-3)
    np.testing.assert_allclose(down, side * np.array([-math.sin(rotation), math.cos(rotation)]), atol=2e-3)


def test_depth_grows_with_the_square() -> None:
    placed = rois.to_image(np.array([[0.5, 0.5, 0.1]], np.float32), Roi(7, 8, 50, 1))
    np.testing.assert_allclose(placed, [[7, 8, 5]], atol=1e-5)


@pytest.mark.parametrize("rotation", [0.0, 0.4, math.pi / 2, -2.0])
def test_what_is_cut_out_is_what_to_image_points_at(rotation: float) -> None:
    image = np.asarray(cv2.GaussianBlur(noise((300, 300)), (0, 0), 6), np.uint8)
    square = Roi(150, 140, 96, rotation)
    cut = rois.cut_out(image, square, 96)
    for u, v in ((10, 20), (48, 48), (90, 5)):
        x, y = rois.to_image(points((u / 96, v / 96)), square)[0]
        np.testing.assert_allclose(cut[v, u].astype(int), image[round(y), round(x)].astype(int), atol=12)


def test_beyond_the_picture_its_edge_is_repeated_or_black() -> None:
    image = np.full((40, 40, 3), 200, np.uint8)
    outside = Roi(-100, -100, 50)
    assert (rois.cut_out(image, outside, 16) == 200).all()
    assert not rois.cut_out(image, outside, 16, border=cv2.BORDER_CONSTANT).any()


def test_an_upright_person_has_an_upright_square_about_the_hips() -> None:
    square = rois.pose_from_alignment(points((100, 200))[0], points((100, 120))[0])
    assert (square.x, square.y) == (100, 200)
    assert square.side == pytest.approx(2 * 80 * 1.25)
    assert square.rotation == pytest.approx(0)


@pytest.mark.parametrize(
    ("edge", "rotation"),
    [((180, 200), math.pi / 2), ((100, 280), math.pi), ((20, 200), -math.pi / 2)],
    ids=["head to the right", "on the head", "head to the left"],
)
def test_the_square_turns_with_the_person(edge: tuple[float, float], rotation: float) -> None:
    square = rois.pose_from_alignment(points((100, 200))[0], points(edge)[0])
    assert abs(square.rotation) == pytest.approx(abs(rotation))
    top = rois.to_image(points((0.5, 0)), square)[0] - [100, 200]
    np.testing.assert_allclose(top / np.linalg.norm(top), (np.array(edge) - [100, 200]) / 80, atol=1e-5)


def standing(score: float = 0.9) -> Floats:
    body = np.zeros((17, 3), np.float32)
    body[:, 2] = 0.1
    for index, xy in {5: (110, 100), 6: (90, 100), 11: (106, 200), 12: (94, 200), 15: (106, 380)}.items():
        body[index] = (*xy, score)
    return body


def test_the_first_stages_body_gives_the_pose_square() -> None:
    square = rois.pose_from_body(standing(), 300)
    assert square is not None
    assert (square.x, square.y) == (100, 200)
    assert square.rotation == pytest.approx(0)
    assert square.side == pytest.approx(2 * 1.25 * 1.1 * math.hypot(6, 180), rel=1e-5)


def test_the_square_holds_the_box_even_when_only_the_trunk_was_seen() -> None:
    body = standing()
    body[15, 2] = 0.1
    square = rois.pose_from_body(body, 500)
    assert square is not None
    assert square.side == pytest.approx(1.25 * 1.1 * 500)


@pytest.mark.parametrize("index", [5, 6, 11, 12])
def test_without_a_hip_or_a_shoulder_the_body_gives_no_square(index: int) -> None:
    for bad in ((1.0, 2.0, 0.3), (np.nan, 2.0, 0.9), (1.0, 2.0, np.nan), (np.inf, 1.0, 0.9)):
        body = standing()
        body[index] = bad
        assert rois.pose_from_body(body, 300) is None
    assert rois.pose_from_body(np.full((17, 3), np.nan, np.float32), 300) is None


def test_a_hand_is_looked_for_towards_the_fingers() -> None:
    square = rois.hand_from_pose(*points((100, 300), (80, 240), (110, 240)))
    size = 2 * 60  # two parts index finger and one part little finger are at (100, 240)
    np.testing.assert_allclose([square.x, square.y], [100, 240 - 0.1 * size], atol=1e-4)
    assert square.side == pytest.approx(2.7 * size)
    assert square.rotation == pytest.approx(0)


def test_the_recropped_hand_points_its_fingers_up() -> None:
    square = rois.hand_from_recrop(*points((100, 100), (100, 140)))
    np.testing.assert_allclose([square.x, square.y], [100, 100 - 0.1 * 80], atol=1e-4)
    assert square.side == pytest.approx(80)
    assert square.rotation == pytest.approx(0)


def test_the_face_square_lies_about_the_poses_face_and_turns_with_the_eyes() -> None:
    face = np.full((11, 2), 50, np.float32)
    face[5], face[2] = (40, 50), (60, 50)  # the person's right eye is on the left of the picture
    square = rois.face_from_pose(face)
    assert (square.x, square.y, square.side) == pytest.approx((50, 50, 3 * 20))
    assert square.rotation == pytest.approx(0)
    face[5], face[2] = (60, 50), (40, 50)
    assert abs(rois.face_from_pose(face).rotation) == pytest.approx(math.pi)


def test_the_mesh_square_is_shifted_up_before_it_is_made_square() -> None:
    keypoints = points((40, 40), (60, 40), (50, 50), (50, 60), (35, 45), (65, 45))
    square = rois.face_from_detection(keypoints)
    assert (square.x, square.y, square.side) == pytest.approx((50, 50 - 0.1 * 20, 2 * 30))


@pytest.mark.parametrize(
    "square",
    [Roi(0, 0, 0.5), Roi(math.nan, 0, 9), Roi(0, math.inf, 9), Roi(0, 0, 9, math.nan), Roi(0, 0, -3)],
)
def test_a_square_that_nothing_can_be_cut_by_is_not_usable(square: Roi) -> None:
    assert not square.usable
