"""Batches of crops through all networks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.topdown import bodies_in_crops, crop_people
from tests.model_repository.mediapipe.holistic import (
    CROP_HW,
    PICTURES,
    WEIGHTS,
    crops_of,
    distances,
    first_stage,
    picture,
    reference,
)
from tests.pictures import noise
from wholebody.assembly import Person
from wholebody.estimator import Estimator

Floats = NDArray[np.float32]
Rgb8 = NDArray[np.uint8]


def equal(a: Person, b: Person) -> bool:
    return all(
        np.array_equal(x, y, equal_nan=True)
        for x, y in ((a.keypoints, b.keypoints), (a.scores, b.scores), (a.positions, b.positions))
    )


def everybody() -> tuple[list[Rgb8], list[Floats]]:
    crops: list[Rgb8] = []
    bodies: list[Floats] = []
    for name in PICTURES:
        found, inside, _ = crops_of(name)
        crops += list(found)
        bodies += list(inside)
    return crops, bodies


def test_an_empty_batch_is_answered(estimator: Estimator) -> None:
    assert estimator([], []) == []


@pytest.mark.parametrize("count", [2, 3, 5, 6])
def test_a_batch_is_the_same_as_its_people_one_by_one(count: int, estimator: Estimator) -> None:
    crops, bodies = everybody()
    together = estimator(crops[:count], bodies[:count])
    assert len(together) == count
    for i, person in enumerate(together):
        assert equal(person, estimator([crops[i]], [bodies[i]])[0])


def test_one_core_gives_the_same_as_two(estimator: Estimator) -> None:
    single = Estimator(WEIGHTS, 1)
    crops, bodies = everybody()
    assert all(equal(a, b) for a, b in zip(single(crops, bodies), estimator(crops, bodies), strict=True))
    single.close()


def test_a_person_stays_the_same_wherever_the_crop_came_from(estimator: Estimator) -> None:
    """The picture moved by whole pixels gives the same crop, so the same person."""
    image = picture("single_person.jpg")
    boxes, keypoints = first_stage("single_person.jpg")
    moved = np.pad(image, ((64, 0), (128, 0), (0, 0)))
    shift = np.array([128, 64], np.float32)
    here, affines = crop_people(image, boxes[:1], CROP_HW)
    there, affines_there = crop_people(moved, boxes[:1] + np.tile(shift, 2), CROP_HW)
    moved_keypoints = keypoints[:1].copy()
    moved_keypoints[..., :2] += shift
    (a,) = estimator(list(here), list(bodies_in_crops(keypoints[:1], affines)))
    (b,) = estimator(list(there), list(bodies_in_crops(moved_keypoints, affines_there)))
    np.testing.assert_allclose(a.keypoints, b.keypoints, atol=0.5, equal_nan=True)


def test_hands_are_on_the_ends_of_their_own_arms(estimator: Estimator) -> None:
    crops, bodies, affines = crops_of("single_person.jpg")
    (person,) = estimator(list(crops[:1]), list(bodies[:1]))
    expected = reference("single_person.jpg", call="first")
    assert expected.left_hand is not None
    assert expected.right_hand is not None
    inverse = affines[0].inverse()
    for start, points in ((91, expected.left_hand), (112, expected.right_hand)):
        hand = inverse.apply(person.keypoints[start : start + 21])
        assert person.scores[start] > 0.5
        assert np.median(distances(hand, points)) <= 4.0  # px of a picture 1920 high
    # In this picture his left arm hangs down and his right arm is up.
    assert person.keypoints[91:112, 1].min() > person.keypoints[112:133, 1].max()


def test_feet_are_below_and_left_is_left_in_three_dimensions(estimator: Estimator) -> None:
    """Who stands upright and looks at the camera has the left side on the right of the picture."""
    crops, bodies, _ = crops_of("single_person.jpg")
    (person,) = estimator([crops[1]], [bodies[1]])
    positions = person.positions
    assert positions[5, 0] > positions[6, 0]  # shoulders
    assert positions[11, 0] > positions[12, 0]  # hips
    assert (person.keypoints[[17, 19, 20, 22], 1] > person.keypoints[[13, 14], 1].max()).all()
    assert (positions[[17, 19, 20, 22], 1] > 0.5).all()  # feet, metres below the hips
    assert positions[0, 1] < -0.4  # nose
    assert positions[0, 2] < 0  # in front of the hips
    np.testing.assert_allclose(positions[[11, 12]].mean(0), 0, atol=1e-6)


def test_somebody_seen_from_behind_has_the_left_side_on_the_left(estimator: Estimator) -> None:
    crops, bodies, _ = crops_of("two_people.jpg")
    (woman,) = estimator([crops[1]], [bodies[1]])
    assert woman.positions[5, 0] < woman.positions[6, 0]
    assert woman.positions[11, 0] < woman.positions[12, 0]


def test_a_mirrored_picture_gives_the_mirrored_person(estimator: Estimator) -> None:
    crops, bodies, _ = crops_of("single_person.jpg")
    flip = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15])
    mirrored = bodies[1][flip]
    mirrored[:, 0] = CROP_HW[1] - 1 - mirrored[:, 0]
    (a,) = estimator([crops[1]], [bodies[1]])
    (b,) = estimator([np.ascontiguousarray(crops[1][:, ::-1])], [mirrored])
    expected = a.positions[:17][flip] * np.array([-1, 1, 1], np.float32)
    assert np.median(distances(b.positions[:17], expected)) < 0.10  # sides swapped would be 0.2 and more


def test_the_face_is_upright_and_in_front_of_the_ears(estimator: Estimator) -> None:
    crops, bodies, affines = crops_of("astronaut.png")
    (person,) = estimator(list(crops), list(bodies))
    face, positions = person.keypoints[23:91], person.positions[23:91]
    assert person.scores[23] > 0.9
    assert face[8, 1] > face[57, 1] > face[33, 1] > face[27, 1] > face[19, 1]  # chin, lip, nose, bridge, brow
    assert face[0, 0] < face[16, 0]  # she looks at the camera: her right ear is on the left
    assert positions[30, 2] < positions[0, 2]  # nose tip nearer than the ears
    assert positions[0, 0] < positions[16, 0]
    assert 0.12 < np.linalg.norm(positions[0] - positions[16]) < 0.18  # as wide as a face
    mesh = affines[0].inverse().apply(person.keypoints[166:])
    expected = reference("astronaut.png", call="first").face
    assert expected is not None
    assert np.median(distances(mesh, expected)) <= 1.0


def test_three_dimensions_agree_with_holistic_where_the_squares_differ(estimator: Estimator) -> None:
    """Holistic finds its own square; here it comes from the first stage's body."""
    crops, bodies, _ = crops_of("single_person.jpg")
    (person,) = estimator(list(crops[:1]), list(bodies[:1]))
    expected = reference("single_person.jpg", call="first").pose_world
    expected = expected - expected[[23, 24]].mean(0)
    assert np.median(distances(person.positions[133:166], expected)) <= 0.050


