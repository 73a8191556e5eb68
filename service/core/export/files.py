"""What goes into an export and what comes out of it."""

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
    """One picture with its people.

    Attributes:
        file_name: of the picture, without a path.
        size_wh: of the upright original, px.
        poses: N people, px of the upright original; a box of NaN is one that is not known.
        track_ids: of each, None where there is none; empty: there are none at all.
    """

    file_name: str
    size_wh: tuple[int, int]
    poses: Poses
    track_ids: tuple[int | None, ...] = ()

    @property
    def tracks(self) -> tuple[int | None, ...]:
        """Track id of every person, or None."""
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
    """The same people; who has no box gets the one around the points.

    Raises:
        ValueError: a person has neither a box nor a keypoint.
    """
    known = np.isfinite(poses.boxes_xyxy).all(axis=1, keepdims=True)
    boxes = np.where(known, poses.boxes_xyxy, extents(poses.keypoints))
    if not np.isfinite(boxes).all():
        raise ValueError("a person has neither a box nor a point")
    return replace(poses, boxes_xyxy=boxes)


def points(poses: Poses) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Places (N, K, 2), scores (N, K), and which points are there (N, K); zeros where they are not."""
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
