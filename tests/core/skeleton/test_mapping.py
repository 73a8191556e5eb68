"""People from one skeleton to another: by name, derived, missing, and hand by hand."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.core.poses import Floats, Poses, extents, present
from service.core.skeleton.mapping import apply, plan_mapping
from service.core.skeleton.template import Edge, Instance, Keypoint, Skeleton
from service.errors import SkeletonNotSupplied
from service.skeletons import shipped

COCO, WHOLE, HAND = (shipped()[name] for name in ("coco_17", "coco_wholebody_133", "mediapipe_hand_21"))
BLAZE, FACE, ANIMAL = (shipped()[name] for name in ("blazepose_33", "mediapipe_face_mesh_468", "animal_24"))

BODY_WITH_NECK = Skeleton(
    name="body_with_neck",
    title="",
    keypoints=(
        Keypoint("nose"),
        Keypoint("neck", sources=(("left_shoulder", 1.0), ("right_shoulder", 1.0))),
        Keypoint("right_wrist"),
    ),
    edges=(Edge("nose", "neck"),),
)


def people(count: int, skeleton: Skeleton, *, seed: int = 0, positions: bool = True) -> Poses:
    """Random people who have every point."""
    rng = np.random.default_rng(seed)
    shape = (count, len(skeleton.keypoints), 3)
    keypoints = rng.uniform(1, 1000, shape).astype(np.float32)
    keypoints[..., 2] = rng.uniform(0.01, 1, shape[:2])
    return Poses(
        boxes_xyxy=np.tile(np.array([0, 0, 1000, 1000], np.float32), (count, 1)),
        scores=np.sort(rng.uniform(0, 1, count)).astype(np.float32)[::-1],
        keypoints=keypoints,
        positions=rng.normal(size=shape).astype(np.float32) if positions else None,
        depth_source="measured" if positions else "none",
    )


def mapped(poses: Poses, source: Skeleton, target: Skeleton) -> Poses:
    return apply(plan_mapping(source, target), poses)


def test_zero_persons_are_mapped_to_zero_persons() -> None:
    for target in (COCO, BODY_WITH_NECK, HAND):
        nobody = mapped(Poses.empty(133), WHOLE, target)

        assert len(nobody) == 0
        assert nobody.keypoint_count == len(target.keypoints)


def test_the_models_own_skeleton_changes_nothing() -> None:
    poses = people(3, COCO)

    assert mapped(poses, COCO, COCO) is poses
    assert mapped(poses, COCO, replace(COCO)) is poses


def test_points_are_found_by_name() -> None:
    poses = people(3, WHOLE)

    body = mapped(poses, WHOLE, COCO)

    np.testing.assert_array_equal(body.keypoints, poses.keypoints[:, :17])
    assert body.positions is not None
    assert poses.positions is not None
    np.testing.assert_array_equal(body.positions, poses.positions[:, :17])
    np.testing.assert_array_equal(body.boxes_xyxy, poses.boxes_xyxy)
    np.testing.assert_array_equal(body.scores, poses.scores)
    assert body.depth_source == "measured"
    assert body.sides is None
    assert body.person_index is None


def test_names_decide_and_not_the_order() -> None:
    reverse = replace(COCO, name="reverse", keypoints=COCO.keypoints[::-1])
    poses = people(2, COCO)

    np.testing.assert_array_equal(mapped(poses, COCO, reverse).keypoints, poses.keypoints[:, ::-1])


def test_a_neck_is_the_middle_of_the_shoulders_with_the_lower_score() -> None:
    poses = people(4, COCO)

    result = mapped(poses, COCO, BODY_WITH_NECK)

    left, right = poses.keypoints[:, 5], poses.keypoints[:, 6]
    np.testing.assert_allclose(result.keypoints[:, 1, :2], (left + right)[:, :2] / 2, rtol=1e-6)
    np.testing.assert_array_equal(result.keypoints[:, 1, 2], np.minimum(left, right)[:, 2])
    np.testing.assert_array_equal(result.keypoints[:, 0], poses.keypoints[:, 0])
    np.testing.assert_array_equal(result.keypoints[:, 2], poses.keypoints[:, 10])
    assert result.positions is not None
    assert poses.positions is not None
    middle = (poses.positions[:, 5] + poses.positions[:, 6]) / 2
    np.testing.assert_allclose(result.positions[:, 1], middle, rtol=1e-5, atol=1e-6)


def test_weights_need_not_add_up_to_one() -> None:
    point = Keypoint("p", sources=(("nose", 300.0), ("left_eye", 100.0), ("right_eye", 100.0)))
    poses = people(2, COCO)

    result = mapped(poses, COCO, Skeleton("one", "", (point, Keypoint("q", sources=(("nose", 7.0),)))))

    expected = poses.keypoints[:, :3, :2].transpose(0, 2, 1) @ np.array([0.6, 0.2, 0.2])
    np.testing.assert_allclose(result.keypoints[:, 0, :2], expected, rtol=1e-5)
    np.testing.assert_array_equal(result.keypoints[:, 1], poses.keypoints[:, 0])


@pytest.mark.parametrize(
    ("source", "target", "missing", "count"),
    [
        (COCO, WHOLE, "'left_big_toe'", 116),
        (COCO, HAND, "'wrist'", 21),
        (WHOLE, FACE, "'face_mesh_000'", 468),
        (COCO, ANIMAL, "'front_left_paw'", 21),  # it has a nose and two eyes
        (COCO, BLAZE, "'left_eye_inner'", 16),
        (BLAZE, WHOLE, "'left_big_toe'", 114),
        (ANIMAL, BODY_WITH_NECK, "'neck', 'right_wrist'", 2),
    ],
    ids=lambda value: value.name if isinstance(value, Skeleton) else None,
)
def test_points_are_never_invented(source: Skeleton, target: Skeleton, missing: str, count: int) -> None:
    with pytest.raises(SkeletonNotSupplied) as caught:
        plan_mapping(source, target)

    error = caught.value
    assert error.reason == "SKELETON_NOT_SUPPLIED"
    assert missing in error.message
    assert missing in error.metadata["missing"]
    assert error.metadata["missing_count"] == str(count)
    assert len(error.message) < 500


def test_a_derived_point_with_one_unknown_source_is_missing() -> None:
    half = Keypoint("half", sources=(("nose", 1.0), ("tail", 1.0)))

    with pytest.raises(SkeletonNotSupplied, match="'half'"):
        plan_mapping(COCO, Skeleton("s", "", (Keypoint("nose"), half)))


def test_optional_points_may_be_missing_and_are_zero() -> None:
    target = Skeleton(
        "s",
        "",
        (
            Keypoint("nose"),
            Keypoint("tail", optional=True),
            Keypoint("half", optional=True, sources=(("nose", 1.0), ("tail", 1.0))),
            Keypoint("left_eye", optional=True),
        ),
    )
    poses = people(2, COCO)

    result = mapped(poses, COCO, target)

    np.testing.assert_array_equal(result.keypoints[:, [0, 3]], poses.keypoints[:, :2])
    assert not result.keypoints[:, 1:3].any()
    assert result.positions is not None
    assert np.isnan(result.positions[:, 1:3]).all()
    assert np.isfinite(result.positions[:, [0, 3]]).all()


def test_a_skeleton_of_which_nothing_is_there_is_refused_even_if_all_is_optional() -> None:
    with pytest.raises(SkeletonNotSupplied, match="'tail'"):
        plan_mapping(COCO, Skeleton("s", "", (Keypoint("tail", optional=True),)))


@pytest.mark.parametrize("hidden", [(0, 0, 0), (np.nan, np.nan, 0.5), (np.inf, 1, 0.5)])
def test_a_mean_with_a_point_that_is_not_there_is_not_there(hidden: tuple[float, ...]) -> None:
    poses = people(2, COCO)
    poses.keypoints[0, 5] = hidden

    result = mapped(poses, COCO, BODY_WITH_NECK)

    assert not result.keypoints[0, 1].any()
    assert result.keypoints[1, 1].all()
    assert result.positions is not None
    assert np.isnan(result.positions[0, 1]).all()


def test_a_position_that_is_half_known_stays_half_known() -> None:
    poses = people(1, COCO)
    assert poses.positions is not None
    poses.positions[0, 5, :2] = np.nan

    result = mapped(poses, COCO, BODY_WITH_NECK)

    assert result.positions is not None
    assert np.isnan(result.positions[0, 1]).tolist() == [True, True, False]


def test_a_whole_body_has_two_hands() -> None:
    poses = people(3, WHOLE)

    hands = mapped(poses, WHOLE, HAND)

    assert hands.sides is not None
    assert hands.person_index is not None
    assert hands.sides.tolist() == ["left", "right"] * 3
    assert hands.person_index.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(hands.keypoints[::2], poses.keypoints[:, 91:112])
    np.testing.assert_array_equal(hands.keypoints[1::2], poses.keypoints[:, 112:])
    np.testing.assert_array_equal(hands.scores, np.repeat(poses.scores, 2))
    points = hands.keypoints[..., :2]
    np.testing.assert_array_equal(hands.boxes_xyxy, np.hstack([points.min(axis=1), points.max(axis=1)]))
    assert hands.positions is not None
    assert poses.positions is not None
    np.testing.assert_array_equal(hands.positions[::2], poses.positions[:, 91:112])


def test_a_hand_that_is_not_there_is_left_out() -> None:
    poses = people(3, WHOLE)
    poses.keypoints[0, 91:112] = 0  # no left hand
    poses.keypoints[1, 91:] = np.nan  # no hands at all
    poses.keypoints[2, 113:] = 0  # of the right hand only the wrist

    hands = mapped(poses, WHOLE, HAND)

    assert hands.sides is not None
    assert hands.person_index is not None
    assert hands.sides.tolist() == ["right", "left", "right"]
    assert hands.person_index.tolist() == [0, 2, 2]
    x1, y1, x2, y2 = hands.boxes_xyxy[2]
    assert (x2 - x1, y2 - y1) == pytest.approx((1, 1))


def test_people_without_positions_have_hands_without_positions() -> None:
    assert mapped(people(2, WHOLE, positions=False), WHOLE, HAND).positions is None


def test_a_model_with_one_hand_gives_that_hand() -> None:
    left_only = replace(WHOLE, name="left_only", keypoints=WHOLE.keypoints[:112])

    hands = mapped(people(2, left_only), left_only, HAND)

    assert hands.sides is not None
    assert hands.sides.tolist() == ["left", "left"]


def test_a_hand_model_gives_hands_as_they_are() -> None:
    poses = people(2, HAND)

    assert mapped(poses, HAND, HAND) is poses
    assert mapped(poses, HAND, replace(HAND, title="mine")).sides is None


def test_an_instance_finds_the_points_it_does_not_name_by_their_own_names() -> None:
    eye = Skeleton(
        "eye",
        "",
        (Keypoint("pupil"), Keypoint("nose"), Keypoint("between", sources=(("nose", 1), ("left_eye", 1)))),
        instances=(Instance("left", (("pupil", "left_eye"),)), Instance("right", (("pupil", "right_eye"),))),
    )
    poses = people(1, COCO)

    eyes = mapped(poses, COCO, eye)

    np.testing.assert_array_equal(eyes.keypoints[:, 0], poses.keypoints[0, 1:3])
    np.testing.assert_array_equal(eyes.keypoints[:, 1], poses.keypoints[[0, 0], 0])


def test_blazepose_points_of_a_whole_body() -> None:
    poses = people(2, WHOLE)

    result = mapped(poses, WHOLE, BLAZE)

    for name, place in (("left_eye_outer", "face_45"), ("mouth_right", "face_48"), ("left_hip", "left_hip")):
        np.testing.assert_array_equal(
            result.keypoints[:, BLAZE.index(name)], poses.keypoints[:, WHOLE.index(place)]
        )


def test_a_model_may_have_the_whole_body_under_other_names() -> None:
    names = tuple(Keypoint(f"blazepose_{name}") for name in BLAZE.names)
    both = Skeleton("both", "", (*WHOLE.keypoints, *names))
    poses = people(2, both)

    result = mapped(poses, both, BLAZE)

    np.testing.assert_array_equal(result.keypoints, poses.keypoints[:, 133:])
    np.testing.assert_array_equal(result.boxes_xyxy, poses.boxes_xyxy)
    assert result.sides is None


def test_another_number_of_points_than_the_plan_has_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="16 keypoints do not fit"):
        apply(plan_mapping(COCO, BODY_WITH_NECK), Poses.empty(16))


def test_plans_are_kept() -> None:
    assert plan_mapping(WHOLE, HAND) is plan_mapping(WHOLE, replace(HAND))


def test_arguments_are_not_written_into() -> None:
    poses = people(2, WHOLE)
    for array in (poses.keypoints, poses.positions, poses.boxes_xyxy, poses.scores):
        assert array is not None
        array.flags.writeable = False

    for target in (COCO, HAND, BLAZE, BODY_WITH_NECK):
        mapped(poses, WHOLE, target)


def keypoint_arrays(count: int) -> st.SearchStrategy[Floats]:
    numbers = st.floats(width=32) | st.sampled_from([0.0, np.nan, np.inf, -np.inf, 3.4e38])
    shapes = st.tuples(st.integers(0, 3), st.just(count), st.just(3))
    return arrays.arrays(np.float32, shapes, elements=numbers)


@given(keypoint_arrays(17), st.booleans())
def test_any_numbers_are_mapped(keypoints: Floats, with_positions: bool) -> None:
    """Derived points lie between their sources or are not there; others are copies."""
    count = len(keypoints)
    poses = Poses(
        boxes_xyxy=np.zeros((count, 4), np.float32),
        scores=np.zeros(count, np.float32),
        keypoints=keypoints,
        positions=keypoints if with_positions else None,
    )

    result = mapped(poses, COCO, BODY_WITH_NECK)

    np.testing.assert_array_equal(result.keypoints[:, [0, 2]], keypoints[:, [0, 10]])
    shoulders, neck = keypoints[:, 5:7], result.keypoints[:, 1]
    there = present(shoulders).all(axis=1)
    assert not neck[~there].any()
    assert (neck[there] >= shoulders[there].min(axis=1)).all()
    assert (neck[there] <= shoulders[there].max(axis=1)).all()
    np.testing.assert_array_equal(neck[there, 2], shoulders[there, :, 2].min(axis=1))
    assert result.keypoints.dtype == np.float32


def test_boxes_go_around_the_points_that_are_there() -> None:
    keypoints = np.array(
        [
            [[3, 4, 1], [1, 9, 0.1], [0, 0, 0], [np.nan, 0, 1]],
            [[0, 0, 0]] * 4,
            [[5, 6, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]],
        ],
        np.float32,
    )

    np.testing.assert_array_equal(extents(keypoints), [[1, 4, 3, 9], [np.nan] * 4, [5, 6, 6, 7]])
    assert extents(np.zeros((0, 4, 3), np.float32)).shape == (0, 4)
    assert np.isnan(extents(np.zeros((2, 0, 3), np.float32))).all()


@pytest.mark.parametrize("target", [COCO, HAND, BLAZE], ids=lambda skeleton: skeleton.name)
def test_twenty_people_are_mapped_at_once_and_not_one_by_one(target: Skeleton) -> None:
    plan_mapping(WHOLE, target)

    def once(poses: Poses) -> float:
        started = time.perf_counter()
        apply(plan_mapping(WHOLE, target), poses)
        return time.perf_counter() - started

    one, twenty = (min(once(poses) for _ in range(50)) for poses in (people(1, WHOLE), people(20, WHOLE)))
    assert twenty < 12 * one


def test_a_thousand_derived_points_are_mapped() -> None:
    points = tuple(
        Keypoint(f"p{index}", sources=((COCO.names[index % 17], 1.0), (COCO.names[(index + 5) % 17], 2.0)))
        for index in range(1000)
    )
    poses = people(20, COCO)

    result = mapped(poses, COCO, Skeleton("big", "", points))

    assert result.keypoints.shape == (20, 1000, 3)
    expected = (poses.keypoints[:, 0, :2] + 2 * poses.keypoints[:, 5, :2]) / 3
    np.testing.assert_allclose(result.keypoints[:, 0, :2], expected, rtol=1e-5)


WHOLE_BODY = shipped()["mediapipe_wholebody"]


def test_a_face_is_an_entry_of_its_own_and_a_person_without_one_gives_none() -> None:
    poses = people(3, WHOLE_BODY)
    mesh = [WHOLE_BODY.index(f"face_mesh_{i:03}") for i in range(468)]
    without = poses.keypoints.copy()
    without[1, mesh] = 0
    found = mapped(replace(poses, keypoints=without), WHOLE_BODY, FACE)
    assert len(found) == 2
    assert found.person_index is not None
    assert found.sides is not None
    assert found.person_index.tolist() == [0, 2]
    assert found.sides.tolist() == ["", ""]
    np.testing.assert_array_equal(found.keypoints, without[[0, 2]][:, mesh])
    np.testing.assert_array_equal(found.boxes_xyxy, extents(found.keypoints))
    np.testing.assert_array_equal(found.scores, poses.scores[[0, 2]])
    assert present(found.keypoints).all()


def test_without_any_face_there_is_no_entry() -> None:
    poses = people(2, WHOLE_BODY)
    assert len(mapped(replace(poses, keypoints=np.zeros_like(poses.keypoints)), WHOLE_BODY, FACE)) == 0
    assert len(mapped(Poses.empty(634), WHOLE_BODY, FACE)) == 0
