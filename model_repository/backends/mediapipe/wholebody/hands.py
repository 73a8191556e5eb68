"""Hands: where to look for one, what the networks say of it, and whether it is this person's.

The first look is MediaPipe Holistic's: from the pose's wrist and fingers, through the re-crop network; with
a low flag it is repeated once, as in tracking, at the square that its own points give. Where that finds
nothing the palm detector looks around each wrist that either body has, two forearms wide, unless the arm is
too small for it. The hand network's flag decides each time; two looks at different squares that are unsure
but have the same points decide together, where no neighbour is near. The hand has to be at this arm and at no
neighbour's arm or foot.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wholebody import rois, ssd
from wholebody.association import nearest_is_own
from wholebody.networks import Network, Networks
from wholebody.rois import Roi

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

MIN_FLAG = 0.5
"""From which probability on a hand counts as there (`hand_landmark_cpu.pbtxt`)."""

WORTH_ANOTHER = 0.05
"""A first look with at least this flag is followed by one at the square that its own points give: 10 of 38
such looks found a hand."""

PALM_WORTH_ANOTHER = 0.3
"""The same at a palm. The flag of that look decides nothing alone: an elbow had 0.87 and a foot 0.64; only
whether the points stay where they are."""

MIN_SECOND_FLAG = 0.6
"""The flag that is asked of a palm's hand: feet and folds of clothes have palms too."""

SURELY_NONE, NONE_AGAIN = 0.0005, 0.1
"""Flags of the first look, and of the repeated one, below which no palms are looked for: 21 and 7 such looks
went on to no hand; the lowest flag of a hand that was found by its palm was 0.0007."""

UNSURE_FLAGS, AGREED = (0.2, 0.3), 0.08
"""Two looks that are not sure of a hand, but at least as sure as this, are one together if their points are
no farther apart, in extents of the hand and in the median. It keeps the flag of the surer one."""

MIN_PALM = 0.3
"""From which score on a palm is looked at by a hand network, whose flag then decides."""

PALM_REGION = 2.0
"""Side of the palm detector's square, in forearms."""

MIN_FOREARM = 48.0
"""Length of a forearm, px, from which on palms are looked for: the shortest of 48 that had one was 56 px, and
none of 28 below 48 px had."""

PALM_REACH = 0.6
"""How far from the wrist a palm may be found, in forearms."""

MIN_WRIST = 0.75
"""From which score of a wrist on palms are looked for: 5 hands in 50 looks; none in 67 below."""

MIN_SIZE, MAX_SIZE = 0.08, 0.8
"""Extent of a hand in lengths of the torso: clenched; stretched near the camera. Where a forearm is longer
than what passes for the torso, in close-ups without hips, the upper limit is in forearms."""

MAX_FROM_WRIST = 0.45
"""How far a hand's root may be from the wrist of either body, in lengths of the torso."""

MIN_INSIDE = 0.6
"""Share of a hand's points that must be inside the image."""

BY_NEIGHBOUR = 0.5
"""How near on a neighbour's wrist or ankle a hand is that neighbour's, in lengths of the torso."""

WRISTS_AND_ANKLES = (9, 10, 15, 16)
"""Of COCO's 17. The networks take a bare foot for a hand."""

PALM_ANCHORS = ssd.anchors(192, (8, 16, 16, 16))


@dataclass(frozen=True, eq=False)
class Hand:
    """One hand: (21, 2) px of the image, (21, 3) metres, upright; one score for all of it."""

    points: Floats
    world: Floats
    score: float


@dataclass(frozen=True, eq=False)
class Arm:
    """What is known of one arm before its hand is looked for.

    Attributes:
        elbows: (E, 2) px, one for each estimate of the arm, the better first.
        wrists: (E, 2) px.
        scores: (E,) of the wrists.
        fingers: pose's wrist, little and index finger (3, 2) px; None without a pose, or where it does not
            see the wrist.
        unit: the person's length of torso, px.
        others: (M, 17, 3) the neighbours' bodies.
    """

    elbows: Floats
    wrists: Floats
    scores: Floats
    fingers: Floats | None
    unit: float
    others: Floats


def find_hand(image: Bytes, arm: Arm, networks: Networks) -> Hand | None:
    """The hand at the end of an arm, None when it is hidden, not recognised, or another person's."""
    unsure: list[Hand] = []
    for hand, least in _looks(image, arm, networks):
        if not is_plausible(hand, arm, image.shape[:2]):
            continue
        if hand.score > least:
            return hand
        if not _is_apart(hand, arm):
            continue
        for other in unsure:
            if agree(hand, other):
                return max(hand, other, key=lambda one: one.score)
        unsure.append(hand)
    return None


def _is_apart(hand: Hand, arm: Arm) -> bool:
    """Whether no neighbour's wrist or ankle is near: an unsure look may have found that one."""
    nowhere = np.empty((0, 2), np.float32)
    return nearest_is_own(
        hand.points[0], nowhere, arm.others, WRISTS_AND_ANKLES, reach=BY_NEIGHBOUR * arm.unit
    )


