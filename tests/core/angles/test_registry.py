from __future__ import annotations

import pytest

from service.core.angles import MEASUREMENTS, AngleOptions, Neutral, Thresholds, parse_names
from service.errors import InvalidRequest


@pytest.mark.parametrize(
    ("requested", "names"),
    [
        ([], ()),
        ("", ()),
        (" , ,", ()),
        ("knee_flexion", ("knee_flexion",)),
        (["splits", "knee_side"], ("splits", "knee_side")),
        ("splits, knee_side", ("splits", "knee_side")),
        (["splits,knee_side", " Elbow_Side "], ("splits", "knee_side", "elbow_side")),
        ("splits,SPLITS,splits", ("splits",)),
    ],
    ids=["no list", "no string", "blanks", "one", "list", "commas", "both", "repeated"],
)
def test_names_are_read_from_lists_and_commas(requested: str | list[str], names: tuple[str, ...]) -> None:
    assert parse_names(requested) == names


def test_unknown_names_are_named_beside_the_good_ones() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_names(["knee_flexion", "knee_bend, x'; DROP TABLE--"])
    error = refused.value
    assert error.reason == "UNKNOWN_MEASUREMENT"
    assert "'knee_bend'" in error.message
    assert [violation.field for violation in error.violations] == ["measurements", "measurements"]
    for name in MEASUREMENTS:
        assert name in error.message


def test_a_flood_of_unknown_names_gives_a_short_answer() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_names([f"{'x' * 10_000}{i}" for i in range(1000)])
    assert len(refused.value.message) < 1000
    assert len(refused.value.violations) == 10


def test_there_are_nineteen_and_two_extensions() -> None:
    extensions = [name for name, measurement in MEASUREMENTS.items() if measurement.extension]
    assert extensions == ["ankle_dorsiflexion", "wrist_flexion"]
    assert len(MEASUREMENTS) == 21


def test_titles_and_body_parts_are_those_that_users_of_joint_angle_apis_know() -> None:
    found = {m.name: (m.title, m.body_part) for m in MEASUREMENTS.values() if not m.extension}
    assert found == {
        "shoulder_abduction": ("Shoulder Abduction", "shoulder"),
        "shoulder_forward_flexion": ("Shoulder Forward Flexion", "shoulder"),
        "shoulder_extension": ("Shoulder Extension", "shoulder"),
        "back_side_flexion": ("Back Side Flexion", "back"),
        "back_lumbar_forward_flexion": ("Back Lumbar Forward Flexion", "back"),
        "back_lumbar_extension": ("Back Lumbar Extension", "back"),
        "knee_flexion": ("Knee Flexion", "knee"),
        "knee_extension": ("Knee Extension", "knee"),
        "neck_lateral_flexion": ("Neck Lateral Flexion", "neck"),
        "neck_forward_flexion": ("Neck Forward Flexion", "neck"),
        "neck_extension": ("Neck Extension", "neck"),
        "splits": ("Splits", "hip"),
        "squats_knee_front": ("Squats Knee (front view)", "knee"),
        "squats_knee_side": ("Squats Knee (side view)", "knee"),
        "squats_hip_front": ("Squats Hip (front view)", "hip"),
        "squats_hip_side": ("Squats Hip (side view)", "hip"),
        "elbow_side": ("Elbow (side view)", "elbow"),
        "hip_side": ("Hip (side view)", "hip"),
        "knee_side": ("Knee (side view)", "knee"),
    }


@pytest.mark.parametrize("bad", [float("nan"), float("inf")], ids=str)
def test_options_that_are_not_finite_are_all_refused_at_once(bad: float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        AngleOptions(
            thresholds=Thresholds(min_score=bad),
            camera_roll_deg=bad,
            baseline={("splits", "left"): Neutral(bad), ("splits", "right"): Neutral(1.0, -1.0)},
        )
    assert [violation.field for violation in refused.value.violations] == [
        "camera_roll_deg",
        "baseline[splits].left",
        "baseline[splits].right",
        "thresholds.min_score",
    ]
