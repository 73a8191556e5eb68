from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from wholebody import rois
from wholebody.faces import ANCHORS, Face, Head, find_face, is_plausible
from wholebody.networks import Networks

IMAGE = np.zeros((400, 400, 3), np.uint8)
HEAD = np.array(
    [[200, 200, 0.9], [215, 190, 0.9], [185, 190, 0.9], [230, 195, 0.9], [170, 195, 0.9]], np.float32
)
SURE, LIKELY, RATHER, UNCLEAR, NOT = 6.0, 3.5, 2.0, -1.0, -6.0
"""Logits of flags: 0.998, 0.971, 0.88, 0.27, 0.002."""


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
class Detector:
    """A detector that sees a face in the middle of its square."""

    size: int = 128

    def __call__(self, square: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        raw, logits = Blind()(square)
        number = int(np.linalg.norm(ANCHORS - 0.5, axis=1).argmin())
        raw[0, number, 2:] = 20
        raw[0, number, 4:8] = -20, -10, 20, -10  # the eyes
        logits[0, number] = 5
        return [raw, logits]


@dataclass
class Faces:
    """The networks that a face needs."""

    face: Mesh
    attention_face: Mesh
    face_detector: Blind | Detector = field(default_factory=Blind)


def head(pose: bool = True, score: float = 0.9) -> Head:
    points = np.repeat(HEAD[:1, :2], 11, axis=0) + np.random.default_rng(1).uniform(-20, 20, (11, 2))
    body = HEAD.copy()
    body[:, 2] = score
    return Head(points.astype(np.float32) if pose else None, body, 120.0, np.zeros((0, 17, 3), np.float32))


@pytest.mark.parametrize(
    ("attention", "first", "found"),
    [
        ([LIKELY], [], True),
        ([UNCLEAR, LIKELY], [], True),  # again at its own points
        ([UNCLEAR, UNCLEAR], [RATHER], True),
        ([RATHER, LIKELY], [], True),
        ([RATHER, RATHER], [NOT], False),  # faces in large pixels
        ([NOT], [LIKELY], True),
        ([NOT], [UNCLEAR, LIKELY], True),
        ([UNCLEAR, UNCLEAR], [UNCLEAR, UNCLEAR], False),
        ([NOT], [NOT], False),
    ],
)
def test_a_head_on_which_no_detector_sees_a_face_is_looked_at_by_both_networks(
    attention: list[float], first: list[float], found: bool
) -> None:
    """Each of them looks again, once, where its flag is not clear; nothing is asked after a face is found."""
    networks = Faces(Mesh(first), Mesh(attention))
    for pose in (True, False):
        networks.face.squares.clear()
        networks.attention_face.squares.clear()
        assert (find_face(IMAGE, head(pose), cast("Networks", networks)) is not None) is found
        assert (len(networks.attention_face.squares), len(networks.face.squares)) == (
            len(attention),
            len(first),
        )


def test_what_a_detector_sees_is_looked_at_first() -> None:
    networks = Faces(Mesh([LIKELY]), Mesh([LIKELY]), Detector())
    assert find_face(IMAGE, head(), cast("Networks", networks)) is not None
    assert (len(networks.face.squares), len(networks.attention_face.squares)) == (1, 0)
    refused = Faces(Mesh([NOT]), Mesh([LIKELY]), Detector())
    assert find_face(IMAGE, head(), cast("Networks", refused)) is not None
    assert (len(refused.face.squares), len(refused.attention_face.squares)) == (1, 1)


@pytest.mark.parametrize(
    ("scores", "attention", "first", "found"),
    [
        ((0.9, 0.3, 0.4), LIKELY, NOT, False),  # skin with shadows, a head in large pixels
        ((0.9, 0.3, 0.4), NOT, LIKELY, False),
        ((0.9, 0.3, 0.4), SURE, NOT, True),
        ((0.9, 0.3, 0.4), NOT, SURE, True),
        ((0.3, 0.9, 0.9), LIKELY, NOT, True),
        ((0.3, 0.9, 0.9), NOT, LIKELY, True),
    ],
)
def test_a_head_of_a_lone_nose_or_eye_has_to_be_a_face_more_surely(
    scores: tuple[float, ...], attention: float, first: float, found: bool
) -> None:
    networks = Faces(Mesh([first]), Mesh([attention]))
    lone = head()
    lone.body[:3, 2] = scores
    assert (find_face(IMAGE, lone, cast("Networks", networks)) is not None) is found


def test_a_head_without_nose_and_eyes_is_turned_away() -> None:
    networks = Faces(Mesh([LIKELY]), Mesh([LIKELY]))
    assert find_face(IMAGE, head(score=0.4), cast("Networks", networks)) is None
    assert not networks.face.squares
    assert not networks.attention_face.squares


def test_the_square_on_a_head_has_the_eyes_level() -> None:
    around = rois.face_from_head(HEAD, 120.0)
    assert around is not None
    level = rois.face_mesh_from_head(HEAD, around)
    assert (level.x, level.side, level.rotation) == pytest.approx((200, 96, 0))
    assert 200 < level.y < 215  # below the eyes: the chin is in it
    tilted = HEAD.copy()
    tilted[1, :2], tilted[2, :2] = (210, 180), (190, 200)
    square = rois.face_mesh_from_head(tilted, around)
    assert square.rotation == pytest.approx(-np.pi / 4)
    assert square.x > level.x  # the chin is to the right
    tilted[2, 2] = 0.1
    assert rois.face_mesh_from_head(tilted, around).rotation == 0


def test_a_person_that_is_found_twice_keeps_the_face_once() -> None:
    """In three-quarter view the middle of a face is nearer to the other body's nose than to the middle of
    the own head."""
    turned = HEAD.copy()
    turned[:4, 0] = 182, 195, 178, 240
    turned[4, 2] = 0.1
    mesh = np.zeros((468, 3), np.float32)
    mesh[:, :2] = turned[0, :2] + np.random.default_rng(0).uniform(-30, 30, (468, 2))
    mesh[[1, 33, 263], :2] = turned[:3, :2]
    bodies = np.zeros((2, 17, 3), np.float32)
    bodies[:, :5] = turned
    bodies[1, :5, 0] += 2
    its = [
        is_plausible(Face(mesh, 0.9), Head(None, own[:5], 120.0, other[None]))
        for own, other in (bodies, bodies[::-1])
    ]
    assert its == [True, False]


@pytest.mark.parametrize(
    ("own", "neighbours", "away", "whose"),
    [
        (0.3, 0.9, 11, False),  # the pose has the hidden head on the one before it
        (0.3, 0.9, 25, True),
        (0.3, 0.3, 11, True),  # nobody's for sure
        (0.9, 0.9, 11, True),  # two heads that are sure: the nearer
    ],
)
def test_a_face_on_a_neighbours_sure_head_is_not_that_of_an_unsure_one(
    own: float, neighbours: float, away: float, whose: bool
) -> None:
    mesh = np.zeros((468, 3), np.float32)
    mesh[:, :2] = HEAD[0, :2] + np.random.default_rng(0).uniform(-30, 30, (468, 2))
    mesh[[1, 263, 33], :2] = HEAD[:3, :2]
    person = head(score=own)
    others = np.zeros((1, 17, 3), np.float32)
    others[0, :5] = HEAD
    others[0, :5, 0] += away
    others[0, :5, 2] = neighbours
    assert is_plausible(Face(mesh, 0.99), Head(person.pose, person.body, person.unit, others)) is whose


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