@pytest.mark.parametrize("cut_at", [0.45, 0.6, 0.8], ids=["above the hips", "at the hips", "at the knees"])
def test_people_cut_by_the_frame_keep_what_is_left_of_them(cut_at: float, estimator: Estimator) -> None:
    boxes, keypoints = first_stage("two_people.jpg")
    box, body = boxes[2].copy(), keypoints[2:3].copy()  # the bystander, who stands upright
    bottom = int(box[1] + cut_at * (box[3] - box[1]))
    image = np.ascontiguousarray(picture("two_people.jpg")[:bottom])
    box[3] = bottom
    body[0, body[0, :, 1] > bottom, 2] = 0.05
    crops, affines = crop_people(image, box[None], CROP_HW)
    (person,) = estimator(list(crops), list(bodies_in_crops(body, affines)))
    whole, bodies, _ = crops_of("two_people.jpg")
    (uncut,) = estimator([whole[2]], [bodies[2]])
    assert (person.scores[133 + 11 : 133 + 13] > 0.5).all()
    arms = slice(133 + 11, 133 + 17)
    trunk = np.linalg.norm(uncut.positions[[5, 6]].mean(0))
    difference = person.positions[arms] - person.positions[[5, 6]].mean(0)
    difference -= uncut.positions[arms] - uncut.positions[[5, 6]].mean(0)
    assert np.median(np.linalg.norm(difference, axis=1)) < 0.3 * trunk


