"""Input and output of an export, and the rules that several formats share: boxes, visibility, rounding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.core.poses import Floats, Poses, extents, present

# Decimals that are written: a thousandth of a pixel or millimetre, a millionth of a score.
_PLACE_DECIMALS = 3
_SCORE_DECIMALS = 6


@dataclass(frozen=True, eq=False)
class ExportImage:
    """One image with its persons.

    Attributes:
        file_name: of the image, without a path.
        size_wh: of the upright original, px.
        poses: N persons, px of the upright original; an unknown box is NaN.
        track_ids: of each person, None where there is none; empty: without tracking.
    """

    file_name: str
    size_wh: tuple[int, int]
    poses: Poses
    track_ids: tuple[int | None, ...] = ()

    @property
    def tracks(self) -> tuple[int | None, ...]:
        """Track id or None of every person."""
        return self.track_ids or (None,) * len(self.poses)


@dataclass(frozen=True)
class File:
    """One written file.

    Attributes:
        name: without a path.
        content: UTF-8.
        media_type: such as "text/csv".
    """

    name: str
    content: bytes
    media_type: str


def with_boxes(poses: Poses) -> Poses:
    """The same persons, unknown boxes replaced by those around the keypoints.

    Raises:
        ValueError: a person has neither a box nor a keypoint.
    """
    known = np.isfinite(poses.boxes_xyxy).all(axis=1, keepdims=True)
    boxes = np.where(known, poses.boxes_xyxy, extents(poses.keypoints))
    if not np.isfinite(boxes).all():
        raise ValueError("a person has neither a box nor a point")
    return replace(poses, boxes_xyxy=boxes)


def cut_boxes(poses: Poses, size_wh: tuple[int, int]) -> tuple[Floats, NDArray[np.bool_]]:
    """Boxes (N, 4) cut to the image, and which of them (N,) have an area within it."""
    boxes = np.clip(poses.boxes_xyxy.reshape(-1, 2, 2), 0, np.array(size_wh, poses.boxes_xyxy.dtype))
    positive = boxes[:, 1] > boxes[:, 0]
    inside: NDArray[np.bool_] = positive[:, 0] & positive[:, 1]
    return boxes.reshape(-1, 4), inside


def visibility(
    poses: Poses, size_wh: tuple[int, int], visible_score: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """COCO's visibility of every keypoint, and which keypoints lie in the image; both (N, K).

    2: visible, in the image and with a score of `visible_score` or more; 1: guessed; 0: absent.
    """
    there = present(poses.keypoints)
    places = poses.keypoints[..., :2]
    with np.errstate(invalid="ignore"):
        within = (places >= 0) & (places <= np.array(size_wh))
        inside: NDArray[np.bool_] = there & within[..., 0] & within[..., 1]
        visible = inside & (poses.keypoints[..., 2] >= visible_score)
    return there.astype(np.int64) + visible, inside


def points(poses: Poses) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Positions (N, K, 2), scores (N, K), and which keypoints are present (N, K); zeros where absent."""
    there = present(poses.keypoints)
    keypoints = np.where(there[..., None], poses.keypoints, 0).astype(np.float64)
    return rounded(keypoints[..., :2]), rounded_scores(keypoints[..., 2]), there


def rounded(values: Floats | NDArray[np.float64]) -> NDArray[np.float64]:
    """Px or metres with the decimals that are written."""
    result: NDArray[np.float64] = values.astype(np.float64).round(_PLACE_DECIMALS)
    return result


def rounded_scores(values: Floats | NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores with the decimals that are written."""
    known: NDArray[np.float64] = np.where(np.isfinite(values), values, 0).astype(np.float64)
    result: NDArray[np.float64] = known.round(_SCORE_DECIMALS)
    return result
