"""People found in one picture, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
DepthSource = Literal["none", "measured", "lifted"]


@dataclass(frozen=True, eq=False)
class Poses:
    """N people with K keypoints each, by falling score.

    Attributes:
        boxes_xyxy: (N, 4) float32; x1, y1, x2, y2 in px of the upright original, unclipped.
        scores: (N,) float32; the model's own score, not a probability.
        keypoints: (N, K, 3) float32; x and y in px of the upright original, then the model's score.
        positions: (N, K, 3) float32 or None; metres, origin mid-hip, x image right, y down, z away
            from the camera; NaN where the model gives none.
        depth_source: where the third dimension comes from.

    Raises:
        ValueError: the shapes do not fit one another.
    """

    boxes_xyxy: Floats
    scores: Floats
    keypoints: Floats
    positions: Floats | None = None
    depth_source: DepthSource = "none"

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.boxes_xyxy.shape != (n, 4):
            raise ValueError(f"boxes_xyxy must be ({n}, 4), not {self.boxes_xyxy.shape}")
        if self.scores.shape != (n,):
            raise ValueError(f"scores must be one-dimensional, not {self.scores.shape}")
        if self.keypoints.ndim != 3 or self.keypoints.shape[0] != n or self.keypoints.shape[2] != 3:
            raise ValueError(f"keypoints must be ({n}, K, 3), not {self.keypoints.shape}")
        if self.positions is not None and self.positions.shape != self.keypoints.shape:
            raise ValueError(f"positions must be {self.keypoints.shape}, not {self.positions.shape}")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def keypoint_count(self) -> int:
        """K, the number of keypoints per person."""
        return int(self.keypoints.shape[1])

    @classmethod
    def empty(cls, keypoint_count: int) -> Poses:
        """Nobody: a normal answer, not an error."""
        return cls(
            boxes_xyxy=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            keypoints=np.zeros((0, keypoint_count, 3), np.float32),
        )

    def select(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Poses:
        """Those people that `index` picks, in its order."""
        return Poses(
            boxes_xyxy=self.boxes_xyxy[index],
            scores=self.scores[index],
            keypoints=self.keypoints[index],
            positions=None if self.positions is None else self.positions[index],
            depth_source=self.depth_source,
        )
