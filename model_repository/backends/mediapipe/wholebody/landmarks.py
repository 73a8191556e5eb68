"""The landmark networks' numbers, as MediaPipe's graphs read them.

Landmarks come out of the networks in px of their own input; here they become 0 to 1 of it, so that
`rois.to_image` can place them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

POSE_SIZE = 256
HAND_SIZE = 224
FACE_SIZE = 192
"""SideSelection of the three networks' inputs in px."""

POSE_POINTS = 39
"""BlazePose's 33, the two points of the next square, and four that no graph uses."""

HEATMAP_WINDOW = 9
HEATMAP_MIN_CONFIDENCE = 0.5
"""`kernel_size` and `min_confidence_to_refine` of `RefineLandmarksFromHeatmapCalculator`.

The calculator's own default is 9, and 9 it is: against Holistic 0.10.21 the median point is 0.01 px of the
square away with 9, 0.02 to 0.5 px with 7.
"""

_WINDOW = np.arange(HEATMAP_WINDOW) - HEATMAP_WINDOW // 2


@dataclass(frozen=True, eq=False)
class PoseLandmarks:
    """What the pose network says.

    Attributes:
        points: (39, 2) of its square, 0 to 1.
        visibility: (39,) in the image and not hidden, 0 to 1.
        world: (39, 3) metres, origin mid-hip, in the square's orientation.
    """

    points: Floats
    visibility: Floats
    world: Floats


def pose(raw: Floats, heatmap: Floats, world: Floats) -> PoseLandmarks:
    """Landmarks from the raw outputs, moved to the heat maps' peaks.

    Args:
        raw: 195 values, 39 × (x, y, z, visibility logit, presence logit).
        heatmap: (64, 64, 39) logits.
        world: 117 values, 39 × (x, y, z) in metres.
    """
    rows = raw.reshape(POSE_POINTS, 5)
    return PoseLandmarks(
        points=refine(rows[:, :2] / np.float32(POSE_SIZE), heatmap),
        visibility=sigmoid(rows[:, 3]),
        world=world.reshape(POSE_POINTS, 3).copy(),
    )


def refine(points: Floats, heatmap: Floats) -> Floats:
    """Each point replaced by the weighted mean of its heat map around it, where that is confident.

    Args:
        points: (P, 2) of the square, 0 to 1.
        heatmap: (H, W, P) logits.

    Returns:
        (P, 2); points outside the square, or whose map peaks below one half, as they were.
    """
    height, width, count = heatmap.shape
    size_wh = np.array([width, height])
    with np.errstate(invalid="ignore"):
        centres = np.trunc(points * size_wh).astype(np.int64)
    inside = ((centres >= 0) & (centres < size_wh)).all(1)
    columns = centres[:, :1] + _WINDOW  # (P, 9)
    rows = centres[:, 1:] + _WINDOW
    in_columns = (columns >= 0) & (columns < width)
    in_rows = (rows >= 0) & (rows < height)
    logits = heatmap[
        rows.clip(0, height - 1)[:, :, None],
        columns.clip(0, width - 1)[:, None, :],
        np.arange(count)[:, None, None],
    ]
    weights = np.where(in_rows[:, :, None] & in_columns[:, None, :], sigmoid(logits), 0)  # (P, 9, 9)
    total = weights.sum((1, 2))
    sure = inside & (weights.max((1, 2)) >= HEATMAP_MIN_CONFIDENCE)
    total = np.where(sure, total, 1)
    x = (weights * columns[:, None, :]).sum((1, 2)) / total / width
    y = (weights * rows[:, :, None]).sum((1, 2)) / total / height
    return np.where(sure[:, None], np.stack([x, y], axis=1), points).astype(np.float32)


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + e^-x), without overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), np.float32)
