"""Two forearms in one place are one forearm."""

from __future__ import annotations

import numpy as np
import pytest

from service.core.angles import Status, person_measures
from service.core.contested_arms import COCO_ARMS, DOUBTFUL, arms_of, doubt_contested_arms
from service.core.poses import Floats
from service.core.skeleton.template import Skeleton
from tests.core.angles.figures import BLAZE, COCO, COCO_NAMES, WHOLEBODY, measured, poses_of, skeleton_of

LEFT_ELBOW, RIGHT_ELBOW, LEFT_WRIST, RIGHT_WRIST = 7, 8, 9, 10
STANDING = np.array(
    [
        (0, -150), (6, -156), (-6, -156), (14, -150), (-14, -150), (40, -100), (-40, -100), (55, -30),
        (-55, -30), (60, 30), (-60, 30), (25, 20), (-25, 20), (28, 120), (-28, 120), (30, 220), (-30, 220),
    ],
    np.float32,
)  # fmt: skip


def beside_one_another(count: int = 2, apart: float = 260.0, joints: int = 17) -> Floats:
    """(N, K, 3) who stand so many px apart and face the camera."""
    keypoints = np.zeros((count, joints, 3), np.float32)
    keypoints[:, :17, :2] = STANDING + np.array((400, 300), np.float32)
    keypoints[:, :17, 0] += apart * np.arange(count, dtype=np.float32)[:, None]
    keypoints[:, :17, 2] = 0.9
    return keypoints


def taken(keypoints: Floats, score: float, off: float = 10.0) -> Floats:
    """The second person's right forearm where the first one points to with the left one."""
    keypoints[0, [LEFT_ELBOW, LEFT_WRIST], :2] = (560, 260), (620, 250)
    keypoints[1, [RIGHT_ELBOW, RIGHT_WRIST], :2] = keypoints[0, [LEFT_ELBOW, LEFT_WRIST], :2] + np.float32(
        off
    )
    keypoints[1, [RIGHT_ELBOW, RIGHT_WRIST], 2] = score
    return keypoints


def doubted(before: Floats, skeleton: Skeleton = COCO) -> list[tuple[int, str]]:
    """Which keypoints lost in score; nothing else may change."""
    found = doubt_contested_arms(poses_of(before), skeleton.names).keypoints
    np.testing.assert_array_equal(found[..., :2], before[..., :2])
    changed = np.argwhere(found[..., 2] != before[..., 2])
    assert all(found[n, k, 2] == np.float32(DOUBTFUL) for n, k in changed)
    return [(int(n), skeleton.names[k]) for n, k in changed]


def test_zero_persons_one_person_and_a_skeleton_without_arms_stay_as_they_are() -> None:
    for people in (np.zeros((0, 17, 3), np.float32), beside_one_another(1)):
        assert doubt_contested_arms(before := poses_of(people), COCO_NAMES) is before
    hands = poses_of(np.ones((2, 2, 3), np.float32))
    assert doubt_contested_arms(hands, ("hand_root", "thumb1")) is hands


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0.9, [(0, "left_wrist"), (1, "right_wrist")]),
        (0.85, [(0, "left_wrist"), (1, "right_wrist")]),
        (0.7, [(1, "right_wrist")]),
    ],
    ids=["as sure", "a little less sure", "clearly less sure"],
)
def test_an_arm_that_two_persons_claim_is_doubtful(score: float, expected: list[tuple[int, str]]) -> None:
    assert doubted(taken(beside_one_another(), score)) == expected


@pytest.mark.parametrize(
    ("off", "score"), [(30.0, 0.9), (10.0, 0.2)], ids=["half a forearm away", "not sure of it anyhow"]
)
def test_an_arm_that_nobody_else_claims_is_not(off: float, score: float) -> None:
    assert doubted(taken(beside_one_another(), score, off)) == []


def test_people_who_hold_hands_keep_their_arms() -> None:
    people = beside_one_another(apart=200)
    people[0, LEFT_WRIST, :2] = people[1, RIGHT_WRIST, :2] = 500, 320
    assert doubted(people) == []


def test_a_person_who_was_found_twice_keeps_the_arms() -> None:
    assert doubted(beside_one_another(apart=8)) == []


def test_a_hand_goes_with_its_wrist() -> None:
    people = taken(beside_one_another(joints=133), 0.6)
    people[1, 112:133, :2] = people[1, RIGHT_WRIST, :2] + np.arange(21, dtype=np.float32)[:, None]
    people[1, 112:133, 2] = 0.99
    names = {name for _, name in doubted(people, WHOLEBODY)}
    assert names == {"right_wrist", *(name for name in WHOLEBODY.names[112:133])}


@pytest.mark.parametrize(("moved", "doubtful"), [(5.0, True), (80.0, False)])
def test_a_wrist_that_the_second_stage_has_elsewhere_is_not_doubted(moved: float, doubtful: bool) -> None:
    first = taken(beside_one_another(), 0.7)
    second = first.copy()
    second[:, [LEFT_ELBOW, LEFT_WRIST], 2] = 0.2
    second[1, RIGHT_WRIST, 0] += moved
    second[1, RIGHT_WRIST, 2] = 1.0
    assert not (doubt_contested_arms(poses_of(second), COCO_NAMES).keypoints != second).any()
    found = doubt_contested_arms(poses_of(second), COCO_NAMES, first, COCO_ARMS).keypoints
    assert found[1, RIGHT_WRIST, 2] == np.float32(DOUBTFUL if doubtful else 1.0)


def test_an_angle_of_a_claimed_arm_says_which_keypoint_is_doubtful() -> None:
    def doubts(people: Floats, person: int) -> tuple[str, ...]:
        judged = doubt_contested_arms(poses_of(people), COCO_NAMES).keypoints
        value = person_measures(measured(judged, ("elbow_side",)), person).results[0].right
        assert value is not None
        assert (value.status == Status.OK) == (not value.reasons)
        return tuple(reason for reason in value.reasons if reason.startswith("LOW_CONFIDENCE"))

    assert doubts(beside_one_another(), 1) == ()
    assert doubts(taken(beside_one_another(), 0.7), 1) == ("LOW_CONFIDENCE:right_wrist",)
    assert doubts(taken(beside_one_another(), 0.7), 0) == ()


def test_a_wrist_that_a_model_has_under_two_names_is_doubtful_under_both() -> None:
    skeleton = skeleton_of(
        (*COCO_NAMES, "blazepose_left_wrist", "blazepose_right_wrist", "blazepose_right_thumb")
    )
    people = taken(beside_one_another(joints=20), 0.7)
    people[:, 17:, 2] = 0.9
    assert doubted(people, skeleton) == [
        (1, name) for name in ("right_wrist", "blazepose_right_wrist", "blazepose_right_thumb")
    ]


def test_arms_go_by_name() -> None:
    (left, right) = arms_of(WHOLEBODY.names)
    assert (left.elbow, left.wrist, left.hand) == (7, 9, tuple(range(91, 112)))
    assert (right.elbow, right.wrist, right.hand) == (8, 10, tuple(range(112, 133)))
    assert arms_of(COCO.names) == COCO_ARMS
    hands = [[BLAZE.names[row] for row in arm.hand] for arm in arms_of(BLAZE.names)]
    assert hands == [[f"{side}_index", f"{side}_pinky"] for side in ("left", "right")]
    assert arms_of(skeleton_of(COCO_NAMES[:10]).names) == ()
