"""Hands, faces and feet are given once."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.poses import Poses
from service.core.shared_parts import without_shared_parts
from service.skeletons import shipped

Floats = NDArray[np.float32]
NAMES = shipped()["mediapipe_wholebody"].names
LEFT, RIGHT, FACE, MESH = slice(91, 112), slice(112, 133), slice(23, 91), slice(166, 634)
LEFT_FOOT, RIGHT_FOOT = [17, 19], [20, 22]
RNG = np.random.default_rng(3)
SHAPES = {rows.start: RNG.random((rows.stop - rows.start, 2)) * 40 for rows in (LEFT, FACE, MESH)}


def people(count: int) -> Floats:
    """(N, 634, 3) who stand 500 px apart, with bodies only."""
    keypoints = np.zeros((count, 634, 3), np.float32)
    for n in range(count):
        keypoints[n, :17, :2] = RNG.random((17, 2)) * 100 + (500 * n + 100, 300)
        keypoints[n, :17, 2] = 0.9
    return keypoints


def put(keypoints: Floats, person: int, rows: slice, at: Floats, score: float = 0.9) -> None:
    start = LEFT.start if rows.start in (91, 112) else rows.start
    keypoints[person, rows, :2] = SHAPES[start] + at
    keypoints[person, rows, 2] = score


def poses(keypoints: Floats) -> Poses:
    count = len(keypoints)
    return Poses(
        boxes_xyxy=np.zeros((count, 4), np.float32),
        scores=np.ones(count, np.float32),
        keypoints=keypoints,
        positions=np.ones_like(keypoints),
        depth_source="measured",
    )


def given(found: Poses, person: int, rows: slice | list[int]) -> bool:
    there = bool((found.keypoints[person, rows, 2] > 0).all())
    assert found.positions is not None
    assert np.isfinite(found.positions[person, rows]).all() == there
    assert there or not found.keypoints[person, rows].any()
    return there


def test_zero_persons_and_a_single_one_stay_as_they_are() -> None:
    for count in (0, 1):
        before = poses(people(count))
        assert without_shared_parts(before, NAMES) is before


def test_a_hand_of_two_people_stays_with_the_one_at_whose_wrist_it_is() -> None:
    keypoints = people(3)
    wrist = keypoints[1, 10, :2].copy()
    put(keypoints, 0, LEFT, wrist, score=0.99)
    put(keypoints, 1, RIGHT, wrist + 3, score=0.6)
    put(keypoints, 2, RIGHT, keypoints[2, 10, :2])
    found = without_shared_parts(poses(keypoints), NAMES)
    assert [given(found, 0, LEFT), given(found, 1, RIGHT), given(found, 2, RIGHT)] == [False, True, True]
    np.testing.assert_array_equal(found.keypoints[:, :17], keypoints[:, :17])


def test_one_person_has_not_the_same_hand_twice() -> None:
    keypoints = people(1)
    put(keypoints, 0, LEFT, keypoints[0, 9, :2])
    put(keypoints, 0, RIGHT, keypoints[0, 9, :2] + 2)
    found = without_shared_parts(poses(keypoints), NAMES)
    assert given(found, 0, LEFT)
    assert not given(found, 0, RIGHT)


def test_hands_that_touch_are_two() -> None:
    keypoints = people(2)
    place = keypoints[0, 9, :2].copy()
    keypoints[1, 9, :2] = place + 20
    put(keypoints, 0, LEFT, place)
    put(keypoints, 1, LEFT, place + 20)
    before = poses(keypoints)
    assert without_shared_parts(before, NAMES) is before


def test_a_face_goes_with_its_mesh() -> None:
    keypoints = people(2)
    nose = keypoints[1, 0, :2].copy()
    for person in (0, 1):
        put(keypoints, person, FACE, nose)
        put(keypoints, person, MESH, nose)
    found = without_shared_parts(poses(keypoints), NAMES)
    assert [given(found, 0, rows) for rows in (FACE, MESH)] == [False, False]
    assert [given(found, 1, rows) for rows in (FACE, MESH)] == [True, True]


def test_a_foot_goes_with_blazeposes_points_of_it() -> None:
    keypoints = people(2)
    ankle = keypoints[0, 16, :2].copy()
    blazepose = [NAMES.index("blazepose_right_heel"), NAMES.index("blazepose_right_foot_index")]
    for person in (0, 1):
        for rows in (RIGHT_FOOT, blazepose):
            keypoints[person, rows, :2] = ankle + np.array([[10, 0], [-10, 4]])
            keypoints[person, rows, 2] = 0.8
    found = without_shared_parts(poses(keypoints), NAMES)
    assert given(found, 0, RIGHT_FOOT)
    assert not given(found, 1, RIGHT_FOOT)
    assert not found.keypoints[1, blazepose].any()


def test_of_a_hand_at_no_wrist_the_one_of_higher_score_stays() -> None:
    keypoints = people(2)
    keypoints[:, [9, 10]] = 0
    put(keypoints, 0, LEFT, np.array([50, 50], np.float32), score=0.6)
    put(keypoints, 1, LEFT, np.array([51, 50], np.float32), score=0.9)
    found = without_shared_parts(poses(keypoints), NAMES)
    assert not given(found, 0, LEFT)
    assert given(found, 1, LEFT)


@pytest.mark.parametrize("name", ["coco_17", "animal_24", "blazepose_33"])
def test_skeletons_without_such_parts_stay_as_they_are(name: str) -> None:
    skeleton = shipped()[name]
    keypoints = np.ones((2, len(skeleton.keypoints), 3), np.float32)
    before = poses(keypoints)
    assert without_shared_parts(before, skeleton.names) is before


def test_a_crowd_is_quickly_gone_through() -> None:
    """300 persons who all have the same two hands keep one pair."""
    keypoints = people(300)
    for person in range(300):
        put(keypoints, person, LEFT, keypoints[7, 9, :2])
        put(keypoints, person, RIGHT, keypoints[7, 10, :2] + 300)
    found = without_shared_parts(poses(keypoints), NAMES)
    kept = (found.keypoints[:, [91, 112], 2] > 0).sum(axis=0)
    assert kept.tolist() == [1, 1]
