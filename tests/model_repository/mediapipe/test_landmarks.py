"""The landmark networks' numbers."""

from __future__ import annotations

import numpy as np

from wholebody import landmarks


def heatmap_with(peaks: dict[tuple[int, int], float]) -> landmarks.Floats:
    """One map of 64 × 64 whose confidences are `peaks` by (row, column), else nothing."""
    confidence = np.full((64, 64, 1), 1e-9)
    for at, value in peaks.items():
        confidence[at] = value
    return np.asarray(np.log(confidence / (1 - confidence)), np.float32)


def test_a_point_moves_to_the_weighted_mean_of_its_map() -> None:
    point = np.array([[30.5 / 64, 20.5 / 64]], np.float32)
    moved = landmarks.refine(point, heatmap_with({(21, 31): 0.9, (21, 33): 0.3}))
    np.testing.assert_allclose(moved, [[(0.9 * 31 + 0.3 * 33) / 1.2 / 64, 21 / 64]], atol=1e-5)


def test_four_cells_to_each_side_count_and_the_fifth_does_not() -> None:
    point = np.array([[30.5 / 64, 20.5 / 64]], np.float32)
    np.testing.assert_allclose(
        landmarks.refine(point, heatmap_with({(24, 26): 0.8})), [[26 / 64, 24 / 64]], atol=1e-5
    )
    np.testing.assert_array_equal(landmarks.refine(point, heatmap_with({(25, 30): 0.8})), point)
    np.testing.assert_array_equal(landmarks.refine(point, heatmap_with({(20, 25): 0.8})), point)


def test_an_unsure_map_leaves_the_point_where_it_is() -> None:
    point = np.array([[0.5, 0.5]], np.float32)
    np.testing.assert_array_equal(landmarks.refine(point, heatmap_with({(32, 32): 0.49})), point)


def test_at_the_edge_the_window_is_cut_and_outside_nothing_moves() -> None:
    maps = heatmap_with({(0, 0): 0.9, (63, 63): 0.9})
    corner = np.array([[1.5 / 64, 1.5 / 64]], np.float32)
    np.testing.assert_allclose(landmarks.refine(corner, maps), [[0, 0]], atol=1e-6)
    for outside in ([-0.1, 0.5], [0.5, 1.1], [1e9, -1e9]):
        point = np.array([outside], np.float32)
        np.testing.assert_array_equal(landmarks.refine(point, maps), point)


def test_the_pose_is_read_from_rows_of_five() -> None:
    raw = np.zeros((39, 5), np.float32)
    raw[7] = (128, 64, 5, 3, -3)
    world = np.arange(117, dtype=np.float32)
    found = landmarks.pose(raw.ravel(), np.full((64, 64, 39), -20, np.float32), world)
    np.testing.assert_allclose(found.points[7], [0.5, 0.25])
    assert found.visibility[7] == np.float32(1 / (1 + np.exp(-3)))
    np.testing.assert_array_equal(found.world[1], [3, 4, 5])


def test_what_the_network_overwrites_next_is_copied() -> None:
    world = np.zeros(117, np.float32)
    found = landmarks.pose(np.zeros(195, np.float32), np.zeros((64, 64, 39), np.float32), world)
    world[:] = 9
    assert not found.world.any()
