from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from wholebody import rois
from wholebody.faces import Head, find_face
from wholebody.networks import Networks

IMAGE = np.zeros((400, 400, 3), np.uint8)
HEAD = np.array(
    [[200, 200, 0.9], [215, 190, 0.9], [185, 190, 0.9], [230, 195, 0.9], [170, 195, 0.9]], np.float32
)
LIKELY, UNCLEAR, NOT = 3.0, -1.0, -6.0
"""Logits of flags: 0.95, 0.27, 0.002."""


@dataclass
class Mesh:
    """A mesh network that answers with these flags in turn: a face that fills half of each square."""

    flags: list[float]
    size: int = 192
    squares: list[NDArray[np.uint8]] = field(default_factory=list)

    def __call__(self, square: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        self.squares.append(square)
        points = np.zeros((468, 3), np.float32)
        points[:, :2] = np.random.default_rng(0).uniform(48, 144, (468, 2))
        points[[1, 33, 263], :2] = (96, 96), (70, 80), (122, 80)
        flag = self.flags[min(len(self.squares), len(self.flags)) - 1]
        return [points, np.array([flag], np.float32)]


@dataclass
class Blind:
    """A detector that finds nothing."""

    size: int = 128
    anchors: int = 896

    def __call__(self, square: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [np.zeros((1, self.anchors, 16), np.float32), np.full((1, self.anchors, 1), -20, np.float32)]


@dataclass
class Faces:
    """The networks that a face needs."""

    face: Mesh
    face_detector: Blind = field(default_factory=Blind)
    far_face_detector: Blind = field(default_factory=lambda: Blind(192, 2304))


def head(pose: bool = True) -> Head:
    points = np.repeat(HEAD[:1, :2], 11, axis=0) + np.random.default_rng(1).uniform(-20, 20, (11, 2))
    return Head(points.astype(np.float32) if pose else None, HEAD, 120.0, np.zeros((0, 17, 3), np.float32))


@pytest.mark.parametrize(
    ("flags", "looks", "found"),
    [
        ([LIKELY], 1, True),
        ([UNCLEAR, LIKELY], 2, True),  # again at its own points
        ([NOT, LIKELY], 2, True),  # at the pose's head
        ([NOT, UNCLEAR, LIKELY], 3, True),
        ([UNCLEAR, UNCLEAR, UNCLEAR, UNCLEAR], 4, False),
        ([NOT], 2, False),
    ],
)
def test_a_look_whose_flag_is_not_clear_is_repeated_once(flags: list[float], looks: int, found: bool) -> None:
    networks = Faces(Mesh(flags))
    face = find_face(IMAGE, head(), cast("Networks", networks))
    assert (face is not None) is found
    assert len(networks.face.squares) == looks


def test_a_head_without_a_pose_is_looked_at_once() -> None:
    networks = Faces(Mesh([NOT]))
    assert find_face(IMAGE, head(pose=False), cast("Networks", networks)) is None
    assert len(networks.face.squares) == 1


def test_the_square_of_a_face_is_turned_with_it() -> None:
    mesh = np.zeros((468, 2), np.float32)
    angles = np.linspace(0, 2 * np.pi, 468)
    mesh[:] = np.stack([40 * np.cos(angles), 60 * np.sin(angles)], axis=1)
    mesh[33], mesh[263] = (-20, -10), (20, -10)
    upright = rois.face_from_landmarks(mesh + np.float32(200))
    assert (upright.x, upright.y, upright.side) == pytest.approx((200, 200, 180), abs=1)
    assert upright.rotation == pytest.approx(0)
    turn = np.array([[0, 1], [-1, 0]], np.float32)  # a quarter clockwise on the screen
    turned = rois.face_from_landmarks(mesh @ turn + np.float32(200))
    assert (turned.x, turned.y, turned.side) == pytest.approx((200, 200, 180), abs=1)
    assert turned.rotation == pytest.approx(np.pi / 2)
