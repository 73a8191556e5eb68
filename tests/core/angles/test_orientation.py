"""How the body is turned toward the camera."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from service.core.angles import AngleOptions, PersonMeasures, measure, person_measures
from service.core.poses import Floats
from service.core.skeleton.template import Skeleton
from tests.core.angles.figures import COCO, COCO_NAMES, WHOLEBODY, array_of, frontal, poses_of, profile
from tests.core.angles.vectors import FRONTAL, LEFTWARD, OVER_SPLIT, RIGHTWARD


def seen(
    person: Floats,
    skeleton: Skeleton = COCO,
    facing: Literal["auto", "left", "right", "toward", "away"] = "auto",
) -> PersonMeasures:
    return person_measures(measure(poses_of(person), skeleton, (), AngleOptions(facing=facing)), 0)


def hidden(person: Floats, *parts: str) -> Floats:
    changed = person.copy()
    for i, name in enumerate(COCO_NAMES):
        if any(part in name for part in parts):
            changed[i, 2] = 0.1
    return changed


@pytest.mark.parametrize(
    ("person", "view", "facing"),
    [
        (FRONTAL, "frontal", "toward"),
        (RIGHTWARD, "sagittal", "right"),
        (LEFTWARD, "sagittal", "left"),
        (OVER_SPLIT, "frontal", "toward"),
        (array_of(frontal(toward=-1), COCO), "frontal", "away"),
        (array_of(profile(facing=1), COCO), "sagittal", "right"),
        (array_of(profile(facing=-1), COCO), "sagittal", "left"),
    ],
    ids=["V1", "V2", "V3", "V4", "back", "rightward", "leftward"],
)
def test_views_and_facings(person: Floats, view: str, facing: str) -> None:
    answers = seen(person)
    assert (answers.view, answers.facing) == (view, facing)
    assert not answers.swap_suspected


@pytest.mark.parametrize(
    ("yaw_deg", "view"),
    [(0, "frontal"), (30, "frontal"), (60, "oblique"), (75, "sagittal"), (90, "sagittal")],
)
def test_a_body_that_turns_goes_from_frontal_to_profile(yaw_deg: float, view: str) -> None:
    person = array_of(frontal(), COCO)
    person[:, 0] = 500 + (person[:, 0] - 500) * np.cos(np.radians(yaw_deg))
    assert seen(person).view == view


def test_a_folded_trunk_does_not_widen_the_shoulders() -> None:
    points = frontal(thighs=(0, 0))
    fold = 0.7 * (
        points["left_hip"] + points["right_hip"] - points["left_shoulder"] - points["right_shoulder"]
    )
    for name in points:
        if not any(part in name for part in ("hip", "knee", "ankle")):
            points[name] += fold / 2
    assert seen(array_of(points, COCO)).view_score == pytest.approx(0.22 / 0.288, rel=0.01)


@pytest.mark.parametrize("facing", [1, -1], ids=["rightward", "leftward"])
@pytest.mark.parametrize(
    ("visible", "figure"),
    [
        ("face", {}),
        ("feet", {"head": False}),
        ("knees", {"head": False, "feet": False, "knee": 60.0}),
        ("elbows", {"head": False, "feet": False, "elbow": 70.0}),
    ],
    ids=["face", "feet", "knees", "elbows"],
)
def test_every_cue_tells_the_facing_alone(facing: int, visible: str, figure: dict[str, float]) -> None:
    points = profile(facing=facing, knee=figure.get("knee", 5.0), elbow=figure.get("elbow", 5.0))
    gone = [] if figure.get("head", True) else ["nose", "eye", "ear"]
    gone += [] if figure.get("feet", True) else ["toe", "heel"]
    points = {name: at for name, at in points.items() if not any(part in name for part in gone)}
    assert seen(array_of(points, WHOLEBODY), WHOLEBODY).facing == ("right" if facing > 0 else "left")


def test_without_any_cue_the_facing_is_unknown() -> None:
    points = profile(knee=5, elbow=5)
    points = {name: at for name, at in points.items() if not any(part in name for part in ("nose", "ear"))}
    assert seen(array_of(points, COCO)).facing == "unknown"


def test_a_facing_that_is_told_settles_it() -> None:
    assert seen(RIGHTWARD, facing="left").facing == "left"
    assert seen(FRONTAL, facing="away").facing == "away"


@pytest.mark.parametrize("gone", [("hip",), ("hip", "nose")], ids=["no hips", "neither hips nor head"])
def test_front_and_back_are_told_apart_without_hips(gone: tuple[str, ...]) -> None:
    assert seen(hidden(array_of(frontal(toward=1), COCO), *gone)).facing == "toward"
    assert seen(hidden(array_of(frontal(toward=-1), COCO), *gone)).facing == "away"


def test_a_portrait_is_frontal_by_its_arms() -> None:
    assert seen(hidden(array_of(frontal(), COCO), "hip", "knee", "ankle")).view == "frontal"


def test_nothing_to_go_by_is_unknown() -> None:
    answers = seen(np.zeros((17, 3), np.float32))
    assert (answers.view, answers.view_score, answers.facing) == ("unknown", None, "unknown")
