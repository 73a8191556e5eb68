"""Draws 3D positions beside the image: each person as the camera sees it, and from the side."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from service.core.drawing.poses import OverlayStyle, draw_poses
from service.core.geometry import Rgb8
from service.core.poses import Floats, Poses
from service.core.skeleton.template import Skeleton

_BACKGROUND = 24
_GRID = 60
_MOST = 3  # persons, those with the highest scores; more would be too small to read
_LEAST_HALF_M = 0.6  # a view shows at least so much to each side of mid-hip


def with_space_panel(drawn: Rgb8, poses: Poses, skeleton: Skeleton, style: OverlayStyle) -> Rgb8:
    """The drawn image with a panel at its right: a row for each of the surest persons, two views in it.

    "front" has x to the right and y down, as the image; "side" has z to the right, away from the
    camera. Both have the same scale, and a line of the grid every half metre from mid-hip.

    Args:
        drawn: (H, W, 3) uint8 RGB.
        poses: with positions; a person without any gets an empty row.
        skeleton: of the poses.
        style: of the image; boxes are left out.

    Returns:
        (H, W + 2 · side, 3), where side is H over the number of rows, at most W / 2.
    """
    height, width = drawn.shape[:2]
    rows = max(1, min(_MOST, len(poses)))
    side = max(1, min(height // rows, width // 2))
    panel = np.full((height, 2 * side, 3), _BACKGROUND, np.uint8)
    for row in range(min(rows, len(poses))):
        for column, (view, axes) in enumerate((("front", (0, 1)), ("side", (2, 1)))):
            square = _view(poses.select(slice(row, row + 1)), axes, side, skeleton, style)
            _caption(square, f"{row} {view}")
            panel[row * side : (row + 1) * side, column * side : (column + 1) * side] = square
    return np.concatenate([drawn, panel], axis=1)


def _view(person: Poses, axes: tuple[int, int], side: int, skeleton: Skeleton, style: OverlayStyle) -> Rgb8:
    positions: Floats = (
        np.full(person.keypoints.shape, np.nan, np.float32) if person.positions is None else person.positions
    )
    shown = np.isfinite(positions).all(axis=2) & (person.keypoints[..., 2] >= style.min_keypoint_score)
    extent = float(np.abs(positions[shown]).max()) if shown.any() else 0.0
    px_per_m = side / 2 / (1.1 * max(extent, _LEAST_HALF_M))
    canvas = np.full((side, side, 3), _BACKGROUND, np.uint8)
    _grid(canvas, px_per_m)
    keypoints = np.zeros_like(person.keypoints)
    keypoints[..., :2] = positions[..., list(axes)] * px_per_m + side / 2
    keypoints[..., 2] = np.where(shown, person.keypoints[..., 2], 0)
    keypoints[~shown] = 0
    style = replace(style, boxes=False, labels=False)
    return draw_poses(canvas, replace(person, keypoints=keypoints), skeleton, style)


def _grid(canvas: Rgb8, px_per_m: float) -> None:
    side = len(canvas)
    lines = int(side / 2 / (px_per_m / 2))
    for step in range(-lines, lines + 1):
        at = round(side / 2 + step * px_per_m / 2)
        if 0 <= at < side:
            canvas[at, :] = canvas[:, at] = _GRID if step else 2 * _GRID


def _caption(canvas: Rgb8, text: str) -> None:
    scale = max(0.35, len(canvas) / 700)
    thickness = max(1, round(scale))
    at = (max(2, len(canvas) // 60), max(10, round(22 * scale)))
    cv2.putText(
        canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale * 0.7, (230, 230, 230), thickness, cv2.LINE_AA
    )
