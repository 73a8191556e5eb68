"""The detectors' numbers."""

from __future__ import annotations

import numpy as np
import pytest

from wholebody import ssd


@pytest.mark.parametrize(
    ("size", "strides", "count"), [(128, (8, 16, 16, 16), 896), (224, (8, 16, 32, 32, 32), 2254)]
)
def test_there_are_as_many_anchors_as_the_network_has_rows(
    size: int, strides: tuple[int, ...], count: int
) -> None:
    anchors = ssd.anchors(size, strides)
    assert anchors.shape == (count, 2)
    assert anchors.min() > 0
    assert anchors.max() < 1


def test_anchors_of_one_cell_follow_one_another_row_by_row() -> None:
    anchors = ssd.anchors(32, (16, 16))
    expected = np.repeat([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]], 4, axis=0)
    np.testing.assert_allclose(anchors, expected)


def rows(*boxes: tuple[float, float, float, float, float, float]) -> tuple[ssd.Floats, ssd.Floats]:
    """Boxes and one keypoint each, in px of an input of 100, with anchors at the middle."""
    return np.array(boxes, np.float32), np.full((len(boxes), 2), 0.5, np.float32)


def test_below_one_half_there_is_no_detection() -> None:
    raw, centres = rows((0, 0, 20, 20, 1, 1))
    assert ssd.best_keypoints(raw, np.array([-0.1], np.float32), centres, 100) is None
    assert ssd.best_keypoints(raw, np.array([0.1], np.float32), centres, 100) is not None


def test_detections_that_overlap_are_averaged_by_score_and_others_left_out() -> None:
    raw, centres = rows((0, 0, 20, 20, 0, 10), (1, 0, 20, 20, 4, 10), (40, 40, 20, 20, 90, 90))
    logits = np.array([2.0, 1.0, 1.9], np.float32)
    a, b = 1 / (1 + np.exp(-logits[:2]))
    found = ssd.best_keypoints(raw, logits, centres, 100)
    assert found is not None
    np.testing.assert_allclose(found, [[0.5 + b * 0.04 / (a + b), 0.6]], rtol=1e-5)


def test_huge_logits_do_not_overflow() -> None:
    raw, centres = rows((0, 0, 20, 20, 1, 1))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = ssd.best_keypoints(raw, np.array([1e4], np.float32), centres, 100)
    assert found is not None
    np.testing.assert_allclose(found, np.array([[0.51, 0.51]]))
