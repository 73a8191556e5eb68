"""Persons of one image, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
DepthSource = Literal["none", "measured", "lifted"]


@dataclass(frozen=True, eq=False)
class Poses:
    """N persons with K keypoints each, by falling score.

    Attributes:
        boxes_xyxy: (N, 4) float32; x1, y1, x2, y2 in px of the upright original, unclipped.
        scores: (N,) float32; the model's own score, not a probability.
        keypoints: (N, K, 3) float32; x and y in px of the upright original, then the model's score.
        positions: (N, K, 3) float32 or None; metres, origin mid-hip, x image right, y down, z away
            from the camera; NaN where the model gives none.
        depth_source: where the third dimension comes from.
        sides: (N,) of "left", "right" or "" (a whole person, or a part that a person has once): the
            person's own side that a part such as a hand is on. None: whole persons all.
        person_index: (N,) zero-based number of the whole person that a part belongs to, -1 for a
            whole person. None: whole persons all.

    Raises:
        ValueError: the shapes do not fit one another.
    """

    boxes_xyxy: Floats
    scores: Floats
    keypoints: Floats
    positions: Floats | None = None
    depth_source: DepthSource = "none"
    sides: NDArray[np.str_] | None = None
    person_index: NDArray[np.intp] | None = None

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
        for name, array in (("sides", self.sides), ("person_index", self.person_index)):
            if array is not None and array.shape != (n,):
                raise ValueError(f"{name} must be ({n},), not {array.shape}")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def keypoint_count(self) -> int:
        """K, the number of keypoints per person."""
        return int(self.keypoints.shape[1])

    @classmethod
    def empty(cls, keypoint_count: int) -> Poses:
        """Zero persons: a normal result, not an error."""
        return cls(
            boxes_xyxy=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            keypoints=np.zeros((0, keypoint_count, 3), np.float32),
        )

    def select(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Poses:
        """The persons selected by `index`, in its order."""
        return Poses(
            boxes_xyxy=self.boxes_xyxy[index],
            scores=self.scores[index],
            keypoints=self.keypoints[index],
            positions=None if self.positions is None else self.positions[index],
            depth_source=self.depth_source,
            sides=None if self.sides is None else self.sides[index],
            person_index=None if self.person_index is None else self.person_index[index],
        )


def largest(poses: Poses) -> int:
    """Place of the person with the largest box, of at least one person."""
    sides = poses.boxes_xyxy[:, 2:] - poses.boxes_xyxy[:, :2]
    return int(np.argmax(sides.prod(axis=1)))


def present(keypoints: Floats) -> NDArray[np.bool_]:
    """Which keypoints are there at all: (..., 3) of x, y, score to (...) bool.

    x = y = score = 0 is how the contract says that there is no such point; a point that is not
    finite is none either.
    """
    there = np.isfinite(keypoints).all(axis=-1) & (keypoints != 0).any(axis=-1)
    return np.asarray(there, np.bool_)


def extents(keypoints: Floats) -> Floats:
    """Boxes around the points that are there: (N, K, 3) to (N, 4) x1, y1, x2, y2 in the same px.

    At least one px wide and high, for a box has to have an inside. NaN where no point is there.
    """
    there = present(keypoints)[..., None]  # (N, K, 1)
    low = np.where(there, keypoints[..., :2], np.float32(np.inf)).min(axis=1, initial=np.inf)  # (N, 2)
    high = np.where(there, keypoints[..., :2], np.float32(-np.inf)).max(axis=1, initial=-np.inf)
    boxes = np.concatenate([low, np.maximum(high, low + 1)], axis=1).astype(np.float32)
    boxes[~there.any(axis=(1, 2))] = np.nan
    return boxes
