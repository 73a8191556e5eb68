"""The arrays of N people fit one another."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from service.core.poses import Poses


def some(count: int, keypoint_count: int = 2) -> Poses:
    """Told apart by their scores."""
    return Poses(
        boxes_xyxy=np.arange(count * 4, dtype=np.float32).reshape(count, 4),
        scores=np.linspace(0.9, 0.1, count, dtype=np.float32),
        keypoints=np.zeros((count, keypoint_count, 3), np.float32),
        positions=np.ones((count, keypoint_count, 3), np.float32),
        depth_source="measured",
    )


@pytest.mark.parametrize("keypoint_count", [0, 1, 17])
def test_zero_persons_have_arrays_of_the_right_shapes(keypoint_count: int) -> None:
    nobody = Poses.empty(keypoint_count)
    assert len(nobody) == 0
    assert nobody.keypoint_count == keypoint_count
    assert nobody.boxes_xyxy.shape == (0, 4)
    assert nobody.keypoints.shape == (0, keypoint_count, 3)
    assert nobody.positions is None
    assert nobody.depth_source == "none"


@pytest.mark.parametrize(
    ("field", "shape", "message"),
    [
        ("boxes_xyxy", (2, 4), r"boxes_xyxy must be \(3, 4\), not \(2, 4\)"),
        ("boxes_xyxy", (3, 5), r"boxes_xyxy must be \(3, 4\), not \(3, 5\)"),
        ("scores", (3, 1), r"scores must be one-dimensional, not \(3, 1\)"),
        ("keypoints", (3, 2), r"keypoints must be \(3, K, 3\), not \(3, 2\)"),
        ("keypoints", (2, 2, 3), r"keypoints must be \(3, K, 3\), not \(2, 2, 3\)"),
        ("keypoints", (3, 2, 2), r"keypoints must be \(3, K, 3\), not \(3, 2, 2\)"),
        ("positions", (3, 1, 3), r"positions must be \(3, 2, 3\), not \(3, 1, 3\)"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_shapes_that_do_not_fit_are_refused(field: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(some(3), **cast("Any", {field: np.zeros(shape, np.float32)}))


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (np.array([], np.intp), []),
        (np.array([2, 0], np.intp), [2, 0]),
        (np.array([True, False, True]), [0, 2]),
        (slice(1, None), [1, 2]),
    ],
    ids=["nobody", "numbers", "mask", "slice"],
)
def test_select_picks_people_whole(index: slice, expected: list[int]) -> None:
    everybody = some(3)
    picked = everybody.select(index)
    np.testing.assert_array_equal(picked.scores, everybody.scores[expected])
    np.testing.assert_array_equal(picked.boxes_xyxy, everybody.boxes_xyxy[expected])
    assert picked.positions is not None
    assert picked.positions.shape == (len(expected), 2, 3)
    assert picked.depth_source == "measured"


def test_select_does_without_positions() -> None:
    assert replace(some(3), positions=None).select(slice(1)).positions is None
