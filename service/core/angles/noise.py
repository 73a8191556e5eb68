"""How far keypoints scatter: λ by kind of keypoint, score and stage, over the spread among annotators.

Measured by `scripts/calibrate angles`: the same persons in forty variants of an image (shifted, scaled,
mirrored, compressed, brighter or darker), so that all that changes is noise. λ · OKS sigma · √area is then
the standard deviation of a keypoint's distance from where it is in the median of the variants, fitted so that
95 % of the angles lie within two standard errors of their median. Scatter has long tails, so λ is larger than
the root mean square of most keypoints.

The images: a walk in profile, acrobats and standing persons from four sides (frames of the demonstrations of
Sports2D 0.8.34 and Pose2Sim 0.10.49, PyPI), and a photograph of COCO. The first stage (YOLO11n-pose, bf16)
was fitted to 48 persons in 21 of them, the second one (`mediapipe_wholebody`) to 20 persons in 10; they were
held against 35 and 20 persons in 21 and 11 others: scripts/README.md. A kind of keypoint that no image shows
with a low score has the ratio of the other kinds there. Other models of a stage use its table until they have
one of their own.

It is repeatability and not accuracy: a keypoint that is wrong in the same way in every variant does not
scatter. What a single camera cannot know is `Measurement.form_error_deg`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

SCORES = (0.4, 0.6, 0.775, 0.9, 0.975)
"""Keypoint scores of the columns of the tables; between them λ is linear, beyond them constant."""

FIRST_STAGE: Mapping[str, tuple[float, ...]] = {
    "shoulder": (0.52, 0.24, 0.24, 0.16, 0.09),
    "hip": (2.41, 0.61, 0.52, 0.42, 0.27),
    "knee": (1.36, 1.01, 0.86, 0.44, 0.29),
    "nose": (2.44, 2.44, 1.76, 0.96, 0.72),
    "ankle": (2.22, 0.96, 0.82, 0.41, 0.39),
    "elbow": (1.04, 0.96, 0.96, 0.54, 0.44),
    "wrist": (0.75, 0.75, 0.75, 0.35, 0.19),
    "ear": (0.36, 0.24, 0.20, 0.18, 0.12),
    "eye": (2.33, 1.91, 1.20, 0.84, 0.69),
}

SECOND_STAGE: Mapping[str, tuple[float, ...]] = {
    "shoulder": (0.74, 0.37, 0.35, 0.25, 0.15),
    "hip": (0.91, 0.45, 0.42, 0.31, 0.19),
    "knee": (2.01, 0.83, 0.72, 0.50, 0.22),
    "nose": (3.00, 1.50, 1.40, 1.02, 0.76),
    "ankle": (1.00, 0.50, 0.47, 0.24, 0.13),
    "elbow": (1.49, 0.59, 0.59, 0.27, 0.18),
    "wrist": (1.30, 0.83, 0.54, 0.42, 0.28),
    "ear": (0.75, 0.75, 0.25, 0.18, 0.11),
    "eye": (3.00, 1.50, 1.40, 1.02, 0.75),
    "big_toe": (1.97, 0.99, 0.99, 0.99, 0.40),
    "heel": (3.00, 2.26, 0.68, 0.49, 0.46),
    "finger": (3.00, 2.05, 2.05, 1.87, 0.67),
    "face": (3.00, 2.75, 2.75, 1.10, 1.10),
}

# Native skeletons of models whose body points come from a second stage.
_SECOND_STAGE_SKELETONS = frozenset({"mediapipe_wholebody"})


def kind_of(name: str) -> str:
    """The row of a keypoint: its name without the side; `face` and `finger` for those of faces and hands."""
    part = name.removeprefix("left_").removeprefix("right_")
    if part.startswith(("face_", "face-")):
        return "face"
    return "finger" if "finger" in part or part in ("index", "pinky") else part


def noise_of(skeleton: str, names: tuple[str, ...]) -> NDArray[np.float64]:
    """λ of keypoints at each of `SCORES`: (P, 5).

    Args:
        skeleton: native skeleton of the model, which says the stage that the keypoints come from.
        names: of P keypoints. One that the table of the stage lacks has that of the other; one that both
            lack has the largest λ.
    """
    second = skeleton in _SECOND_STAGE_SKELETONS
    table, other = (SECOND_STAGE, FIRST_STAGE) if second else (FIRST_STAGE, SECOND_STAGE)
    widest = tuple(max(column) for column in zip(*table.values(), strict=True))
    rows = [table.get(kind) or other.get(kind) or widest for kind in map(kind_of, names)]
    return np.array(rows, np.float64).reshape(len(names), len(SCORES))