def agree(hand: Hand, other: Hand) -> bool:
    """Whether two looks that are unsure have found the same hand."""
    if not all(
        flag >= least for flag, least in zip(sorted((hand.score, other.score)), UNSURE_FLAGS, strict=True)
    ):
        return False
    extent = max(float(np.ptp(one.points, axis=0).max()) for one in (hand, other))
    return float(np.median(np.linalg.norm(hand.points - other.points, axis=1))) <= AGREED * extent


def from_fingers(image: Bytes, fingers: Floats, networks: Networks) -> Hand | None:
    """Holistic's look: re-crop, then landmarks. It counts as a hand above `MIN_FLAG`.

    Args:
        image: (H, W, 3).
        fingers: (3, 2) the pose's wrist, little and index finger, px.
        networks: to be asked.
    """
    around = rois.hand_from_pose(*fingers)
    if not (around.usable and _is_within(image, around)):
        return None
    (alignment,) = networks.hand_recrop(rois.cut_out(image, around, networks.hand_recrop.size))
    size = np.float32(networks.hand_recrop.size)
    centre, edge = rois.to_image(alignment.reshape(2, 2) / size, around)
    return in_square(image, rois.hand_from_recrop(centre, edge), networks.hand)


def in_square(image: Bytes, square: Roi, network: Network) -> Hand | None:
    """What a hand network says of a square; None only for one that cannot be cut out."""
    if not square.usable:
        return None
    raw, flag, world = network(rois.cut_out(image, square, network.size))
    return Hand(
        points=rois.to_image(raw.reshape(-1, 3)[:, :2] / np.float32(network.size), square),
        world=rois.turn_upright(world.reshape(-1, 3), square),
        score=float(flag[0, 0]),
    )


def is_plausible(hand: Hand, arm: Arm, shape_hw: tuple[int, ...]) -> bool:
    """Whether a hand is of a person's size, inside the image, at this arm and at no other person's."""
    extent = float(np.ptp(hand.points, axis=0).max())
    forearm = float(np.linalg.norm(arm.wrists - arm.elbows, axis=1).max())
    if not MIN_SIZE * arm.unit <= extent <= MAX_SIZE * max(arm.unit, forearm):
        return False
    height, width = shape_hw[:2]
    inside = ((hand.points >= 0) & (hand.points < (width, height))).all(1)
    if inside.mean() < MIN_INSIDE:
        return False
    root = hand.points[0]
    if np.linalg.norm(arm.wrists - root, axis=1).min() > MAX_FROM_WRIST * arm.unit:
        return False
    reach = BY_NEIGHBOUR * arm.unit
    return nearest_is_own(root, arm.wrists, arm.others, WRISTS_AND_ANKLES, reach=reach)


def _looks(image: Bytes, arm: Arm, networks: Networks) -> Iterator[tuple[Hand, float]]:
    """What each look finds, and the flag that is asked of it."""
    height, width = image.shape[:2]
    if arm.fingers is not None:
        hand = from_fingers(image, arm.fingers, networks)
        if hand is not None:
            yield hand, MIN_FLAG
            least = SURELY_NONE
            if hand.score > WORTH_ANOTHER and is_plausible(hand, arm, (height, width)):
                hand = in_square(image, rois.hand_from_landmarks(hand.points), networks.hand)
                least = NONE_AGAIN
                if hand is not None:
                    yield hand, MIN_FLAG
            if hand is not None and hand.score < least:
                return
    for elbow, wrist, score in zip(arm.elbows, arm.wrists, arm.scores, strict=True):
        if score < MIN_WRIST or not (0 <= wrist[0] < width and 0 <= wrist[1] < height):
            continue
        palm = _palm(image, elbow, wrist, arm.unit, networks.palm_detector)
        hand = None if palm is None else in_square(image, palm, networks.hand)
        if hand is not None:
            yield hand, MIN_SECOND_FLAG
            if hand.score > PALM_WORTH_ANOTHER and is_plausible(hand, arm, (height, width)):
                hand = in_square(image, rois.hand_from_landmarks(hand.points), networks.hand)
                if hand is not None:
                    yield hand, math.inf


def _palm(image: Bytes, elbow: Floats, wrist: Floats, unit: float, detector: Network) -> Roi | None:
    around = rois.palms_around(elbow, wrist, unit, PALM_REGION)
    if not around.usable or around.side < PALM_REGION * MIN_FOREARM:
        return None
    square = rois.cut_out(image, around, detector.size, border=cv2.BORDER_CONSTANT)
    raw, logits = detector(square)
    expected = (wrist - (around.x, around.y)) / around.side + 0.5
    found = ssd.best(
        raw[0],
        logits[0, :, 0],
        PALM_ANCHORS,
        detector.size,
        min_score=MIN_PALM,
        near=(np.asarray(expected, np.float32), PALM_REACH / PALM_REGION),
    )
    if found is None:
        return None
    (centre,) = rois.to_image(found.box[None, :2], around)
    box = np.array([*centre, *(found.box[2:] * around.side)], np.float32)
    return rois.hand_from_palm(box, rois.to_image(found.keypoints, around))


def _is_within(image: Bytes, roi: Roi) -> bool:
    height, width = image.shape[:2]
    return bool(0 <= roi.x < width and 0 <= roi.y < height)