def test_the_black_around_the_picture_is_not_looked_at(estimator: Estimator) -> None:
    """More black around the same picture moves nothing."""
    crops, bodies, _ = crops_of("single_person.jpg")
    crop, body = crops[1].copy(), bodies[1].copy()
    seen = np.flatnonzero(crop.any((0, 2)))
    assert seen[0] > 0  # he stands at the left edge
    (a,) = estimator([crop], [body])
    wider = np.pad(crop, ((0, 0), (40, 0), (0, 0)))
    body[:, 0] += 40
    (b,) = estimator([wider], [body])
    moved = a.keypoints + np.array([40, 0], np.float32)
    np.testing.assert_allclose(b.keypoints, moved, atol=1.0, equal_nan=True)


@pytest.mark.parametrize(
    "body",
    [
        np.full((17, 3), np.nan, np.float32),
        np.full((17, 3), np.inf, np.float32),
        np.zeros((17, 3), np.float32),
        np.full((17, 3), 1e30, np.float32),
        np.full((17, 3), -1, np.float32),
    ],
    ids=["nan", "infinite", "all at one point", "huge", "negative"],
)
def test_a_senseless_body_harms_nobody_and_comes_back_as_it_was(body: Floats, estimator: Estimator) -> None:
    crops, bodies, _ = crops_of("two_people.jpg")
    alone = estimator([crops[0]], [bodies[0]])[0]
    person, neighbour = estimator([crops[1], crops[0]], [body, bodies[0]])
    np.testing.assert_array_equal(person.keypoints[:17], body[:, :2])
    np.testing.assert_array_equal(person.scores[:17], body[:, 2])
    assert equal(neighbour, alone)
    assert np.isfinite(person.scores[17:]).all()


def test_without_a_body_the_pose_detector_finds_the_person(estimator: Estimator) -> None:
    crops, bodies, _ = crops_of("single_person.jpg")
    (told,) = estimator([crops[1]], [bodies[1]])
    (found,) = estimator([crops[1]], [np.full((17, 3), np.nan, np.float32)])
    assert np.median(distances(found.keypoints[133:166], told.keypoints[133:166])) < 12
    assert np.isfinite(found.positions[:17]).all()


@pytest.mark.parametrize(
    "crop",
    [
        np.zeros((512, 384, 3), np.uint8),
        noise((384, 512)),
        np.full((512, 384, 3), 255, np.uint8),
        np.pad(np.full((2, 2, 3), 200, np.uint8), ((255, 255), (191, 191), (0, 0))),
        np.pad(np.full((1, 384, 3), 200, np.uint8), ((511, 0), (0, 0), (0, 0))),
    ],
    ids=["black", "noise", "white", "four pixels", "one row"],
)
def test_where_there_is_nobody_nothing_is_found(crop: Rgb8, estimator: Estimator) -> None:
    for body in (np.full((17, 3), np.nan, np.float32), crops_of("single_person.jpg")[1][0]):
        (person,) = estimator([crop], [body])
        assert not person.scores[17:].any()
        assert np.isnan(person.positions).all()


@pytest.mark.parametrize("side", [2, 6, 14, 30])
def test_boxes_of_a_few_pixels_are_answered(side: int, estimator: Estimator) -> None:
    image = picture("two_people.jpg")
    boxes = np.array([[600, 600, 600 + side, 600 + 2 * side]], np.float32)
    crops, affines = crop_people(image, boxes, CROP_HW)
    body = np.full((1, 17, 3), 0.9, np.float32)
    body[..., :2] = [600, 600]
    (person,) = estimator(list(crops), list(bodies_in_crops(body, affines)))
    assert person.scores.shape == (634,)
    assert np.isfinite(person.scores).all()


def test_crops_that_cannot_be_written_to_are_read(estimator: Estimator) -> None:
    crops, bodies, _ = crops_of("single_person.jpg")
    crop, body = crops[0].copy(), bodies[0].copy()
    crop.setflags(write=False)
    body.setflags(write=False)
    assert equal(estimator([crop], [body])[0], estimator([crops[0]], [bodies[0]])[0])
