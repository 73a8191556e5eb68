"""Whose body, hand, face or foot was found."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wholebody.association import compare, hide_others, is_anothers, nearest_is_own, on_limbs, unit_of
from wholebody.rois import Roi

Floats = NDArray[np.float32]
NOBODY = np.zeros((0, 17, 3), np.float32)
FLIP = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


def standing(x: float = 200, y: float = 100, height: float = 340, score: float = 0.9) -> Floats:
    """Somebody who faces the camera, (17, 3)."""
    across = [0, 3, -3, 6, -6, 22, -22, 30, -30, 34, -34, 14, -14, 15, -15, 16, -16]
    down = [30, 26, 26, 28, 28, 60, 60, 110, 110, 155, 155, 160, 160, 240, 240, 320, 320]
    scale = height / 340
    return np.array(
        [[x + a * scale, y + d * scale, score] for a, d in zip(across, down, strict=True)], np.float32
    )


def test_the_unit_is_the_torso_or_what_shoulders_or_box_make_of_it() -> None:
    body = standing()
    assert unit_of(body, 340) == pytest.approx(100)
    assert unit_of(body, 900) == pytest.approx(180)
    bent = body.copy()
    bent[[11, 12], 1] = bent[[5, 6], 1] + 10
    assert unit_of(bent, 100) == pytest.approx(1.1 * 44)
    assert unit_of(np.full((17, 3), np.nan, np.float32), 0) == 1


def test_points_on_a_neighbours_limb_are_told_from_those_beside_it() -> None:
    neighbour = standing(200)
    shin = (neighbour[13, :2] + neighbour[15, :2]) / 2
    beside = np.array([(0, 0), (14, 0), (25, 0), (0, 120)], np.float32)
    points = np.asarray(shin + beside, np.float32)
    np.testing.assert_array_equal(on_limbs(points, neighbour[None]), [True, True, False, False])
    hidden = neighbour.copy()
    hidden[15, 2] = 0.2
    np.testing.assert_array_equal(on_limbs(points, hidden[None]), [False] * 4)
    np.testing.assert_array_equal(on_limbs(points, NOBODY), [False] * 4)


@pytest.mark.parametrize(
    ("points", "close", "same", "swapped"),
    [
        (standing()[:, :2], True, True, False),
        (standing(220)[:, :2], True, True, False),
        (standing(240)[:, :2], False, True, False),
        (standing(260)[:, :2], False, False, False),
        (standing()[FLIP, :2], False, False, True),
    ],
    ids=["itself", "a fifth of the torso off", "two fifths", "six tenths", "sides exchanged"],
)
def test_bodies_agree_by_the_torso(points: Floats, close: bool, same: bool, swapped: bool) -> None:
    found = compare(points, standing(), 100)
    assert (found.close, found.same, found.swapped) == (close, same, swapped)


def test_a_person_seen_from_the_side_has_no_sides_to_exchange() -> None:
    side = standing()
    side[:, 0] = 200 + (side[:, 0] - 200) * 0.1
    assert compare(side[FLIP, :2], side, 100).close


def test_few_sure_points_cannot_be_compared() -> None:
    unsure = standing(score=0.2)
    unsure[:3, 2] = 0.9
    found = compare(standing()[:, :2], unsure, 100)
    assert (found.common, found.same) == (3, False)


def test_a_body_on_a_neighbour_is_the_neighbours() -> None:
    me, neighbour = standing(200), standing(280)
    others = neighbour[None]
    assert is_anothers(neighbour[:, :2], me, others, 100)
    assert not is_anothers(me[:, :2], me, others, 100)
    assert not is_anothers(me[:, :2], me, NOBODY, 100)
    unknown = np.full((17, 3), np.nan, np.float32)
    assert is_anothers(neighbour[:, :2], unknown, others, 100)
    assert not is_anothers(me[:, :2], unknown, np.full((1, 17, 3), np.nan, np.float32), 100)


def test_a_hand_belongs_to_the_nearest_wrist() -> None:
    neighbour = standing(300)
    wrist = neighbour[9, :2]
    own = wrist[None] + np.float32(30)
    assert not nearest_is_own(wrist + 2, own, neighbour[None], (9, 10), reach=50)
    assert nearest_is_own(own[0], own, neighbour[None], (9, 10), reach=50)
    assert nearest_is_own(wrist + 2, own, NOBODY, (9, 10), reach=50)
    assert nearest_is_own(wrist - 60, own - 100, neighbour[None], (9, 10), reach=50)
    neighbour[[9, 10], 2] = 0.1
    assert nearest_is_own(wrist + 2, own, neighbour[None], (9, 10), reach=50)


def test_neighbours_are_painted_over_and_the_person_is_not() -> None:
    me, neighbour = standing(120, 20, 200), standing(190, 20, 200)
    cut = np.full((256, 256, 3), 50, np.uint8)
    for body, color in ((me, 200), (neighbour, 250)):
        for x, y, _ in body:
            cut[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4] = color
    hidden = hide_others(cut, Roi(128, 128, 256), me, neighbour[None])
    assert (hidden == 250).sum() == 0
    assert (hidden == 200).sum() == (cut == 200).sum()
    np.testing.assert_array_equal(hide_others(cut, Roi(128, 128, 256), me, NOBODY), cut)
    unknown = np.full((1, 17, 3), np.nan, np.float32)
    np.testing.assert_array_equal(hide_others(cut, Roi(128, 128, 256), me, unknown), cut)
