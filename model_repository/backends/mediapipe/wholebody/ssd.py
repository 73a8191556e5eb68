"""The detectors' numbers: anchors, decoding, and the one detection that counts.

`SsdAnchorsCalculator`, `TensorsToDetectionsCalculator` and `NonMaxSuppressionCalculator` of MediaPipe
(Apache-2.0) with the options of `face_detection_short_range` and `pose_detection`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MIN_SCORE = 0.5
"""`min_score_thresh` of both detectors."""

MIN_OVERLAP = 0.3
"""`min_suppression_threshold` of both detectors."""


def anchors(size: int, strides: tuple[int, ...]) -> Floats:
    """Centres of the anchors (A, 2), 0 to 1: two per layer and cell, layers of one stride interleaved.

    Anchors have the fixed size 1, so a centre is all there is to one.
    """
    rows = []
    for stride in dict.fromkeys(strides):
        cells = size // stride
        along = (np.arange(cells, dtype=np.float32) + np.float32(0.5)) / np.float32(cells)
        y, x = np.meshgrid(along, along, indexing="ij")
        centres = np.stack([x.ravel(), y.ravel()], axis=1)
        rows.append(np.repeat(centres, 2 * strides.count(stride), axis=0))
    return np.concatenate(rows)


def best_keypoints(raw: Floats, logits: Floats, centres: Floats, size: int) -> Floats | None:
    """Keypoints of the best detection, 0 to 1 of the detector's input; None when there is none.

    Weighted non-maximum suppression gives the mean, weighted by score, of all detections that overlap the
    best one; later clusters are not asked for.

    Args:
        raw: (A, 4 + 2·P) centre, size and keypoints relative to the anchor, in px of the input.
        logits: (A,) score before the sigmoid.
        centres: (A, 2) anchors, from `anchors`.
        size: side of the input in px.

    Returns:
        (P, 2) float32.
    """
    top = int(logits.argmax())
    if logits[top] <= 0.0:  # sigmoid(0) is MIN_SCORE
        return None
    kept = np.flatnonzero(logits >= 0.0)
    weights = 1 / (1 + np.exp(-np.clip(logits[kept], -100, 100)))
    decoded = raw[kept] / np.float32(size)
    decoded[:, :2] += centres[kept]
    decoded[:, 4:] += np.tile(centres[kept], (raw.shape[1] - 4) // 2)
    near = _overlap(decoded[:, :4], decoded[np.searchsorted(kept, top), :4]) > MIN_OVERLAP
    weights = weights[near, None]
    mean = (decoded[near, 4:] * weights).sum(0) / weights.sum()
    return np.asarray(mean.reshape(-1, 2), np.float32)


def _overlap(boxes: Floats, box: Floats) -> Floats:
    """Intersection over union of boxes (B, 4) with one box; centre and size."""
    low = np.maximum(boxes[:, :2] - boxes[:, 2:] / 2, box[:2] - box[2:] / 2)
    high = np.minimum(boxes[:, :2] + boxes[:, 2:] / 2, box[:2] + box[2:] / 2)
    inside = np.maximum(high - low, 0).prod(1)
    union = boxes[:, 2:].prod(1) + box[2:].prod() - inside
    return np.asarray(inside / np.maximum(union, 1e-9), np.float32)
