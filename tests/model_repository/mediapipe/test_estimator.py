"""Batches of pictures with their people through all networks."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.model_repository.mediapipe.holistic import (
    PICTURES,
    WEIGHTS,
    distances,
    first_stage,
    picture,
    reference,
    scene_of,
)
from tests.pictures import noise
from wholebody.assembly import Person
from wholebody.estimator import Estimator, Scene

Floats = NDArray[np.float32]
Rgb8 = NDArray[np.uint8]
LEFT, RIGHT, FACE, FEET = slice(91, 112), slice(112, 133), slice(23, 91), [17, 19, 20, 22]
NOBODY_KNOWN = np.full((1, 17, 3), np.nan, np.float32)


def equal(a: Person, b: Person) -> bool:
    return all(
        np.array_equal(x, y, equal_nan=True)
        for x, y in ((a.keypoints, b.keypoints), (a.scores, b.scores), (a.positions, b.positions))
    )


def only(estimator: Estimator, scene: Scene) -> Person:
    """The person of a scene that asks about one."""
    ((person,),) = estimator([scene])
    return person


def test_an_empty_batch_is_answered(estimator: Estimator) -> None:
    assert estimator([]) == []


def test_a_batch_is_the_same_as_its_people_one_by_one(estimator: Estimator) -> None:
    scenes = [scene_of(name) for name in PICTURES]
    together = estimator(scenes)
    assert [len(people) for people in together] == [len(scene.boxes) for scene in scenes]
    for name, people in zip(PICTURES, together, strict=True):
        for i, person in enumerate(people):
            assert equal(person, only(estimator, scene_of(name, i)))


def test_one_core_gives_the_same_as_two(estimator: Estimator) -> None:
    single = Estimator(WEIGHTS, 1)
    scene = scene_of("two_people.jpg")
    (mine,), (theirs,) = single([scene]), estimator([scene])
    single.close()
    assert all(equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_a_person_stays_the_same_wherever_the_picture_begins(estimator: Estimator) -> None:
    scene = scene_of("single_person.jpg", 0)
    shift = np.array([128, 64], np.float32)
    moved = Scene(
        np.pad(scene.image, ((64, 0), (128, 0), (0, 0)), mode="edge"),
        scene.boxes + np.tile(shift, 2),
        scene.bodies + np.array([*shift, 0], np.float32),
    )
    here, there = only(estimator, scene), only(estimator, moved)
    np.testing.assert_allclose(there.keypoints - shift, here.keypoints, atol=0.5, equal_nan=True)


def test_hands_are_on_the_ends_of_their_own_arms(estimator: Estimator) -> None:
    person = only(estimator, scene_of("single_person.jpg", 0))
    expected = reference("single_person.jpg", call="first")
    assert expected.left_hand is not None
    assert expected.right_hand is not None
    for start, points in ((91, expected.left_hand), (112, expected.right_hand)):
        assert person.scores[start] > 0.5
        hand = person.keypoints[start : start + 21]
        assert np.median(distances(hand, points)) <= 4.0  # px of a picture 1920 high
    # In this picture the left arm hangs down and the right arm is up.
    assert person.keypoints[LEFT, 1].min() > person.keypoints[RIGHT, 1].max()


@pytest.mark.parametrize("name", PICTURES)
def test_the_3d_body_appears_where_the_2d_body_is(name: str, estimator: Estimator) -> None:
    (people,) = estimator([scene_of(name)])
    for person in people:
        if np.isnan(person.positions[:17]).any():
            continue
        world, points = person.positions[:17, :2], person.keypoints[:17]
        centred = world - world.mean(0)
        scale = (centred * (points - points.mean(0))).sum() / (centred**2).sum()
        off = distances(centred * scale, points - points.mean(0))
        assert np.median(off) <= 0.05 * np.ptp(points[:, 1])


def test_limbs_that_a_sure_first_stage_has_in_one_place_are_where_they_are_seen(estimator: Estimator) -> None:
    """For the first stage the acrobat's shoulders are both on the chest, and one arm is at the other."""
    scene = scene_of("two_people.jpg")
    body = scene.bodies[0]
    assert body[[5, 6], 2].min() > 0.8
    assert np.linalg.norm(body[5, :2] - body[6, :2]) < 40
    person = estimator([scene])[0][0]
    seen = {5: (680, 660), 6: (600, 540), 7: (652, 785), 8: (500, 465), 11: (512, 820)}
    for row, place in seen.items():
        assert np.linalg.norm(person.keypoints[row, :2] - place) < 40
        assert person.scores[row] >= 0.3


def test_the_body_is_near_the_first_stages_where_that_is_sure(estimator: Estimator) -> None:
    scene = scene_of("two_people.jpg")
    (people,) = estimator([scene])
    # all but the acrobat, of whom the first stage is sure and wrong
    for person, body, box in list(zip(people, scene.bodies, scene.boxes, strict=True))[1:]:
        sure = body[:, 2] > 0.9
        away = distances(person.keypoints[:17][sure], body[sure, :2])
        assert np.median(away) <= 0.03 * max(box[2] - box[0], box[3] - box[1])


