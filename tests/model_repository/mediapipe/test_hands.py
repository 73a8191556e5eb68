from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from wholebody.hands import PALM_REGIONS, Arm, Hand, find_hand, is_plausible
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


@dataclass
class Hands:
    """The one network that is asked."""

    palm_detector: Blind = field(default_factory=Blind)


def test_palms_are_looked_for_in_squares_of_three_and_of_two_forearms_around_a_sure_wrist() -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    image[195:205, 155:165] = 255  # 10 px
    networks = Hands()
    assert find_hand(image, arm(), cast("Networks", networks)) is None
    wide = [(square > 127).any(axis=(0, 2)).sum() for square in networks.palm_detector.squares]
    assert wide == pytest.approx([10 / (forearms * 60) * 192 for forearms in PALM_REGIONS], abs=2)
    unsure = Hands()
    assert find_hand(image, arm(score=0.7), cast("Networks", unsure)) is None
    assert not unsure.palm_detector.squares
