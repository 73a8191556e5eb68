"""Which circumstances make a value doubtful, which withhold it, and what is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.core.angles import (
    MEASUREMENTS,
    AngleOptions,
    AngleValue,
    Side,
    Status,
    Thresholds,
    measure,
    person_measures,
)
from service.core.poses import Floats
from tests.core.angles.figures import (
    ALL,
    COCO,
    COCO_NAMES,
    NINETEEN,
    array_of,
    frontal,
    poses_of,
    profile,
    skeleton_of,
)
from tests.core.angles.vectors import FRONTAL, RIGHTWARD

OK, DEGRADED, UNAVAILABLE = Status.OK, Status.DEGRADED, Status.UNAVAILABLE
# a quiet measurement for most of the table: no facing, no view, no neutral head
ELBOW = ("elbow_side", "right")


def value(person: Floats, name: str, side: str, **options: Any) -> AngleValue:
    found = measure(poses_of(person), COCO, (name,), AngleOptions(**options))
    result = person_measures(found, 0).results[0]
    answer = result.left if side == "left" else result.right
    assert answer is not None
    assert (answer.degrees is None) == (answer.status is UNAVAILABLE)
    return answer


def with_score(person: Floats, score: float, *names: str) -> Floats:
    changed = person.copy()
    for name in names:
        changed[COCO_NAMES.index(name), 2] = score
    return changed


def figure(points: dict[str, complex]) -> Floats:
    return array_of(points, COCO)


def placed(person: Floats, name: str, *, at: complex) -> Floats:
    changed = person.copy()
    changed[COCO_NAMES.index(name), :2] = at.real, at.imag
    return changed


# A squat seen from the front: the thighs point at the camera by this much.
def squat(ratio: float) -> Floats:
    points = frontal(thighs=(10, 10))
    for side in ("left", "right"):
        hip, knee, ankle = (points[f"{side}_{part}"] for part in ("hip", "knee", "ankle"))
        thigh = (knee - hip) * ratio * 0.246 / 0.245
        points[f"{side}_knee"], points[f"{side}_ankle"] = hip + thigh, hip + thigh + ankle - knee
    return figure(points)


CASES: list[tuple[str, Floats, str, str, dict[str, Any], Status, tuple[str, ...]]] = [
    ("all is well", figure(profile(elbow=60)), *ELBOW, {}, OK, ()),
    (
        "a keypoint is unsure",
        with_score(figure(profile(elbow=60)), 0.4, "right_shoulder"),
        *ELBOW,
        {},
        DEGRADED,
        ("LOW_CONFIDENCE:right_shoulder",),
    ),
    (
        "a score is at the lower threshold",
        with_score(figure(profile(elbow=60)), 0.3001, "right_shoulder"),
        *ELBOW,
        {},
        DEGRADED,
        ("LOW_CONFIDENCE:right_shoulder",),
    ),
    (
        "a score is at the upper threshold",
        with_score(figure(profile(elbow=60)), 0.5, "right_wrist"),
        *ELBOW,
        {},
        OK,
        (),
    ),
    (
        "keypoints cannot be used",
        with_score(figure(profile(elbow=60)), 0.29, "right_wrist", "right_elbow"),
        *ELBOW,
        {},
        UNAVAILABLE,
        ("LOW_CONFIDENCE:right_elbow", "LOW_CONFIDENCE:right_wrist"),
    ),
    (
        "a score is not a number",
        with_score(figure(profile(elbow=60)), np.nan, "right_wrist"),
        *ELBOW,
        {},
        UNAVAILABLE,
        ("LOW_CONFIDENCE:right_wrist",),
    ),
    (
        "a score is beyond 1",
        with_score(figure(profile(elbow=60)), 7.5, "right_wrist"),
        *ELBOW,
        {},
        OK,
        (),
    ),
    (
        "a score is negative",
        with_score(figure(profile(elbow=60)), -3.0, "right_wrist"),
        *ELBOW,
        {},
        UNAVAILABLE,
        ("LOW_CONFIDENCE:right_wrist",),
    ),
    (
        "a coordinate is not a number",
        placed(figure(profile(elbow=60)), "right_wrist", at=complex(np.nan, 300)),
        *ELBOW,
        {},
        UNAVAILABLE,
        ("MISSING:right_wrist",),
    ),
    (
        "a coordinate is infinite",
        placed(figure(profile(elbow=60)), "right_wrist", at=complex(300, -np.inf)),
        *ELBOW,
        {},
        UNAVAILABLE,
        ("MISSING:right_wrist",),
    ),
    (
        "two points coincide",
        placed(
            figure(profile(elbow=60)),
            "right_wrist",
            at=complex(*figure(profile(elbow=60))[COCO_NAMES.index("right_elbow"), :2]),
        ),
        *ELBOW,
        {},
        UNAVAILABLE,
        ("DEGENERATE",),
    ),
    (
        "a point is at the edge",
        placed(figure(profile(elbow=60)), "right_wrist", at=5 + 500j),
        *ELBOW,
        {"size_wh": (1000, 1000)},
        DEGRADED,
        ("OUT_OF_FRAME:right_wrist",),
    ),
    (
        "a point is outside",
        placed(figure(profile(elbow=60)), "right_wrist", at=500 + 1200j),
        *ELBOW,
        {"size_wh": (1000, 1000)},
        DEGRADED,
        ("OUT_OF_FRAME:right_wrist",),
    ),
    (
        "the arm points at the camera",
        placed(
            figure(profile(elbow=60)),
            "right_wrist",
            at=complex(*figure(profile(elbow=60))[COCO_NAMES.index("right_elbow"), :2]) + 50,
        ),
        *ELBOW,
        {},
        DEGRADED,
        ("FORESHORTENED:right_forearm",),
    ),
    (
        "the person is small",
        figure(profile(elbow=60, size=180)),
        *ELBOW,
        {},
        DEGRADED,
        ("LOW_RESOLUTION",),
    ),
    ("the side is far", figure(profile(knee=40)), "knee_flexion", "left", {}, DEGRADED, ("FAR_SIDE",)),
    ("the side is near", figure(profile(knee=40)), "knee_flexion", "right", {}, OK, ()),
    (
        "a profile is asked for a frontal angle",
        figure(profile(shoulder=40)),
        "shoulder_abduction",
        "right",
        {},
        UNAVAILABLE,
        ("VIEW_MISMATCH",),
    ),
    (
        "a frontal view is asked for an interior angle in profile",
        figure(frontal()),
        "knee_side",
        "right",
        {},
        DEGRADED,
        ("VIEW_MISMATCH",),
    ),
    (
        "a frontal view is asked for a knee in profile",
        figure(frontal(valgus=(4, 4))),
        "knee_flexion",
        "left",
        {},
        DEGRADED,
        ("FACING_UNKNOWN", "VIEW_MISMATCH"),
    ),
    (
        "a frontal view is asked for a direction in profile",
        figure(frontal()),
        "back_lumbar_forward_flexion",
        "left",
        {},
        UNAVAILABLE,
        ("FACING_UNKNOWN", "VIEW_MISMATCH"),
    ),
    (
        "an extension is asked of an arm in front",
        figure(profile(shoulder=40)),
        "shoulder_extension",
        "right",
        {},
        DEGRADED,
        ("OPPOSITE_DIRECTION",),
    ),
    (
        "an arm hangs a little in front",
        figure(profile(shoulder=4)),
        "shoulder_extension",
        "right",
        {},
        OK,
        (),
    ),
    (
        "a knee lacks extension",
        figure(profile(knee=40)),
        "knee_extension",
        "right",
        {},
        OK,
        (),
    ),
    ("the squat is shallow", squat(0.95), "squats_knee_front", "left", {}, OK, ()),
    (
        "the squat is deeper",
        squat(0.85),
        "squats_knee_front",
        "left",
        {},
        DEGRADED,
        ("PLANAR_CROSSTALK",),
    ),
    (
        "the squat is deep",
        squat(0.6),
        "squats_knee_front",
        "left",
        {},
        UNAVAILABLE,
        ("PLANAR_CROSSTALK", "FORESHORTENED:left_thigh"),
    ),
    (
        "the squat is deep and the ankle hidden",
        with_score(squat(0.6), 0.0, "left_ankle"),
        "squats_hip_front",
        "left",
        {},
        UNAVAILABLE,
        ("PLANAR_CROSSTALK", "FORESHORTENED:left_thigh"),
    ),
    (
        "the head's neutral pitch is assumed",
        figure(profile(size=1500)),
        "neck_forward_flexion",
        "right",
        {},
        OK,
        ("ASSUMED_NEUTRAL",),
    ),
]


@pytest.mark.parametrize(
    ("person", "name", "side", "options", "status", "reasons"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_what_is_said_when(
    person: Floats,
    name: str,
    side: str,
    options: dict[str, Any],
    status: Status,
    reasons: tuple[str, ...],
) -> None:
    answer = value(person, name, side, **options)
    assert answer.status is status
    assert answer.reasons == reasons


def test_shoulders_and_hips_that_disagree_are_suspected_of_a_swap() -> None:
    person = figure(frontal())
    left, right = COCO_NAMES.index("left_hip"), COCO_NAMES.index("right_hip")
    person[[left, right]] = person[[right, left]]
    answer = value(person, "shoulder_abduction", "left")
    assert answer.status is DEGRADED
    assert answer.reasons == ("SWAP_SUSPECTED",)


def test_one_bad_keypoint_fails_only_what_needs_it() -> None:
    person = with_score(FRONTAL, 0.0, "left_wrist")
    whole = measure(poses_of(FRONTAL), COCO, NINETEEN, AngleOptions())
    found = measure(poses_of(person), COCO, NINETEEN, AngleOptions())
    elbow = NINETEEN.index("elbow_side")
    lost = np.isnan(found.degrees[0]) & ~np.isnan(whole.degrees[0])
    assert lost[elbow, 0]
    assert lost.sum() == 1


@pytest.mark.parametrize("names", [(), ("tail", "paw"), ("left_knee",)], ids=["none", "animal", "one"])
def test_a_skeleton_without_the_points_answers_that_they_are_missing(names: tuple[str, ...]) -> None:
    skeleton = skeleton_of(names)
    keypoints = np.ones((1, len(names), 3), np.float32)
    answers = person_measures(measure(poses_of(keypoints), skeleton, ALL, AngleOptions()), 0)
    assert answers.view == "unknown"
    assert answers.view_score is None
    assert answers.facing == "unknown"
    for result in answers.results:
        for answer in (result.left, result.right):
            assert answer is not None
            assert answer.degrees is None
            assert answer.std_error_deg is None
            assert answer.status is UNAVAILABLE
            assert answer.reasons
            assert all(reason.startswith("MISSING:") for reason in answer.reasons)
            assert answer.keypoint_score == 0


def test_a_withheld_value_is_kept_apart() -> None:
    answer = value(squat(0.6), "squats_knee_front", "left")
    assert answer.degrees is None
    assert isinstance(answer.details["fppa_raw_deg"], float)
    assert answer.std_error_deg is not None
    assert "typical_error_deg" not in answer.details


def test_without_a_facing_the_size_of_a_movement_is_still_told() -> None:
    answer = value(figure(frontal(abduction=(70, 10))), "shoulder_forward_flexion", "left")
    assert answer.degrees is None
    assert answer.details["magnitude_deg"] == pytest.approx(70, abs=0.2)


def test_a_knee_without_a_facing_has_its_magnitude() -> None:
    for name, sign in (("knee_flexion", 1), ("knee_extension", -1)):
        answer = value(figure(frontal(valgus=(9, 0))), name, "left")
        assert answer.degrees == pytest.approx(sign * 9, abs=0.2)


def test_the_keypoint_score_is_the_weakest_link() -> None:
    person = with_score(FRONTAL, 0.7, "left_knee")
    assert value(person, "knee_side", "left").keypoint_score == pytest.approx(0.7)
    assert value(person, "knee_side", "right").keypoint_score == pytest.approx(1.0)


def test_thresholds_can_be_moved() -> None:
    person = with_score(figure(profile(elbow=60)), 0.4, "right_shoulder")
    line = replace(Thresholds(), min_score=0.1, sure_score=0.2)
    assert value(person, *ELBOW, thresholds=line).reasons == ()


def test_only_the_sides_asked_for_are_answered() -> None:
    sides: tuple[Side, Side] = ("left", "right")
    for side in sides:
        found = measure(poses_of(RIGHTWARD), COCO, ("knee_side",), AngleOptions(), side=side)
        result = person_measures(found, 0).results[0]
        assert (result.left is None) == (side == "right")
        assert (result.right is None) == (side == "left")


def test_every_measurement_has_a_title_a_body_part_and_a_description() -> None:
    for name, measurement in MEASUREMENTS.items():
        assert measurement.name == name
        assert measurement.title
        assert measurement.body_part
        assert measurement.description.endswith(".")