def test_feet_are_below_and_left_is_left_in_three_dimensions(estimator: Estimator) -> None:
    """Somebody who stands upright and looks at the camera has the left side on the right of the picture."""
    person = only(estimator, scene_of("single_person.jpg", 1))
    positions = person.positions
    assert positions[5, 0] > positions[6, 0]  # shoulders
    assert positions[11, 0] > positions[12, 0]  # hips
    assert (person.keypoints[FEET, 1] > person.keypoints[[13, 14], 1].max()).all()
    assert (positions[FEET, 1] > 0.5).all()  # feet, metres below the hips
    assert positions[0, 1] < -0.4  # nose
    assert positions[0, 2] < 0  # in front of the hips
    np.testing.assert_allclose(positions[[11, 12]].mean(0), 0, atol=1e-6)


def test_a_person_seen_from_behind_has_the_left_side_on_the_left(estimator: Estimator) -> None:
    woman = only(estimator, scene_of("two_people.jpg", 1))
    assert woman.positions[5, 0] < woman.positions[6, 0]
    assert woman.positions[11, 0] < woman.positions[12, 0]


def test_a_mirrored_picture_gives_the_mirrored_person(estimator: Estimator) -> None:
    scene = scene_of("single_person.jpg", 1)
    flip = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15])
    width = scene.image.shape[1]
    bodies = scene.bodies[:, flip].copy()
    bodies[..., 0] = width - 1 - bodies[..., 0]
    boxes = scene.boxes[:, [2, 1, 0, 3]].copy()
    boxes[:, [0, 2]] = width - 1 - boxes[:, [0, 2]]
    a = only(estimator, scene)
    b = only(estimator, Scene(np.ascontiguousarray(scene.image[:, ::-1]), boxes, bodies))
    expected = a.positions[:17][flip] * np.array([-1, 1, 1], np.float32)
    assert np.median(distances(b.positions[:17], expected)) < 0.10  # sides swapped would be 0.2 and more


def test_the_face_is_upright_and_in_front_of_the_ears(estimator: Estimator) -> None:
    person = only(estimator, scene_of("astronaut.png"))
    face, positions = person.keypoints[FACE], person.positions[FACE]
    assert person.scores[23] > 0.9
    assert face[8, 1] > face[57, 1] > face[33, 1] > face[27, 1] > face[19, 1]  # chin, lip, nose, bridge, brow
    assert face[0, 0] < face[16, 0]  # the right ear is on the left: the face looks at the camera
    assert positions[30, 2] < positions[0, 2]  # nose tip nearer than the ears
    assert positions[0, 0] < positions[16, 0]
    assert 0.12 < np.linalg.norm(positions[0] - positions[16]) < 0.18  # as wide as a face
    expected = reference("astronaut.png", call="first").face
    assert expected is not None
    assert np.median(distances(person.keypoints[166:], expected)) <= 1.0


def test_a_face_out_of_focus_is_found_near_where_the_sharp_one_is(estimator: Estimator) -> None:
    scene = scene_of("astronaut.png")
    sharp = only(estimator, scene).keypoints[166:]
    blurred = only(
        estimator, replace(scene, image=np.asarray(cv2.GaussianBlur(scene.image, (0, 0), 6), np.uint8))
    )
    assert blurred.scores[166] > 0.8
    assert np.median(distances(blurred.keypoints[166:], sharp)) < 0.1 * np.ptp(sharp[:, 1])


def test_heads_from_behind_and_made_unrecognisable_have_no_face_and_one_behind_a_mask_has(
    estimator: Estimator,
) -> None:
    (people,) = estimator([scene_of("two_people.jpg")])
    assert [person.scores[23] > 0.8 for person in people] == [False, False, True]


def test_three_dimensions_agree_with_holistic_where_the_squares_differ(estimator: Estimator) -> None:
    """Holistic finds its own square; here it comes from the first stage's body, and joints move to the 2D
    body."""
    person = only(estimator, scene_of("single_person.jpg", 0))
    expected = reference("single_person.jpg", call="first").pose_world
    expected = expected - expected[[23, 24]].mean(0)
    assert np.median(distances(person.positions[133:166], expected)) <= 0.070


