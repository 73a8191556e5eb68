"""Crops of people and the way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core import topdown
from service.core.poses import Floats, Poses
from tests.pictures import noise, plain

SHAPE_HW = (512, 384)
coordinate = st.floats(-500, 4000, width=32)
extent = st.floats(0.25, 3000, width=32)
BODY = (
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
    "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip


def people(*boxes_xyxy: tuple[float, float, float, float], keypoint_count: int = 17) -> Poses:
    n = len(boxes_xyxy)
    return Poses(
        boxes_xyxy=np.array(boxes_xyxy, np.float32).reshape(n, 4),
        scores=np.linspace(0.9, 0.5, n, dtype=np.float32),
        keypoints=np.zeros((n, keypoint_count, 3), np.float32),
    )


def test_zero_persons_make_no_crops_and_no_poses() -> None:
    crops, affines = topdown.crop_people(plain((64, 48)), np.zeros((0, 4), np.float32), SHAPE_HW)
    assert crops.shape == (0, *SHAPE_HW, 3)
    assert affines == []
    empty = (np.zeros((0, 5, 2), np.float32), np.zeros((0, 5), np.float32), np.zeros((0, 5, 3), np.float32))
    poses = topdown.poses_from_crops(Poses.empty(17), [], *empty)
    assert len(poses) == 0
    assert poses.keypoint_count == 5
    assert poses.depth_source == "none"


@given(x=coordinate, y=coordinate, width=extent, height=extent)
def test_a_crop_is_centred_on_its_box_and_holds_it_with_the_margin(
    x: float, y: float, width: float, height: float
) -> None:
    box = np.array([x, y, x + width, y + height], np.float32)
    affine = topdown.crop_affine(box, SHAPE_HW)
    corners = affine.apply(box.reshape(2, 2))
    centre = corners.mean(0)
    np.testing.assert_allclose(centre, [192, 256], atol=0.6)
    assert affine.scale_x == affine.scale_y
    size_wh = np.maximum(np.array([width, height]), 1.0) * 1.25 * affine.scale_x
    assert (size_wh <= np.array([384, 512]) * 1.001).all()
    assert (np.abs(size_wh - [384, 512]) < 0.5).any()  # one side is filled


@given(x=coordinate, y=coordinate, width=extent, height=extent)
def test_points_come_back_to_where_they_were(x: float, y: float, width: float, height: float) -> None:
    box = np.array([x, y, x + width, y + height], np.float32)
    affine = topdown.crop_affine(box, SHAPE_HW)
    points = np.array([[x, y], [x + width, y + height], [x + width / 3, y]], np.float32)
    back = affine.inverse().apply(affine.apply(points))
    np.testing.assert_allclose(back, points, atol=max(abs(x), abs(y), width, height) * 1e-4 + 1e-3)


def test_the_crop_shows_the_picture_where_the_affine_says_and_black_beyond_it() -> None:
    image = np.maximum(noise((300, 400)), 1)
    box = np.array([[100, 100, 250, 300]], np.float32)
    (crop,), (affine,) = topdown.crop_people(image, box, (250, 188))  # very nearly the scale 1
    x, y = (round(float(v)) for v in affine.apply(np.array([180, 200], np.float32)))
    scale_is_one = abs(affine.scale_x - 1) < 0.01
    assert scale_is_one
    np.testing.assert_allclose(crop[y, x].astype(int), image[200, 180].astype(int), atol=90)
    (edge,), _ = topdown.crop_people(image, np.array([[-200, 0, 100, 400]], np.float32), (250, 188))
    assert not edge[:, :60].any()
    assert edge[125, 187].any()


@pytest.mark.parametrize(
    "box",
    [(10, 10, 10, 10), (10, 10, 11, 10.5), (-50, -50, -40, -40), (0, 0, 5000, 3), (-1e4, -1e4, 1e4, 1e4)],
    ids=["a point", "half a pixel", "outside", "a hair", "huge"],
)
def test_any_box_makes_a_crop(box: tuple[float, float, float, float]) -> None:
    crops, (affine,) = topdown.crop_people(noise((64, 48)), np.array([box], np.float32), SHAPE_HW)
    assert crops.shape == (1, *SHAPE_HW, 3)
    assert np.isfinite([affine.scale_x, affine.shift_x, affine.shift_y]).all()
    assert affine.scale_x > 0


def test_bodies_move_into_their_own_crops_and_the_first_stage_is_not_written_into() -> None:
    boxes = np.array([[0, 0, 100, 200], [300, 100, 340, 180]], np.float32)
    affines = [topdown.crop_affine(box, SHAPE_HW) for box in boxes]
    keypoints = np.array([[[50, 100, 0.9]], [[320, 140, 0.1]]], np.float32)
    before = keypoints.copy()
    bodies = topdown.bodies_in_crops(keypoints, affines)
    np.testing.assert_allclose(bodies[:, 0], [[192, 256, 0.9], [192, 256, 0.1]], rtol=1e-6)
    np.testing.assert_array_equal(keypoints, before)


def test_an_answer_is_put_back_into_the_picture_and_what_was_not_seen_is_nowhere() -> None:
    found = people((0, 0, 100, 200))
    affines = [topdown.crop_affine(found.boxes_xyxy[0], SHAPE_HW)]
    points = np.array([[[192, 256], [np.nan, np.nan]]], np.float32)
    scores = np.array([[0.7, 0.0]], np.float32)
    positions = np.array([[[0.1, -0.2, 0.3], [np.nan] * 3]], np.float32)
    poses = topdown.poses_from_crops(found, affines, points, scores, positions)
    np.testing.assert_allclose(poses.keypoints[0], np.array([[50, 100, 0.7], [0, 0, 0]]), atol=1e-4)
    np.testing.assert_array_equal(poses.boxes_xyxy, found.boxes_xyxy)
    np.testing.assert_array_equal(poses.scores, found.scores)
    assert poses.depth_source == "measured"
    assert poses.positions is not None
    np.testing.assert_array_equal(poses.positions, positions)


@pytest.mark.parametrize(
    ("row", "source"),
    [([np.nan] * 3, "none"), ([np.nan, np.nan, 0.2], "lifted"), ([0.1, 0.1, 0.2], "measured")],
    ids=["nothing", "z alone", "all"],
)
def test_the_source_of_depth_follows_from_what_the_model_gives(row: list[float], source: str) -> None:
    assert topdown.depth_source(np.array([[row]], np.float32)) == source


def person_in_metres() -> Floats:
    """Somebody 1.70 m tall with exactly the proportions that are assumed, turned and bent. Mid-hip origin."""
    h = 1.70
    turn = 0.5  # of the shoulders, about the vertical
    cos, sin = np.cos(turn), np.sin(turn)
    half, trunk = 0.1295 * h, 0.288 * h
    points = {
        "left_shoulder": (half * cos, -trunk, half * sin),
        "right_shoulder": (-half * cos, -trunk, -half * sin),
        "left_hip": (half * cos, 0, half * sin),
        "right_hip": (-half * cos, 0, -half * sin),
    }
    for side in ("left", "right"):
        for name, start, share, direction in (
            ("elbow", "shoulder", 0.186, (0.6, 0.8, 0)),
            ("wrist", "elbow", 0.146, (0, 0.8, -0.6)),
            ("knee", "hip", 0.245, (0, 0.8, -0.6)),
            ("ankle", "knee", 0.246, (0, 1, 0)),
        ):
            offset = np.array(direction) * share * h
            points[f"{side}_{name}"] = tuple(np.array(points[f"{side}_{start}"]) + offset)
    return np.array([points[name] for name in BODY], np.float32)


def seen(metres: Floats, px_per_m: float, score: float = 0.9) -> tuple[Floats, Floats]:
    keypoints = np.concatenate(
        [metres[:, :2] * px_per_m + [400, 300], np.full((len(metres), 1), score)], axis=1
    )
    positions = metres.copy()
    positions[:, :2] = np.nan
    positions[:, 2] += 0.05  # mid-hip is only nearly zero in what models give
    return keypoints[None].astype(np.float32), positions[None]


@pytest.mark.parametrize("px_per_m", [40, 250, 2000])
def test_x_and_y_are_lifted_to_metres_by_the_lengths_of_limbs(px_per_m: float) -> None:
    metres = person_in_metres()
    keypoints, positions = seen(metres, px_per_m)
    lifted = topdown.lift(keypoints, positions, BODY)
    np.testing.assert_allclose(lifted[0], metres, atol=0.002)
    assert np.isnan(positions[0, :, 0]).all()  # the argument is as it was


def test_a_taller_person_is_taken_for_one_of_the_assumed_stature() -> None:
    keypoints, positions = seen(person_in_metres() * np.float32(1.1), 250)
    lifted = topdown.lift(keypoints, positions, BODY, stature_m=1.87)
    np.testing.assert_allclose(lifted[0], person_in_metres() * 1.1, atol=0.003)


def test_a_person_with_too_few_visible_limbs_is_not_lifted() -> None:
    keypoints, positions = seen(person_in_metres(), 250, score=0.1)
    assert np.isnan(topdown.lift(keypoints, positions, BODY)[0, :, :2]).all()
    keypoints, positions = seen(person_in_metres(), 250)
    keypoints[0, BODY.index("left_hip"), 2] = 0
    assert np.isnan(topdown.lift(keypoints, positions, BODY)[0, :, :2]).all()
    assert topdown.lift(keypoints[:0], positions[:0], BODY).shape == (0, len(BODY), 3)
    assert np.isnan(topdown.lift(keypoints[:, :4], positions[:, :4], BODY[:4])[0, :, :2]).all()


def test_a_limb_that_points_at_the_camera_does_not_set_the_scale() -> None:
    metres = person_in_metres()
    wrist, elbow = BODY.index("left_wrist"), BODY.index("left_elbow")
    metres[wrist] = metres[elbow] + [0.01, 0, -0.146 * 1.7]
    keypoints, positions = seen(metres, 250)
    np.testing.assert_allclose(topdown.lift(keypoints, positions, BODY)[0], metres, atol=0.002)


@pytest.mark.parametrize(
    ("size_wh", "box", "part_hw"),
    [
        ((640, 480), (100, 60, 220, 380), (480, 440)),
        ((640, 480), (-50, -50, 10, 10), (33, 33)),
        ((640, 480), (700, 500, 800, 600), (18, 1)),
        ((4000, 3000), (1000, 500, 2000, 2548), (1500, 1646)),
        ((300, 200), (50, 50, 50, 50), (2, 2)),
    ],
    ids=["at the edges", "corner", "mostly outside", "larger than needed", "no extent"],
)
def test_the_part_of_an_image_that_a_person_needs(
    size_wh: tuple[int, int], box: tuple[float, ...], part_hw: tuple[int, int]
) -> None:
    part, affine = topdown.frame_persons(plain(size_wh), np.array([box], np.float32))
    assert part.shape[2] == 3
    assert part.shape[:2] == pytest.approx(part_hw, abs=3)
    assert affine.scale_x == pytest.approx(affine.scale_y, rel=2e-3)


def test_a_small_person_beside_a_large_one_keeps_every_pixel() -> None:
    boxes = np.array([[0, 0, 900, 2800], [3000, 1500, 3060, 1700]], np.float32)
    part, affine = topdown.frame_persons(plain((4000, 3000)), boxes)
    assert affine.scale_x == pytest.approx(1, abs=0.02)
    assert part.shape[0] * part.shape[1] <= topdown.MAX_PIXELS * 1.01


def test_a_huge_image_is_cut_down_to_the_most_pixels() -> None:
    boxes = np.array([[0, 0, 100, 200], [8900, 5800, 9000, 6000]], np.float32)
    part, affine = topdown.frame_persons(np.broadcast_to(np.zeros(3, np.uint8), (6000, 9000, 3)), boxes)
    assert part.shape[0] * part.shape[1] <= topdown.MAX_PIXELS * 1.01
    assert affine.scale_x == pytest.approx((topdown.MAX_PIXELS / (6000 * 9000)) ** 0.5, rel=0.02)


def test_points_of_the_part_come_back_to_where_they_were_and_show_the_same_pixels() -> None:
    image = np.zeros((2400, 2400, 3), np.uint8)
    image[1000:1040, 1400:1440] = 255  # its centre is at 1419.5, 1019.5
    boxes = np.array([[300, 200, 1500, 2300]], np.float32)
    part, affine = topdown.frame_persons(image, boxes)
    assert affine.scale_x < 0.6
    rows, columns = np.nonzero(part[..., 0] > 127)
    place = affine.inverse().apply(np.array([[columns.mean(), rows.mean()]], np.float32))
    np.testing.assert_allclose(place, [[1419.5, 1019.5]], atol=0.6)
    keypoints = np.array([[[1419.5, 1019.5, 0.7]], [[0, 0, 0]]], np.float32)
    inside, bodies = topdown.in_frame(affine, boxes, keypoints)
    np.testing.assert_allclose(bodies[0, 0], [columns.mean(), rows.mean(), 0.7], atol=0.6)
    np.testing.assert_allclose(affine.inverse().apply(inside.reshape(2, 2)).ravel(), boxes[0], atol=0.01)
    assert keypoints[0, 0, 0] == 1419.5
