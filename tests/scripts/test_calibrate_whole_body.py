"""How answers are held against annotations."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from scripts.calibrate_whole_body import (
    PARTS,
    Annotated,
    Answered,
    match,
    part_error,
    read_annotations,
    report,
    reprojection,
    shared_parts,
)

RNG = np.random.default_rng(4)


def person(number: int, shift: float = 0) -> Annotated:
    points = np.random.default_rng(1).uniform(0, 100, (133, 3))
    points[:, :2] += shift
    points[:, 2] = 2
    sizes = {"face": 20.0, "left hand": 20.0, "right hand": 40.0}
    return Annotated(number, points, 10_000.0, sizes)


def answer(to: Annotated, off: float = 0, **lost: str) -> Answered:
    points = to.points.copy()
    points[:, 0] += off
    points[:, 2] = 0.9
    for part in lost.values():
        points[PARTS[part]] = 0
    positions = np.concatenate([points[:, :2] / 100, np.zeros((133, 1))], axis=1)
    return Answered(points, positions)


def test_annotations_are_read_in_px_of_the_enlarged_image() -> None:
    flat = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
    one: dict[str, Any] = {name: [1.0, 2.0, 2.0] * count for name, count in flat.items()}
    one |= {"id": 7, "image_id": 3, "iscrowd": 0, "area": 50.0, "face_valid": True, "face_box": [0, 0, 4, 6]}
    for side in ("lefthand", "righthand"):
        one |= {f"{side}_valid": False, f"{side}_box": [0, 0, 0, 0]}
    data = {"images": [{"id": 3, "file_name": "a.jpg"}], "annotations": [one, one | {"iscrowd": 1}]}
    ((name, (found,)),) = read_annotations(data, 2).items()
    assert (name, found.number, found.area, found.sizes) == ("a.jpg", 7, 200.0, {"face": 12})
    np.testing.assert_array_equal(found.points, [[2, 4, 2]] * 133)


def test_each_answer_is_the_nearest_persons_and_only_one() -> None:
    first, second, far = person(1), person(2, 30), person(3, 5000)
    answers = [answer(second, 2), answer(first, 1)]
    assert match([first, second, far], answers) == [answers[1], answers[0], None]
    assert match([], answers) == []
    assert match([first], []) == [None]


def test_errors_are_in_percent_of_the_part() -> None:
    one = person(1)
    assert part_error(one, answer(one, 2), "left hand") == pytest.approx(10)
    assert part_error(one, answer(one, 2), "right hand") == pytest.approx(5)
    assert part_error(one, answer(one, 2, lost="left hand"), "left hand") is None


def test_parts_of_two_persons_are_counted_and_those_of_one_are_not() -> None:
    one = person(1)
    here, there = answer(one), answer(one, 1)
    assert shared_parts([here]) == 0
    assert shared_parts([here, there]) == 3
    assert shared_parts([here, answer(person(2, 500))]) == 0
    assert shared_parts([here, answer(one, 1, lost="face")]) == 2


def test_the_3d_body_is_held_against_the_2d_body() -> None:
    one = answer(person(1))
    assert reprojection(one) == pytest.approx(0, abs=1e-9)
    worse = one.positions.copy()
    worse[:17, 0] += RNG.normal(size=17)
    assert (reprojection(Answered(one.points, worse)) or 0) > 5
    assert reprojection(Answered(one.points, np.full((133, 3), np.nan))) is None


def test_the_report_names_what_is_given_and_what_is_not() -> None:
    one = person(1)
    text = io.StringIO()
    pairs = [("a.jpg", [one], [answer(one, 1, lost="left hand")]), ("b.jpg", [person(2)], [])]
    report(pairs, Console(file=text, width=120))
    told = text.getvalue()
    assert "17 of 17" in told
    assert "0 of 21" in told
    assert "not given" in told
    assert "1 persons found, 1 of them annotated" in told
