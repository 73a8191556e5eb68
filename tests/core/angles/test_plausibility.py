"""OK is said of nothing that no joint can do, and of no posture that a measurement does not mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.core.angles import (
    MEASUREMENTS,
    AngleOptions,
    AngleValue,
    Neutral,
    PersonMeasures,
    Side,
    Status,
    measure,
    person_measures,
)
from service.core.angles.limits import ANY_POSTURE, LIMITS, ON_THE_FEET, UPRIGHT
from service.core.poses import Floats
from tests.core.angles.figures import ALL, COCO, array_of, frontal, poses_of, profile

OF_SQUATS = ("squats_knee_front", "squats_hip_front")


def answers(points: dict[str, complex] | Floats, **options: float) -> PersonMeasures:
    person = array_of(points, COCO) if isinstance(points, dict) else points
    return person_measures(measure(poses_of(person), COCO, ALL, AngleOptions(**options)), 0)  # type: ignore[arg-type]


def value(person: PersonMeasures, name: str, side: Side) -> AngleValue:
    result = next(one for one in person.results if one.measurement.name == name)
    answer = result.left if side == "left" else result.right
    assert answer is not None
    return answer


def turned(points: dict[str, complex], deg: float) -> dict[str, complex]:
    return {
        name: (at - 500 - 500j) * np.exp(1j * np.radians(deg)) + 500 + 500j for name, at in points.items()
    }


def in_a_chair() -> dict[str, complex]:
    """A wheelchair user: shoulders to the camera, both thighs to one side, shanks hanging."""
    return frontal(thighs=(60, -60), valgus=(-52, 52))


def on_the_floor() -> dict[str, complex]:
    """A lying person whose legs point this way and that, the shanks at the camera."""
    points = frontal(thighs=(78, -67), valgus=(-20, 10))
    for side in ("left", "right"):
        knee = points[f"{side}_knee"]
        points[f"{side}_ankle"] = knee + (points[f"{side}_ankle"] - knee) / 3.9
    return turned(points, 90)


def leaning() -> dict[str, complex]:
    """Someone who leans at the camera: in the image the shoulders are beside and below the hips."""
    points = frontal(abduction=(60, 60))
    by = 0.288 * 600 * (0.25 + 1.25j)
    for name in points:
        if not any(part in name for part in ("hip", "knee", "ankle")):
            points[name] += by
    return points


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_wheelchair_user_has_no_squat(side: Side) -> None:
    person = answers(in_a_chair())
    assert person.posture == "sitting"
    for name in OF_SQUATS:
        answer = value(person, name, side)
        assert answer.status is Status.UNAVAILABLE
        assert "POSTURE" in answer.reasons
    assert value(person, "squats_hip_front", "right").details["raw_deg"] == pytest.approx(-60, abs=2)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_lying_person_has_no_squat_and_no_lean(side: Side) -> None:
    person = answers(on_the_floor())
    assert person.posture == "lying"
    for name in (*OF_SQUATS, "back_side_flexion"):
        answer = value(person, name, side)
        assert answer.status is Status.UNAVAILABLE
        assert "POSTURE" in answer.reasons
    assert "PLANAR_CROSSTALK" in value(person, "squats_hip_front", side).reasons


@pytest.mark.parametrize(
    ("shank", "status"), [(0.9, Status.OK), (0.7, Status.DEGRADED), (0.4, Status.UNAVAILABLE)]
)
def test_a_shank_that_points_at_the_camera_counts_as_a_thigh_does(shank: float, status: Status) -> None:
    points = frontal()
    for side in ("left", "right"):
        knee = points[f"{side}_knee"]
        points[f"{side}_ankle"] = knee + (points[f"{side}_ankle"] - knee) * shank
    answer = value(answers(points), "squats_hip_front", "left")
    assert answer.status is status
    assert ("PLANAR_CROSSTALK" in answer.reasons) == (status is not Status.OK)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_trunk_that_leans_at_the_camera_does_not_turn_the_back(side: Side) -> None:
    person = answers(leaning())
    assert person.facing != "away"
    assert person.facing_score < 0.3
    answer = value(person, "shoulder_abduction", side)
    assert answer.status is Status.UNAVAILABLE
    assert "FACING_UNKNOWN" in answer.reasons


def test_a_clear_facing_has_a_high_score() -> None:
    assert answers(frontal()).facing_score > 0.9
    assert answers(frontal(toward=-1)).facing_score > 0.9
    assert answers(profile(knee=40)).facing_score > 0.9


def test_legs_that_no_knee_allows_are_not_valgus() -> None:
    person = answers(frontal(thighs=(10, 10), valgus=(44, -47.8)))
    for side in ("left", "right"):
        answer = value(person, "squats_knee_front", side)
        assert answer.status is not Status.OK
        assert "IMPLAUSIBLE" in answer.reasons


def test_a_little_beyond_the_range_is_doubtful_and_far_beyond_is_nothing() -> None:
    highest = LIMITS["squats_knee_front"].highest_deg
    for beyond, status in ((-1, Status.OK), (2, Status.DEGRADED), (40, Status.UNAVAILABLE)):
        answer = value(
            answers(frontal(thighs=(5, 5), valgus=(highest + beyond, 0))), "squats_knee_front", "left"
        )
        assert answer.status is status, beyond
    assert answer.details["fppa_raw_deg"] == pytest.approx(highest + 40, abs=0.5)


def test_a_baseline_does_not_move_the_range() -> None:
    baseline = {("squats_knee_front", "left"): Neutral(44.0)}
    answer = value(answers(frontal(valgus=(44, 0)), baseline=baseline), "squats_knee_front", "left")  # type: ignore[arg-type]
    assert "IMPLAUSIBLE" in answer.reasons


@pytest.mark.parametrize("ratio", [0.32, 0.36, 0.40])
def test_an_oblique_view_is_neither_front_nor_side(ratio: float) -> None:
    points = frontal(valgus=(5, 5))
    points = {
        name: complex(500 + (at.real - 500) * ratio * 0.288 / 0.22, at.imag) for name, at in points.items()
    }
    person = answers(points)
    assert person.view == "oblique"
    for name in ("shoulder_abduction", "back_side_flexion", "knee_side"):
        answer = value(person, name, "left")
        assert answer.status is Status.DEGRADED
        assert "VIEW_MISMATCH" in answer.reasons
    assert "VIEW_MISMATCH" not in value(person, "elbow_side", "left").reasons


FIGURES = [
    ("standing", profile(knee=5), "standing"),
    ("standing from the front", frontal(), "standing"),
    ("standing on wide legs", frontal(thighs=(35, 35)), "standing"),
    ("bending forward", profile(lean=80, hip=95), "standing"),
    ("walking", profile(hip=25, knee=20), "standing"),
    ("squatting", profile(lean=40, hip=115, knee=110), "squatting"),
    ("squatting deep", profile(lean=35, hip=130, knee=135), "squatting"),
    ("standing before a camera that is not level", turned(frontal(thighs=(8, 8)), 22), "standing"),
    ("sitting", profile(hip=90, knee=90), "sitting"),
    ("sitting in an armchair", profile(lean=-15, hip=75, knee=70), "sitting"),
    ("lying on the back", profile(lean=-90, hip=0, knee=0), "lying"),
    ("lying with bent knees", profile(lean=-90, hip=45, knee=60), "lying"),
    ("on the side", turned(frontal(), 90), "lying"),
    ("on the hands", turned(frontal(), 180), "lying"),
]


@pytest.mark.parametrize(
    ("points", "posture"),
    [case[1:] for case in FIGURES],
    ids=[c[0] for c in FIGURES],
)
def test_postures(points: dict[str, complex], posture: str) -> None:
    assert answers(points).posture == posture


def test_a_roll_of_the_camera_is_not_a_posture() -> None:
    assert answers(turned(frontal(), -90), camera_roll_deg=90.0).posture == "standing"


def test_without_legs_only_a_level_trunk_is_a_posture() -> None:
    for deg, posture in ((0, "unknown"), (65, "unknown"), (90, "lying")):
        points = {
            name: at
            for name, at in turned(frontal(), deg).items()
            if "knee" not in name and "ankle" not in name
        }
        assert answers(points).posture == posture


def test_a_side_view_of_a_squat_while_sitting_keeps_its_value() -> None:
    answer = value(answers(profile(hip=90, knee=90)), "squats_knee_side", "right")
    assert answer.degrees == pytest.approx(90, abs=0.5)
    assert answer.status is Status.DEGRADED
    assert "POSTURE" in answer.reasons
    assert value(answers(profile(hip=90, knee=90)), "knee_flexion", "right").status is Status.OK


def test_every_measurement_has_limits_with_a_source() -> None:
    assert set(LIMITS) == set(MEASUREMENTS)
    for name, limits in LIMITS.items():
        assert limits.lowest_deg < limits.highest_deg
        assert limits.source
        assert (limits.postures == ON_THE_FEET) == name.startswith("squats_")
        assert (limits.postures == UPRIGHT) == name.startswith("back_")
    for flexion, extension in (
        ("shoulder_forward_flexion", "shoulder_extension"),
        ("back_lumbar_forward_flexion", "back_lumbar_extension"),
        ("knee_flexion", "knee_extension"),
        ("neck_forward_flexion", "neck_extension"),
    ):
        assert LIMITS[flexion].lowest_deg == -LIMITS[extension].highest_deg
        assert LIMITS[flexion].highest_deg == -LIMITS[extension].lowest_deg


def test_the_ranges_stand_in_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "protos" / "README.md").read_text(encoding="utf-8")
    words = {ANY_POSTURE: "any", UPRIGHT: "not lying", ON_THE_FEET: "on the feet"}
    for name, limits in LIMITS.items():
        span = f"{limits.lowest_deg:.0f} to {limits.highest_deg:.0f}".replace("-", "−")
        assert f"| `{name}` | {span} | {words[limits.postures]} |" in text
