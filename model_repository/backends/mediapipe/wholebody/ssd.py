"""The detectors' numbers: anchors, decoding, and the one detection that counts.

`SsdAnchorsCalculator`, `TensorsToDetectionsCalculator` and `NonMaxSuppressionCalculator` of MediaPipe
(Apache-2.0) with the options of `face_detection_short_range`, `palm_detection` and `pose_detection`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MIN_SCORE = 0.5
"""`min_score_thresh` of the detectors of poses, palms and faces."""

MIN_OVERLAP = 0.3
"""`min_suppression_threshold` of all detectors."""


@dataclass(frozen=True, eq=False)
class Detection:
    """One detection, 0 to 1 of the detector's input: box (4,) as centre and size, keypoints (P, 2), score."""

    box: Floats
    keypoints: Floats
    score: float


def anchors(size: int, strides: tuple[int, ...], per_cell: int = 2) -> Floats:
    """Centres of the anchors (A, 2), 0 to 1: `per_cell` per layer and cell, layers of one stride interleaved.

    Anchors have the fixed size 1, so a centre is all there is to one.
    """
    rows = []
    for stride in dict.fromkeys(strides):
        cells = size // stride
        along = (np.arange(cells, dtype=np.float32) + np.float32(0.5)) / np.float32(cells)
        y, x = np.meshgrid(along, along, indexing="ij")
        centres = np.stack([x.ravel(), y.ravel()], axis=1)
        rows.append(np.repeat(centres, per_cell * strides.count(stride), axis=0))
    return np.concatenate(rows)


def best_keypoints(raw: Floats, logits: Floats, centres: Floats, size: int) -> Floats | None:
    """Keypoints (P, 2) of the best detection above `MIN_SCORE`; see `best`."""
    found = best(raw, logits, centres, size)
    return None if found is None else found.keypoints


def best(
    raw: Floats,
    logits: Floats,
    centres: Floats,
    size: int,
    *,
    min_score: float = MIN_SCORE,
    near: tuple[Floats, float] | None = None,
) -> Detection | None:
    """The best detection, None when there is none.

    Weighted non-maximum suppression gives the mean, weighted by score, of all detections that overlap the
    best one; later clusters are not asked for.

    Args:
        raw: (A, 4 + 2·P) centre, size and keypoints relative to the anchor, in px of the input.
        logits: (A,) score before the sigmoid.
        centres: (A, 2) anchors, from `anchors`.
        size: side of the input in px.
        min_score: detections below do not count.
        near: a place (2,), 0 to 1 of the input, and how far from it the first keypoint may be.
    """
    least = math.log(min_score / (1 - min_score))
    kept = np.flatnonzero(logits >= least)
    if not kept.size or logits[kept].max() <= least:
        return None
    decoded = raw[kept] / np.float32(size)
    decoded[:, :2] += centres[kept]
    decoded[:, 4:] += np.tile(centres[kept], (raw.shape[1] - 4) // 2)
    if near is not None:
        within = np.linalg.norm(decoded[:, 4:6] - near[0], axis=1) <= near[1]
        kept, decoded = kept[within], decoded[within]
        if not kept.size:
            return None
    weights = 1 / (1 + np.exp(-np.clip(logits[kept], -100, 100)))
    top = int(logits[kept].argmax())
    cluster = _overlap(decoded[:, :4], decoded[top, :4]) > MIN_OVERLAP
    share = weights[cluster, None]
    mean = np.asarray((decoded[cluster] * share).sum(0) / share.sum(), np.float32)
    return Detection(box=mean[:4], keypoints=mean[4:].reshape(-1, 2), score=float(weights[top]))


def _overlap(boxes: Floats, box: Floats) -> Floats:
    """Intersection over union of boxes (B, 4) with one box; centre and size."""
    low = np.maximum(boxes[:, :2] - boxes[:, 2:] / 2, box[:2] - box[2:] / 2)
    high = np.minimum(boxes[:, :2] + boxes[:, 2:] / 2, box[:2] + box[2:] / 2)
    inside = np.maximum(high - low, 0).prod(1)
    union = boxes[:, 2:].prod(1) + box[2:].prod() - inside
    return np.asarray(inside / np.maximum(union, 1e-9), np.float32)
