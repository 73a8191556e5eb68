from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from wholebody.hands import MIN_FOREARM, PALM_ANCHORS, PALM_REGION, Arm, Hand, find_hand, is_plausible
from wholebody.networks import Networks

ELBOW, WRIST = np.array([100, 200], np.float32), np.array([160, 200], np.float32)


def arm(others: NDArray[np.float32] | None = None, score: float = 0.9) -> Arm:
    """A forearm of 60 px that points to the right, of a person of 120 px from shoulders to hips."""
    neighbours = np.zeros((0, 17, 3), np.float32) if others is None else others
    return Arm(ELBOW[None], WRIST[None], np.array([score], np.float32), None, 120.0, neighbours)


def hand_at(x: float, y: float) -> Hand:
    points = np.random.default_rng(0).uniform(0, 40, (21, 2)).astype(np.float32) + np.array(
        (x, y), np.float32
    )
    points[0] = x, y
    return Hand(points, np.zeros((21, 3), np.float32), 0.9)


@pytest.mark.parametrize(("joint", "its"), [(9, False), (16, False), (13, True)])
def test_what_is_at_a_neighbours_wrist_or_ankle_is_no_hand_of_this_arm(joint: int, its: bool) -> None:
    neighbour = np.zeros((1, 17, 3), np.float32)
    neighbour[0, joint] = 192, 200, 0.9
    assert is_plausible(hand_at(190, 200), arm(), (400, 400))
    assert is_plausible(hand_at(190, 200), arm(neighbour), (400, 400)) is its