@pytest.mark.parametrize("cut_at", [0.45, 0.6, 0.8], ids=["above the hips", "at the hips", "at the knees"])
def test_people_cut_by_the_frame_keep_what_is_left_of_them(cut_at: float, estimator: Estimator) -> None:
    boxes, keypoints = first_stage("two_people.jpg")
    box, body = boxes[2].copy(), keypoints[2:3].copy()  # the bystander, who stands upright
    bottom = int(box[1] + cut_at * (box[3] - box[1]))
    box[3] = bottom
    body[0, body[0, :, 1] > bottom, 2] = 0.05
    image = np.ascontiguousarray(picture("two_people.jpg")[:bottom])
    person = only(estimator, Scene(image, box[None], body))
    uncut = only(estimator, scene_of("two_people.jpg", 2))
    assert (person.scores[133 + 11 : 133 + 13] > 0.5).all()
    arms = slice(133 + 11, 133 + 17)
    trunk = np.linalg.norm(uncut.positions[[5, 6]].mean(0))
    difference = person.positions[arms] - person.positions[[5, 6]].mean(0)
    difference -= uncut.positions[arms] - uncut.positions[[5, 6]].mean(0)
    assert np.median(np.linalg.norm(difference, axis=1)) < 0.3 * trunk


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
def test_an_implausible_body_affects_no_others_and_comes_back_finite(
    body: Floats, estimator: Estimator
) -> None:
    scene = scene_of("two_people.jpg", 0)
    alone = only(estimator, scene)
    with np.errstate(over="ignore"):
        ((person,), (neighbour,)) = estimator([replace(scene, bodies=body[None]), scene])
    assert equal(neighbour, alone)
    assert np.isfinite(person.scores).all()
    assert np.isfinite(person.keypoints[person.scores > 0]).all()


def test_a_senseless_neighbour_changes_nothing(estimator: Estimator) -> None:
    scene = scene_of("single_person.jpg", 0)
    alone = only(estimator, replace(scene, bodies=scene.bodies[:1]))
    beside = only(estimator, replace(scene, bodies=np.concatenate([scene.bodies[:1], NOBODY_KNOWN])))
    assert equal(alone, beside)


def test_without_a_body_the_pose_detector_finds_the_person(estimator: Estimator) -> None:
    scene = scene_of("single_person.jpg", 1)
    told = only(estimator, replace(scene, bodies=scene.bodies[:1]))
    found = only(estimator, replace(scene, bodies=NOBODY_KNOWN))
    side = (scene.boxes[0, 2:] - scene.boxes[0, :2]).max()
    assert np.median(distances(found.keypoints[133:166], told.keypoints[133:166])) < 0.03 * side
    assert np.isfinite(found.positions[:17]).all()


def test_a_body_of_no_person_in_the_image_gets_nothing_from_the_pose_network(
    estimator: Estimator,
) -> None:
    """The first stage's points of one person, in the box of another one: whose pose it is cannot be told."""
    scene = scene_of("two_people.jpg")
    wrong = Scene(scene.image, scene.boxes[:1], scene.bodies[[1]] + np.array([-300, -500, 0], np.float32))
    person = only(estimator, wrong)
    assert np.isnan(person.positions).all()
    assert not person.scores[133:166].any()
    assert not person.scores[FEET].any()


def test_the_pose_of_a_neighbour_is_not_taken(estimator: Estimator) -> None:
    """A person whom only the box is known of, and in it another one whose body is known."""
    scene = scene_of("two_people.jpg", 0)
    taken = Scene(scene.image, scene.boxes, np.concatenate([NOBODY_KNOWN, scene.bodies[:1]]))
    person = only(estimator, taken)
    own = only(estimator, scene)
    if person.scores[133:166].any():
        away = distances(person.keypoints[133:166], own.keypoints[133:166])
        assert np.median(away) > 0.25 * (scene.boxes[0, 3] - scene.boxes[0, 1]) / 3


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((512, 384, 3), np.uint8),
        noise((384, 512)),
        np.full((512, 384, 3), 255, np.uint8),
        np.full((2, 2, 3), 200, np.uint8),
        np.full((1, 384, 3), 200, np.uint8),
    ],
    ids=["black", "noise", "white", "four pixels", "one row"],
)
def test_in_an_image_without_persons_nothing_is_found(image: Rgb8, estimator: Estimator) -> None:
    scene = scene_of("single_person.jpg", 0)
    height, width = image.shape[:2]
    box = np.array([[0, 0, width, height]], np.float32)
    for bodies in (NOBODY_KNOWN, scene.bodies[:1] * np.array([0.3, 0.3, 1], np.float32)):
        person = only(estimator, Scene(image, box, bodies))
        assert not person.scores[17:].any()
        assert np.isnan(person.positions).all()


@pytest.mark.parametrize("side", [2, 6, 14, 30])
def test_boxes_of_a_few_pixels_are_answered(side: int, estimator: Estimator) -> None:
    boxes = np.array([[600, 600, 600 + side, 600 + 2 * side]], np.float32)
    body = np.full((1, 17, 3), 0.9, np.float32)
    body[..., :2] = [600, 600]
    person = only(estimator, Scene(picture("two_people.jpg"), boxes, body))
    assert person.scores.shape == (634,)
    assert np.isfinite(person.scores).all()


def test_pictures_that_cannot_be_written_to_are_read(estimator: Estimator) -> None:
    scene = scene_of("single_person.jpg", 0)
    for array in (scene.image, scene.boxes, scene.bodies):
        array.setflags(write=False)
    assert equal(only(estimator, scene), only(estimator, scene_of("single_person.jpg", 0)))
