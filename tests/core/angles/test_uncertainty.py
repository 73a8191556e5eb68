"""Standard errors against 8,000 noisy copies of the same person."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.angles import AngleOptions, Neutral, measure
from service.core.angles.compile import plan_for
from service.core.angles.noise import (
    FIRST_CORRELATIONS,
    SECOND_CORRELATIONS,
    correlations,
    mixing,
    mixing_of,
)
from service.core.skeleton.template import Skeleton
from tests.core.angles.figures import (
    ALL,
    BLAZE,
    COCO,
    WHOLEBODY,
    array_of,
    frontal,
    measured,
    poses_of,
    profile,
)
from tests.core.angles.vectors import RIGHTWARD

DRAWS, SIGMA_PX = 8_000, 1.5

_PROFILE = profile(lean=12, hip=70, knee=80, shoulder=50, elbow=60, neck=10, ankle=8, wrist=30)
_FRONTAL = frontal(lean=6, abduction=(60, 110), thighs=(25, 15), valgus=(8, -6), neck=14, elbow=50)
_NEUTRAL = {(name, side): Neutral(0.0) for name in ALL for side in ("left", "right")}
_IN_PROFILE = (
    "shoulder_forward_flexion",
    "back_lumbar_forward_flexion",
    "knee_flexion",
    "neck_forward_flexion",
    "squats_hip_side",
    "elbow_side",
    "hip_side",
    "knee_side",
)
_IN_FRONT = (
    "shoulder_abduction",
    "back_side_flexion",
    "neck_lateral_flexion",
    "splits",
    "squats_knee_front",
    "squats_hip_front",
    "elbow_side",
)

# what it is, names, figure, keypoints hidden from it, skeleton
CASES: list[tuple[str, tuple[str, ...], dict[str, complex], tuple[str, ...], Skeleton]] = [
    ("profile", _IN_PROFILE, _PROFILE, (), COCO),
    ("frontal", _IN_FRONT, _FRONTAL, (), COCO),
    ("face", ("neck_lateral_flexion",), _FRONTAL, (), WHOLEBODY),
    ("eyes", ("neck_lateral_flexion",), _FRONTAL, ("ear",), COCO),
    ("shoulder line", ("shoulder_abduction",), _FRONTAL, ("hip",), COCO),
    ("one flank", ("shoulder_forward_flexion",), _PROFILE, ("left_hip",), COCO),
    ("other flank", ("shoulder_forward_flexion",), _PROFILE, ("right_hip",), COCO),
    ("gravity", ("neck_forward_flexion",), _PROFILE, ("hip",), COCO),
    ("no trunk", ("splits",), _FRONTAL, ("left_shoulder",), COCO),
    ("foot and hand", ("ankle_dorsiflexion", "wrist_flexion"), _PROFILE, (), WHOLEBODY),
    ("foot and knuckles", ("ankle_dorsiflexion", "wrist_flexion"), _PROFILE, (), BLAZE),
]


@pytest.mark.parametrize(
    ("names", "figure", "hidden", "skeleton"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_noise_on_keypoints_scatters_angles_as_told(
    names: tuple[str, ...], figure: dict[str, complex], hidden: tuple[str, ...], skeleton: Skeleton
) -> None:
    seen = {name: at for name, at in figure.items() if not any(part in name for part in hidden)}
    person = array_of(seen, skeleton)
    options = AngleOptions(baseline=_NEUTRAL)  # type: ignore[arg-type]
    sigmas = np.full((1, len(person)), SIGMA_PX, np.float32)
    told = measure(poses_of(person), skeleton, names, options, sigmas_px=sigmas).std_errors_deg[0]

    noise = np.random.default_rng(20_240).normal(0, SIGMA_PX, (DRAWS, len(person), 2))
    noise = np.einsum("dpx,pq->dqx", noise, _mixing(skeleton))
    noisy = np.repeat(person[None], DRAWS, axis=0)
    noisy[..., :2] += noise.astype(np.float32)
    values = measure(poses_of(noisy), skeleton, names, options).degrees
    available = np.isfinite(told)
    assert available.any(axis=1).all()
    scattered = np.nanstd(values[:, available], axis=0)
    np.testing.assert_allclose(told[available], scattered, rtol=0.05)


def _mixing(skeleton: Skeleton) -> NDArray[np.float64]:
    """What gives the correlations of the skeleton's keypoints to independent noise."""
    return mixing_of(skeleton.name, skeleton.names)


