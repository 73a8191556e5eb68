"""How keypoints scatter: λ by kind of keypoint, score and stage, over the spread among annotators; how they
scatter together; and what remains of single measurements.

Measured by `scripts/calibrate angles`: the same persons in forty variants of an image (shifted, scaled,
mirrored, compressed, brighter or darker), so that all that changes is noise. λ · OKS sigma · √area is then
the standard deviation of a keypoint's distance from where it is in the median of the variants, fitted so that
95 % of the angles lie within two standard errors of their median. Scatter has long tails, so λ is larger than
the root mean square of most keypoints.

Neighbours of the body move together: eyes and nose, an ear and the shoulder below it, the two hips. The
correlations are those of distances along one axis, each in the standard deviation of that keypoint in that
person; below 0.1 they count as none. On the persons that nothing was fitted to they are the same within 0.04
in the median and 0.14 at most (first stage).

A measurement has a factor where its share within two standard errors, of both stages together, was not 95 %,
beyond its interval: the legs seen from the front scatter less than legs in profile with the same scores.

The images: a walk in profile, acrobats and standing persons from four sides (frames of the demonstrations of
Sports2D 0.8.34 and Pose2Sim 0.10.49, PyPI; whole, and cut out around one person at 850 px of it), two
photographs of COCO, and single images of OpenCV, scikit-image and Ultralytics. Fitted in November 2026 to 89
persons (first stage, YOLO11n-pose in bf16) and 81 (second, `mediapipe_wholebody`); 96 and 93 persons of other
frames, cameras and images took no part: scripts/README.md. A kind of keypoint that too few images show with a
score has the ratio of the other kinds there. Other models of a stage use its tables until
they have their own.

It is repeatability and not accuracy: a keypoint that is wrong in the same way in every variant does not
scatter. What a single camera cannot know is `Measurement.form_error_deg`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

SCORES = (0.4, 0.6, 0.775, 0.9, 0.975)
"""Keypoint scores of the columns of the tables; between them λ is linear, beyond them constant."""

FIRST_STAGE: Mapping[str, tuple[float, ...]] = {
    "shoulder": (0.49, 0.31, 0.30, 0.29, 0.16),
    "hip": (0.80, 0.50, 0.49, 0.43, 0.31),
    "knee": (1.77, 1.10, 1.08, 0.85, 0.46),
    "nose": (2.38, 1.48, 1.45, 0.97, 0.36),
    "ankle": (1.09, 0.68, 0.47, 0.46, 0.30),
    "elbow": (1.35, 0.85, 0.81, 0.62, 0.42),
    "wrist": (2.71, 1.68, 1.68, 1.49, 0.66),
    "ear": (0.68, 0.29, 0.21, 0.20, 0.17),
    "eye": (2.35, 1.60, 1.60, 0.75, 0.36),
}

SECOND_STAGE: Mapping[str, tuple[float, ...]] = {
    "shoulder": (1.76, 0.80, 0.58, 0.41, 0.25),
    "hip": (1.75, 0.79, 0.57, 0.41, 0.18),
    "knee": (3.00, 1.36, 1.04, 1.04, 0.27),
    "nose": (0.90, 0.41, 0.30, 0.21, 0.19),
    "ankle": (2.22, 1.01, 0.65, 0.65, 0.24),
    "elbow": (2.34, 1.09, 0.94, 0.64, 0.25),
    "wrist": (2.01, 1.25, 0.58, 0.47, 0.25),
    "ear": (1.65, 0.75, 0.54, 0.39, 0.28),
    "eye": (3.00, 1.36, 0.98, 0.87, 0.87),
    "big_toe": (3.00, 1.67, 1.67, 0.94, 0.48),
    "heel": (2.46, 0.83, 0.48, 0.35, 0.22),
    "finger": (1.52, 0.69, 0.56, 0.34, 0.20),
    "face": (3.00, 1.48, 1.07, 1.01, 0.36),
}

# Two kinds of keypoints in the order of the alphabet: their correlation on the same side of the body, then on
# opposite sides. What has no side is on the same one.
FIRST_CORRELATIONS: Mapping[tuple[str, str], tuple[float, float]] = {
    ("ankle", "hip"): (0.11, -0.10),
    ("ankle", "knee"): (0.49, -0.16),
    ("ankle", "shoulder"): (0.00, -0.13),
    ("ear", "ear"): (0.00, 0.22),
    ("ear", "elbow"): (0.00, -0.11),
    ("ear", "eye"): (0.54, 0.16),
    ("ear", "nose"): (0.25, 0.00),
    ("ear", "shoulder"): (0.47, 0.00),
    ("elbow", "hip"): (0.26, 0.00),
    ("elbow", "shoulder"): (0.41, -0.11),
    ("elbow", "wrist"): (0.48, 0.00),
    ("eye", "eye"): (0.00, 0.65),
    ("eye", "nose"): (0.78, 0.00),
    ("eye", "shoulder"): (0.17, 0.00),
    ("hip", "hip"): (0.00, 0.62),
    ("hip", "knee"): (0.41, 0.00),
    ("hip", "shoulder"): (0.42, 0.00),
    ("hip", "wrist"): (0.11, 0.00),
    ("knee", "knee"): (0.00, 0.18),
    ("knee", "shoulder"): (0.26, -0.16),
    ("shoulder", "wrist"): (0.16, 0.00),
}

SECOND_CORRELATIONS: Mapping[tuple[str, str], tuple[float, float]] = {
    ("ankle", "ankle"): (0.00, 0.10),
    ("ankle", "big_toe"): (0.18, 0.00),
    ("ankle", "heel"): (0.30, 0.00),
    ("ankle", "hip"): (0.10, 0.00),
    ("ankle", "knee"): (0.38, 0.00),
    ("big_toe", "big_toe"): (0.00, 0.12),
    ("big_toe", "heel"): (0.38, 0.00),
    ("big_toe", "knee"): (0.18, 0.00),
    ("ear", "ear"): (0.00, 0.31),
    ("ear", "eye"): (0.59, 0.36),
    ("ear", "nose"): (0.41, 0.00),
    ("ear", "shoulder"): (0.41, 0.00),
    ("elbow", "hip"): (0.19, 0.00),
    ("elbow", "shoulder"): (0.34, 0.00),
    ("elbow", "wrist"): (0.35, 0.00),
    ("eye", "eye"): (0.00, 0.70),
    ("eye", "nose"): (0.80, 0.00),
    ("eye", "shoulder"): (0.20, 0.00),
    ("face", "face"): (0.29, 0.00),
    ("heel", "knee"): (0.11, 0.00),
    ("hip", "hip"): (0.00, 0.50),
    ("hip", "knee"): (0.33, 0.00),
    ("hip", "shoulder"): (0.34, 0.00),
    ("hip", "wrist"): (0.10, 0.00),
    ("knee", "knee"): (0.00, 0.16),
    ("knee", "shoulder"): (0.20, 0.00),
    ("shoulder", "wrist"): (0.13, 0.00),
}

FACTORS: Mapping[str, float] = {
    "squats_knee_front": 0.78,
    "squats_hip_front": 0.76,
}
"""What the standard errors of measurements are multiplied by, in both stages; 1 where there is none."""

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


def mixing_of(skeleton: str, names: tuple[str, ...]) -> NDArray[np.float64]:
    """What gives independent noise of keypoints, times it, the correlations of theirs: (P, P)."""
    second = skeleton in _SECOND_STAGE_SKELETONS
    own, other = SECOND_CORRELATIONS, FIRST_CORRELATIONS
    table = {**other, **own} if second else {**own, **other}
    return mixing(correlations(table, names))


def correlations(
    table: Mapping[tuple[str, str], tuple[float, float]], names: tuple[str, ...]
) -> NDArray[np.float64]:
    """Correlations of the noise of keypoints along one axis by such a table: (P, P)."""
    kinds, sides = [kind_of(name) for name in names], [side_of(name) for name in names]
    matrix = np.eye(len(names))
    for i, j in combinations(range(len(names)), 2):
        pair = (kinds[i], kinds[j])
        same, opposite = table.get(pair) or table.get(pair[::-1]) or (0.0, 0.0)
        matrix[i, j] = matrix[j, i] = opposite if {sides[i], sides[j]} == {"left", "right"} else same
    return matrix


def mixing(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """A root of the correlations; of the nearest possible ones, as rounded ones may be impossible."""
    values, vectors = np.linalg.eigh(matrix)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    scale = np.linalg.norm(root, axis=1, keepdims=True)
    return np.asarray((root / np.where(scale > 0, scale, 1.0)).T, np.float64)


def side_of(name: str) -> str:
    """`left`, `right`, or nothing for what is in the middle or not told by the name."""
    side = name.partition("_")[0]
    return side if side in ("left", "right") else ""