@dataclass
class Blind:
    """A palm detector that finds nothing, and remembers what it was shown."""

    size: int = 192
    squares: list[NDArray[np.uint8]] = field(default_factory=list)

    def __call__(self, square: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        self.squares.append(square)
        return [np.zeros((1, 2016, 18), np.float32), np.full((1, 2016, 1), -20, np.float32)]


class Palm(Blind):
    """A palm detector that sees one palm of 40 px, always at the wrist of `arm`, middle finger up."""

    def __call__(self, square: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        raw, logits = super().__call__(square)
        side = PALM_REGION * 60
        wrist = (WRIST - (175, 200)) / side + 0.5  # the square lies a quarter of the forearm beyond the wrist
        number = int(np.linalg.norm(PALM_ANCHORS - wrist, axis=1).argmin())
        to_wrist = (wrist - PALM_ANCHORS[number]) * 192
        raw[0, number, :2] = to_wrist
        raw[0, number, 2:4] = 40 / side * 192
        raw[0, number, 4:] = np.tile(to_wrist, 7)
        raw[0, number, 9] -= 20
        logits[0, number] = 5
        return [raw, logits]


@dataclass
class Refusing:
    """A hand network with one flag for whatever it is shown, and points around the middle of the square."""

    flag: float = 0.1
    size: int = 224
    calls: int = 0

    def __call__(self, _: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        self.calls += 1
        points = np.full((1, 63), 112, np.float32)
        points[0, 0::3] += np.linspace(-40, 40, 21, dtype=np.float32)
        return [points, np.array([[self.flag]], np.float32), np.zeros((1, 63), np.float32)]


@dataclass
class Steady(Refusing):
    """A hand network with a flag for each look. It has an upright hand where the square of its points is the
    one that it was shown, so that each look finds the same one; or so many px of its input beside it."""

    flags: tuple[float, ...] = ()
    beside: float = 0.0

    def __call__(self, square: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        points, _, world = super().__call__(square)
        points[0, 0::3] = 112 + self.beside * (self.calls - 1)
        points[0, 1::3] = 112 + 0.1 * 112 + 56 - 112 / 18 * np.arange(21)  # `rois.hand_from_landmarks`
        return [points, np.array([[self.flags[self.calls - 1]]], np.float32), world]


@dataclass
class Recrop(Blind):
    """A re-crop network that has the hand's middle in the middle of its square."""

    def __call__(self, square: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        self.squares.append(square)
        return [np.array([[96, 96, 96, 30]], np.float32)]


@dataclass
class Hands:
    """The networks that are asked."""

    palm_detector: Blind = field(default_factory=Blind)
    hand: Refusing = field(default_factory=Refusing)
    hand_recrop: Recrop = field(default_factory=Recrop)


def test_palms_are_looked_for_in_a_square_of_two_forearms_around_a_sure_wrist() -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    image[195:205, 155:165] = 255  # 10 px
    networks = Hands()
    assert find_hand(image, arm(), cast("Networks", networks)) is None
    wide = [(square > 127).any(axis=(0, 2)).sum() for square in networks.palm_detector.squares]
    assert wide == pytest.approx([10 / (2 * 60) * 192], abs=2)
    unsure = Hands()
    assert find_hand(image, arm(score=0.7), cast("Networks", unsure)) is None
    assert not unsure.palm_detector.squares


@pytest.mark.parametrize(("flag", "found"), [(0.1, False), (0.9, True)])
def test_the_hand_network_decides_on_a_palm(flag: float, found: bool) -> None:
    networks = Hands(Palm(), Refusing(flag=flag))
    hand = find_hand(np.zeros((400, 400, 3), np.uint8), arm(), cast("Networks", networks))
    assert (hand is not None) is found
    assert (len(networks.palm_detector.squares), networks.hand.calls) == (1, 1)


@pytest.mark.parametrize(("forearm", "looks"), [(MIN_FOREARM - 1, 0), (MIN_FOREARM + 1, 1)])
def test_no_palm_is_looked_for_at_an_arm_that_is_too_small(forearm: float, looks: int) -> None:
    networks = Hands()
    small = replace(arm(), elbows=WRIST[None] - np.array([[forearm, 0]], np.float32), unit=forearm)
    assert find_hand(np.zeros((400, 400, 3), np.uint8), small, cast("Networks", networks)) is None
    assert len(networks.palm_detector.squares) == looks
    foreshortened = replace(small, unit=2.1 * MIN_FOREARM)
    assert find_hand(np.zeros((400, 400, 3), np.uint8), foreshortened, cast("Networks", networks)) is None
    assert len(networks.palm_detector.squares) == looks + 1


@pytest.mark.parametrize(("first_score", "squares"), [(0.9, 2), (0.7, 1)])
def test_each_sure_wrist_is_looked_at(first_score: float, squares: int) -> None:
    networks = Hands()
    one = arm()
    two = replace(
        one,
        elbows=np.stack([ELBOW, ELBOW + 50]),
        wrists=np.stack([WRIST, WRIST + 50]),
        scores=np.array([first_score, 0.9], np.float32),
    )
    assert find_hand(np.zeros((400, 400, 3), np.uint8), two, cast("Networks", networks)) is None
    assert len(networks.palm_detector.squares) == squares


@pytest.mark.parametrize(("flag", "looks"), [(0.02, 1), (0.3, 2), (0.9, 1)])
def test_a_look_is_repeated_once_and_only_where_its_flag_is_not_clear(flag: float, looks: int) -> None:
    networks = Hands(hand=Refusing(flag=flag))
    fingers = WRIST + np.array([(0, 0), (25, 8), (25, -8)], np.float32)
    found = find_hand(
        np.zeros((400, 400, 3), np.uint8), replace(arm(), fingers=fingers), cast("Networks", networks)
    )
    assert (found is not None) is (flag > 0.5)
    assert networks.hand.calls == looks


@pytest.mark.parametrize(
    ("flags", "beside", "score"),
    [
        ((0.25, 0.4), 0.0, 0.4),
        ((0.4, 0.25), 0.0, 0.4),
        ((0.4, 0.25), 20.0, None),
        ((0.4, 0.15), 0.0, None),
        ((0.25, 0.25), 0.0, None),
    ],
    ids=["second surer", "first surer", "points elsewhere", "one is sure of none", "none is sure"],
)
def test_two_unsure_looks_with_the_same_points_are_a_hand(
    flags: tuple[float, ...], beside: float, score: float | None
) -> None:
    networks = Hands(hand=Steady(flags=flags, beside=beside))
    fingers = WRIST + np.array([(0, 0), (25, 8), (25, -8)], np.float32)
    found = find_hand(
        np.zeros((400, 400, 3), np.uint8), replace(arm(), fingers=fingers), cast("Networks", networks)
    )
    assert (None if found is None else found.score) == (None if score is None else pytest.approx(score))


def test_a_hand_may_be_as_large_as_a_long_forearm_allows() -> None:
    hand = hand_at(190, 200)
    near = replace(
        arm(), unit=40.0, wrists=hand.points[:1], elbows=hand.points[:1] - np.array([[30, 0]], np.float32)
    )
    assert not is_plausible(hand, near, (400, 400))
    assert is_plausible(hand, replace(near, elbows=near.wrists - np.array([[60, 0]], np.float32)), (400, 400))


@pytest.mark.parametrize(
    ("flags", "palms"),
    [((0.0001,), 0), ((0.001,), 1), ((0.3, 0.05), 0), ((0.3, 0.15), 1)],
    ids=["surely none", "hardly one", "none when looked at again", "perhaps one"],
)
def test_where_the_hand_network_sees_none_no_palm_is_looked_for(flags: tuple[float, ...], palms: int) -> None:
    networks = Hands(hand=Steady(flags=flags))
    fingers = WRIST + np.array([(0, 0), (25, 8), (25, -8)], np.float32)
    found = find_hand(
        np.zeros((400, 400, 3), np.uint8), replace(arm(), fingers=fingers), cast("Networks", networks)
    )
    assert found is None
    assert len(networks.palm_detector.squares) == palms


@pytest.mark.parametrize(
    ("flags", "beside", "found"),
    [((0.5, 0.55), 0.0, True), ((0.5, 0.9), 20.0, False), ((0.25, 0.9), 0.0, False)],
    ids=["the same", "surer, elsewhere", "not worth another look"],
)
def test_an_unsure_hand_at_a_palm_is_one_if_another_look_has_it_there(
    flags: tuple[float, ...], beside: float, found: bool
) -> None:
    networks = Hands(Palm(), Steady(flags=flags, beside=beside))
    hand = find_hand(np.zeros((400, 400, 3), np.uint8), arm(), cast("Networks", networks))
    assert (None if hand is None else hand.score) == (pytest.approx(max(flags)) if found else None)


@pytest.mark.parametrize(("away", "found"), [(0.4, False), (0.7, True)])
def test_two_unsure_looks_near_a_neighbours_foot_are_no_hand(away: float, found: bool) -> None:
    networks = Hands(hand=Steady(flags=(0.4, 0.4)))
    fingers = WRIST + np.array([(0, 0), (25, 8), (25, -8)], np.float32)
    alone = replace(arm(score=0.5), fingers=fingers)
    hand = find_hand(np.zeros((400, 400, 3), np.uint8), alone, cast("Networks", networks))
    assert hand is not None
    neighbour = np.zeros((1, 17, 3), np.float32)
    neighbour[0, 15] = *(hand.points[0] + np.array([0, away * alone.unit], np.float32)), 0.9
    again = Hands(hand=Steady(flags=(0.4, 0.4)))
    beside = replace(alone, others=neighbour, wrists=hand.points[:1])
    assert (
        find_hand(np.zeros((400, 400, 3), np.uint8), beside, cast("Networks", again)) is not None
    ) is found
