"""Candidate rows to people."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.geometry import Affine
from service.core.poses import Floats, Poses
from service.core.yolo import above, decode_candidates, suppress
from tests.fakes import candidate, rows


def decode(candidates: Floats, to_input: Affine | None = None, **changes: float) -> Poses:
    wanted = {"min_score": 0.25, "iou_threshold": 0.7, "max_persons": 300, **changes}
    return decode_candidates(
        candidates,
        to_input or Affine(),
        min_score=wanted["min_score"],
        iou_threshold=wanted["iou_threshold"],
        max_persons=int(wanted["max_persons"]),
    )


def brute_force(boxes: list[tuple[int, int, int, int]], iou_threshold: float, limit: int) -> list[int]:
    """Non-maximum suppression as its definition reads, in exact integers."""

    def area(x1: int, y1: int, x2: int, y2: int) -> int:
        return max(x2 - x1, 0) * max(y2 - y1, 0)

    kept: list[int] = []
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        for other in kept:
            u1, v1, u2, v2 = boxes[other]
            overlap = area(max(x1, u1), max(y1, v1), min(x2, u2), min(y2, v2))
            union = area(x1, y1, x2, y2) + area(u1, v1, u2, v2) - overlap
            if overlap > iou_threshold * union:
                break
        else:
            kept.append(index)
    return kept[:limit]


corner = st.integers(0, 30)
boxes_strategy = st.lists(
    st.tuples(corner, corner, st.integers(0, 20), st.integers(0, 20)).map(
        lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
    ),
    max_size=25,
)


# Thresholds that are exact in float32, so that a box exactly at the threshold is decided alike.
@given(boxes_strategy, st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.integers(1, 30))
def test_suppression_is_that_of_the_definition(
    boxes: list[tuple[int, int, int, int]], iou_threshold: float, limit: int
) -> None:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    kept = suppress(array, iou_threshold=iou_threshold, limit=limit)
    assert kept.tolist() == brute_force(boxes, iou_threshold, limit)


def test_nothing_is_suppressed_of_nothing() -> None:
    kept = suppress(np.zeros((0, 4), np.float32), iou_threshold=0.7, limit=10)
    assert kept.shape == (0,)
    assert kept.dtype == np.intp


@pytest.mark.parametrize("candidates", [rows(count=0), rows()], ids=["no rows", "rows of score 0"])
def test_zero_persons_are_a_normal_answer(candidates: Floats) -> None:
    poses = decode(candidates)
    assert len(poses) == 0
    assert poses.keypoint_count == 17


def test_a_score_exactly_at_the_threshold_is_not_enough() -> None:
    found = rows(candidate((0, 0, 10, 10), 0.5), candidate((50, 50, 60, 60), 0.25))
    assert decode(found, min_score=0.25).scores.tolist() == [0.5]


def test_boxes_and_keypoints_come_back_to_pixels_of_the_picture() -> None:
    to_input = Affine(0.5, 0.25, 80, 10)
    person = candidate((90, 20, 110, 60), 0.8, [(100, 40, 0.7)] * 17)
    poses = decode(rows(person), to_input)
    np.testing.assert_allclose(poses.boxes_xyxy, [[20, 40, 60, 200]])
    np.testing.assert_allclose(poses.keypoints[0], np.full((17, 3), (40, 120, 0.7), np.float32))


def test_coordinates_outside_the_picture_stay_outside() -> None:
    person = candidate((-50, -20, 700, 660), 0.8, [(-30, 1000, 0.2)] * 17)
    poses = decode(rows(person))
    np.testing.assert_allclose(poses.boxes_xyxy, [[-50, -20, 700, 660]])
    np.testing.assert_allclose(poses.keypoints[0, 0, :2], [-30, 1000])


def test_people_come_by_falling_score_and_no_more_than_asked_for() -> None:
    people = [candidate((i * 20, 0, i * 20 + 10, 10), 0.9 - i / 100) for i in range(20)]
    poses = decode(rows(*people), max_persons=7)
    assert len(poses) == 7
    assert (np.diff(poses.scores) < 0).all()


def test_of_two_overlapping_persons_the_one_with_the_lower_score_is_dropped() -> None:
    found = rows(candidate((0, 0, 100, 100), 0.9), candidate((5, 0, 105, 100), 0.8))  # IoU 0.905
    assert decode(found, iou_threshold=0.9).scores.tolist() == [np.float32(0.9)]
    assert len(decode(found, iou_threshold=0.91)) == 2


def test_equal_boxes_survive_only_a_threshold_of_one() -> None:
    found = rows(candidate((0, 0, 100, 100), 0.9), candidate((0, 0, 100, 100), 0.8))
    assert len(decode(found, iou_threshold=1.0)) == 2
    assert len(decode(found, iou_threshold=0.99)) == 1


def test_an_iou_threshold_of_zero_lets_nothing_touch() -> None:
    found = rows(
        candidate((0, 0, 10, 10), 0.9), candidate((9, 9, 19, 19), 0.8), candidate((10, 0, 20, 9), 0.7)
    )
    assert decode(found, iou_threshold=0).scores.tolist() == [np.float32(0.9), np.float32(0.7)]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param((0, (np.nan,)), id="NaN centre"),
        pytest.param((2, (np.nan,)), id="NaN width"),
        pytest.param((0, (np.nan,) * 5), id="NaN box and score"),
        pytest.param((4, (np.nan,)), id="NaN score"),
        pytest.param((2, (np.inf, np.inf)), id="infinite size"),
        pytest.param((4, (np.inf,)), id="infinite score"),
        pytest.param((2, (3.4e38, 3.4e38)), id="area overflows"),
    ],
)
def test_a_broken_row_does_not_affect_other_persons(broken: tuple[int, tuple[float, ...]]) -> None:
    bad = candidate((0, 0, 100, 100), 0.95)
    bad[broken[0] : broken[0] + len(broken[1])] = broken[1]
    poses = decode(rows(bad, candidate((200, 0, 300, 100), 0.9), candidate((400, 0, 500, 100), 0.8)))
    assert poses.scores.tolist()[-2:] == [np.float32(0.9), np.float32(0.8)]
    assert np.isfinite(poses.scores).all()
    assert np.isfinite(poses.boxes_xyxy).all()


def test_a_keypoint_that_is_no_number_is_reported_as_no_such_point() -> None:
    person = candidate((0, 0, 100, 100), 0.9)
    person[5:8] = np.nan, 3, 0.9
    person[8:11] = 3, np.inf, 0.9
    poses = decode(rows(person), Affine(0.5, 0.5, 10, 10))
    assert poses.keypoints[0, :2].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert np.isfinite(poses.keypoints).all()
    assert (poses.keypoints[0, 2:, 2] == np.float32(0.9)).all()


def test_the_models_array_is_neither_written_nor_kept() -> None:
    found = rows(candidate((0, 0, 10, 10), 0.9))
    assert not found.flags.writeable
    poses = decode(found)
    for array in (poses.boxes_xyxy, poses.scores, poses.keypoints):
        assert not np.shares_memory(array, found)


@pytest.mark.parametrize("keypoint_count", [1, 17, 24, 133])
def test_any_number_of_keypoints_is_read(keypoint_count: int) -> None:
    person = candidate((0, 0, 10, 10), 0.9, [(k, k, k / 200) for k in range(keypoint_count)])
    poses = decode(rows(person, keypoint_count=keypoint_count))
    assert poses.keypoints.shape == (1, keypoint_count, 3)
    np.testing.assert_allclose(poses.keypoints[0, :, 0], np.arange(keypoint_count))


def test_a_thousand_candidates_at_one_place_are_one_person() -> None:
    crowd = np.tile(candidate((0, 0, 100, 100), 0.9), (1000, 1))
    assert len(decode(crowd)) == 1


@given(
    st.lists(st.floats(0, 1, width=32), max_size=300),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_the_rows_above_a_score_are_found_however_many_there_are(
    scores: list[float], not_a_number: int, min_score: float
) -> None:
    """With rows of NaN before the others, where a sort may put them."""
    ordered = [np.nan] * not_a_number + sorted(scores, reverse=True)
    candidates = np.zeros((len(ordered), 8), np.float32)
    candidates[:, 4] = ordered
    found = above(candidates, min_score)
    assert found[:, 4].tolist() == [score for score in ordered if score > min_score]
    assert not np.shares_memory(found, candidates)
