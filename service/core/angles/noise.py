"""How far keypoints scatter: λ by kind of keypoint, score and stage, over the spread among annotators.

Measured by `scripts/calibrate angles`: the same persons in forty variants of an image (shifted, scaled,
mirrored, compressed, brighter or darker), so that all that changes is noise. λ · OKS sigma · √area is then
the standard deviation of a keypoint's distance from where it is in the median of the variants, fitted so that
95 % of the angles lie within two standard errors of their median. Scatter has long tails, so λ is larger than
the root mean square of most keypoints.

The images: a walk in profile, acrobats and standing persons from four sides (frames of the demonstrations of
Sports2D 0.8.34 and Pose2Sim 0.10.49, PyPI; whole, and cut out around one person at 700 to 1000 px of it), and
a photograph of COCO. The first stage (YOLO11n-pose, bf16) was fitted to 92 persons in 48 of them, the second
one (`mediapipe_wholebody`) to 64 persons in 37; they were held against 66 and 51 persons in 46 and 36 others:
scripts/README.md. A kind of keypoint that no image shows
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
    "shoulder": (0.32, 0.20, 0.20, 0.14, 0.09),
    "hip": (2.26, 0.66, 0.52, 0.44, 0.28),
    "knee": (0.70, 0.41, 0.41, 0.24, 0.14),
    "nose": (1.68, 1.68, 1.11, 0.60, 0.42),
    "ankle": (2.20, 1.08, 0.80, 0.59, 0.50),
    "elbow": (0.98, 0.96, 0.96, 0.47, 0.39),
    "wrist": (0.90, 0.90, 0.90, 0.41, 0.22),
    "ear": (0.40, 0.23, 0.18, 0.17, 0.12),
    "eye": (2.59, 1.74, 1.16, 0.83, 0.67),
}

SECOND_STAGE: Mapping[str, tuple[float, ...]] = {
    "shoulder": (1.39, 0.77, 0.77, 0.77, 0.22),
    "hip": (0.79, 0.79, 0.51, 0.26, 0.12),
    "knee": (2.14, 1.16, 0.78, 0.65, 0.23),
    "nose": (0.75, 0.75, 0.75, 0.57, 0.22),
    "ankle": (0.81, 0.52, 0.34, 0.26, 0.13),
    "elbow": (1.08, 0.49, 0.49, 0.21, 0.15),
    "wrist": (1.35, 0.85, 0.58, 0.33, 0.19),
    "ear": (0.69, 0.69, 0.55, 0.55, 0.14),
    "eye": (3.00, 2.73, 2.73, 2.46, 0.85),
    "big_toe": (1.68, 1.06, 0.97, 0.71, 0.37),
    "heel": (1.56, 1.10, 0.45, 0.42, 0.29),
    "finger": (1.09, 0.69, 0.49, 0.49, 0.29),
    "face": (3.00, 2.48, 2.48, 1.63, 1.20),
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
