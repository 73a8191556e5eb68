"""Family `yolo_pose`: decodes candidate rows of the model to persons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.core.geometry import Affine
from service.core.poses import Floats, Poses

_FAR_PX = 1e6
"""Bound of valid coordinates: larger than any model input; beyond it, or not finite, a value is invalid."""


_FEW = 64
"""Rows that are looked at first. Few images have more above the score, and the memory has just been written
by another process: every row that is read is a miss of the cache."""


def above(candidates: Floats, min_score: float) -> Floats:
    """The rows with a score above `min_score`, as a copy.

    Args:
        candidates: (C, 5 + 3K) float32, sorted by falling score, the fifth value of each row.
        min_score: rows must be above it.
    """
    if len(candidates) > _FEW and candidates[_FEW, 4] <= min_score:
        candidates = candidates[:_FEW]
    return candidates[candidates[:, 4] > min_score]


def decode_candidates(
    candidates: Floats,
    to_input: Affine,
    *,
    min_score: float,
    iou_threshold: float,
    max_persons: int,
) -> Poses:
    """Filter candidates by score, suppress duplicates, and map the rest to px of the image.

    Rows with invalid boxes are dropped; invalid keypoints become (0, 0, 0).

    Args:
        candidates: (C, 5 + 3K) float32, sorted by falling score: cx, cy, w, h in input px, score,
            then K times x, y in input px and score.
        to_input: image px to input px, as `letterbox` gave it.
        min_score: rows must be above it.
        iou_threshold: of two boxes that overlap by more than this, the lower score goes.
        max_persons: at most so many are returned.
    """
    rows = above(candidates, min_score)
    keypoint_count = (candidates.shape[1] - 5) // 3
    if not len(rows):
        return Poses.empty(keypoint_count)
    # Before anything is computed: one NaN among the boxes would suppress all others.
    near = np.abs(rows) < _FAR_PX  # false for NaN too
    valid = near[:, :5].all(axis=1)
    if not valid.all():
        rows, near = rows[valid], near[valid]
    half = rows[:, 2:4] / 2
    boxes = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1)
    kept = suppress(boxes, iou_threshold=iou_threshold, limit=max_persons)
    rows, boxes, near = rows[kept], boxes[kept], near[kept]
    back = to_input.inverse()
    keypoints = rows[:, 5:].reshape(len(rows), keypoint_count, 3)
    there = near[:, 5:].reshape(keypoints.shape).all(axis=2, keepdims=True) if not near.all() else None
    if there is not None:
        keypoints = np.where(there, keypoints, np.float32(0))
    points = np.empty_like(keypoints)
    points[..., :2] = back.apply(keypoints[..., :2])
    points[..., 2] = keypoints[..., 2]
    if there is not None:
        points = np.where(there, points, np.float32(0))
    return Poses(
        boxes_xyxy=back.apply(boxes.reshape(-1, 2, 2)).reshape(-1, 4),
        scores=rows[:, 4].copy(),
        keypoints=points,
    )


def suppress(boxes_xyxy: Floats, *, iou_threshold: float, limit: int) -> NDArray[np.intp]:
    """Greedy non-maximum suppression.

    Args:
        boxes_xyxy: (C, 4), best first.
        iou_threshold: a box that overlaps a kept one by more than this goes.
        limit: stop when so many are kept.

    Returns:
        Indices of the kept boxes, best first.
    """
    x1, y1, x2, y2 = boxes_xyxy.T
    areas = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    remaining = np.arange(len(boxes_xyxy))
    kept: list[int] = []
    while len(remaining) and len(kept) < limit:
        best, remaining = remaining[0], remaining[1:]
        kept.append(int(best))
        overlap_w = np.minimum(x2[best], x2[remaining]) - np.maximum(x1[best], x1[remaining])
        overlap_h = np.minimum(y2[best], y2[remaining]) - np.maximum(y1[best], y1[remaining])
        overlap = np.maximum(overlap_w, 0) * np.maximum(overlap_h, 0)
        union = areas[best] + areas[remaining] - overlap
        remaining = remaining[overlap <= iou_threshold * union]
    return np.array(kept, np.intp)