def test_the_closed_form_of_a_three_point_angle() -> None:
    """Var = s² Σ r_ij Re(a_i ā_j); slopes 1/a, −1/c at the ends of arms a and c, 1/c − 1/a between."""
    person = array_of(_PROFILE, COCO)
    at = {name: complex(*person[COCO.index(f"left_{name}"), :2]) for name in ("hip", "knee", "ankle")}
    a, c = at["hip"] - at["knee"], at["ankle"] - at["knee"]
    slopes = np.array([1 / a, 1 / c - 1 / a, -1 / c])
    names = ("left_hip", "left_knee", "left_ankle")
    expected = np.sqrt((slopes @ correlations(FIRST_CORRELATIONS, names) @ slopes.conj()).real)
    sigmas = np.ones((1, 17), np.float32)
    told = measure(poses_of(person), COCO, ("knee_side",), AngleOptions(), sigmas_px=sigmas).std_errors_deg
    assert told[0, 0, 0] == pytest.approx(np.degrees(expected), rel=1e-5)


def test_errors_shrink_with_the_size_of_the_person_down_to_the_floor() -> None:
    errors = [
        measured(array_of(profile(knee=60, size=size), COCO), ("knee_flexion",)).std_errors_deg[0, 0, 1]
        for size in (60, 600, 6000)
    ]
    assert errors[0] > errors[1]
    # beyond the floor of one px, noise grows with the person and the angle's error stays
    assert errors[2] == pytest.approx(errors[1], rel=0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0], ids=str)
def test_a_spread_that_is_not_a_length_is_replaced_by_the_prior(bad: float) -> None:
    sigmas = np.full((1, 17), bad, np.float32)
    options = AngleOptions(baseline=_NEUTRAL)  # type: ignore[arg-type]
    told = measure(poses_of(RIGHTWARD), COCO, ALL, options, sigmas_px=sigmas).std_errors_deg
    factors = plan_for(COCO, ALL).factors.reshape(1, -1, 2)  # they belong to the tables as a whole
    np.testing.assert_allclose(
        told * factors, measure(poses_of(RIGHTWARD), COCO, ALL, options).std_errors_deg
    )


def test_arms_held_out_do_not_make_the_rest_of_the_body_less_certain() -> None:
    down, out = (
        measured(array_of(frontal(abduction=arms), COCO), ("splits",)).std_errors_deg[0, 0, 0]
        for arms in ((0.0, 0.0), (90.0, 90.0))
    )
    assert out == pytest.approx(down, rel=0.25)


def test_a_box_that_is_no_box_is_replaced_by_the_keypoints() -> None:
    poses = poses_of(RIGHTWARD)
    poses.boxes_xyxy[:] = np.nan
    told = measure(poses, COCO, ("knee_flexion",), AngleOptions()).std_errors_deg
    np.testing.assert_allclose(told, measured(RIGHTWARD, ("knee_flexion",)).std_errors_deg)


@pytest.mark.parametrize(
    "table", [FIRST_CORRELATIONS, SECOND_CORRELATIONS], ids=["first stage", "second stage"]
)
def test_the_noise_of_the_tables_can_be_and_has_its_correlations(
    table: dict[tuple[str, str], tuple[float, float]],
) -> None:
    matrix = correlations(table, COCO.names)
    np.testing.assert_array_equal(matrix, matrix.T)
    nose, eye, hip, other = (COCO.index(name) for name in ("nose", "left_eye", "left_hip", "right_hip"))
    assert matrix[nose, eye] == table["eye", "nose"][0]
    assert matrix[hip, other] == table["hip", "hip"][1]
    root = mixing(matrix)
    np.testing.assert_allclose(root.T @ root, matrix, atol=0.06)
    np.testing.assert_allclose(np.diag(root.T @ root), 1.0)


def test_correlations_that_no_noise_has_become_the_nearest_ones() -> None:
    impossible = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    root = mixing(impossible)
    assert np.linalg.eigvalsh(root.T @ root).min() >= -1e-12
    np.testing.assert_allclose(np.diag(root.T @ root), 1.0)


def test_keypoints_that_move_together_turn_a_joint_less() -> None:
    """A knee whose hip and ankle move with it turns less than one with independent noise."""
    person = array_of(_PROFILE, COCO)
    sigmas = np.ones((1, 17), np.float32)
    told = measure(poses_of(person), COCO, ("knee_side",), AngleOptions(), sigmas_px=sigmas).std_errors_deg
    hip, knee, ankle = (complex(*person[COCO.index(f"left_{part}"), :2]) for part in ("hip", "knee", "ankle"))
    a, c = hip - knee, ankle - knee
    independent = np.degrees(np.sqrt(abs(1 / a) ** 2 + abs(1 / c) ** 2 + abs(1 / c - 1 / a) ** 2))
    assert 0 < told[0, 0, 0] < independent
