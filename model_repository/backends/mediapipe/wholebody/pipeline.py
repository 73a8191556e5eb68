"""The chain for one crop: pose, then hands and face from where the pose has them.

Order and gates are those of MediaPipe Holistic for still pictures (`mediapipe/modules/holistic_landmark`,
Apache-2.0), but the pose's square comes from a first stage's body keypoints where those are good enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from wholebody import landmarks, rois, ssd
from wholebody.keypoints import BLAZEPOSE_COUNT
from wholebody.networks import Network, Networks
from wholebody.rois import Roi

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Side = Literal["left", "right"]

MIN_FLAG = 0.5
"""From which probability on a pose, a hand or a face counts as there (all three graphs)."""

MIN_WRIST_VISIBILITY = 0.1
"""Below it no hand is looked for (`hand_landmarks_left_and_right_cpu`)."""

HAND_FROM_POSE: dict[Side, tuple[int, int, int]] = {"left": (15, 17, 19), "right": (16, 18, 20)}
"""BlazePose's wrist, little and index finger."""

HAND_Z_SCALE = 0.4
"""`normalize_z` of the hand graph."""

BOX_MARGIN = 1.25
"""By how much a crop is larger than the person's box (the top-down contract)."""

FACE_ANCHORS = ssd.anchors(128, (8, 16, 16, 16))
POSE_ANCHORS = ssd.anchors(224, (8, 16, 32, 32, 32))


@dataclass(frozen=True, eq=False)
class Subject:
    """One person to look at.

    Attributes:
        picture: (h, w, 3) uint8 RGB, the part of the crop that lies within the original picture.
        origin: (2,) where its top left corner is in the crop, px.
        body: (17, 3) the first stage's keypoints in px of `picture`, with score; may be NaN.
        box_side: longer side of the person's box in px, or less.
    """

    picture: Bytes
    origin: Floats
    body: Floats
    box_side: float


@dataclass(frozen=True, eq=False)
class Pose:
    """BlazePose's 33 points: (33, 2) px of the picture, (33,) visibility, (33, 3) metres, upright."""

    points: Floats
    visibility: Floats
    world: Floats


@dataclass(frozen=True, eq=False)
class Hand:
    """One hand: (21, 2) px of the picture, (21, 3) metres, upright; one score for all of it."""

    points: Floats
    world: Floats
    score: float


@dataclass(frozen=True, eq=False)
class Face:
    """One face: (468, 3) px of the picture, z on the scale of x; one score for all of it."""

    mesh: Floats
    score: float


@dataclass(frozen=True, eq=False)
class Parts:
    """What was found in one crop. A part that is None was not seen."""

    pose: Pose | None = None
    left_hand: Hand | None = None
    right_hand: Hand | None = None
    face: Face | None = None


def subject(crop: Bytes, body: Floats) -> Subject | None:
    """A crop without the black that lies beyond the edge of the original picture; None if all of it is black.

    MediaPipe repeats a picture's edge where a square reaches over it, and its pose network relies on it: of
    people cut off above the hips, world landmarks are 64 mm off in the median with the edge repeated, 107 mm
    with black.

    Args:
        crop: (H, W, 3) uint8 RGB: the person's box × `BOX_MARGIN`, made longer in one direction to fit the
            aspect of the input. So the longer side of the box is at least the crop's shorter one /
            `BOX_MARGIN`.
        body: (17, 3) the first stage's keypoints in px of the crop, with score.
    """
    box_side = min(crop.shape[:2]) / BOX_MARGIN
    flat = crop.reshape(len(crop), -1)  # max() of rows and columns takes 0.05 ms, any() takes 2.5
    rows, columns = np.flatnonzero(flat.max(1)), np.flatnonzero(flat.max(0)) // 3
    if not rows.size:
        return None
    origin = np.array([columns[0], rows[0]], np.float32)
    inside = body.copy()
    inside[:, :2] -= origin
    return Subject(crop[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], origin, inside, box_side)


def find_pose_square(person: Subject, networks: Networks) -> Roi | None:
    """Where the pose network should look: by the body keypoints, else by MediaPipe's own pose detector."""
    square = rois.pose_from_body(person.body, person.box_side)
    return square or detect_pose_square(person.picture, networks.pose_detector)


def detect_pose_square(picture: Bytes, detector: Network) -> Roi | None:
    """The pose detector's square for the most prominent person, None when it sees nobody."""
    whole = _whole(picture)
    square = rois.cut_out(picture, whole, detector.size, border=cv2.BORDER_CONSTANT)
    raw, logits = detector(square)
    found = ssd.best_keypoints(raw[0], logits[0, :, 0], POSE_ANCHORS, detector.size)
    if found is None:
        return None
    centre, edge = rois.to_picture(found, whole)[:2]
    return rois.pose_from_alignment(centre, edge)


def find_pose(picture: Bytes, square: Roi, network: Network) -> Pose | None:
    """The body in a square, None when the network sees no person in it."""
    if not square.usable:
        return None
    raw, flag, heatmap, world = network(rois.cut_out(picture, square, network.size))
    if not flag[0, 0] > MIN_FLAG:
        return None
    found = landmarks.pose(raw[0], heatmap[0], world[0])
    return Pose(
        points=rois.to_picture(found.points[:BLAZEPOSE_COUNT], square),
        visibility=found.visibility[:BLAZEPOSE_COUNT],
        world=rois.turn_upright(found.world[:BLAZEPOSE_COUNT], square),
    )


def find_hand(picture: Bytes, pose: Pose, side: Side, networks: Networks) -> Hand | None:
    """The hand at one wrist of a pose, None when it is hidden or not recognised."""
    wrist, pinky, index = HAND_FROM_POSE[side]
    if not pose.visibility[wrist] > MIN_WRIST_VISIBILITY:
        return None
    around = rois.hand_from_pose(pose.points[wrist], pose.points[pinky], pose.points[index])
    if not (around.usable and _is_within(picture, around)):
        return None
    (alignment,) = networks.hand_recrop(rois.cut_out(picture, around, networks.hand_recrop.size))
    size = np.float32(networks.hand_recrop.size)
    centre, edge = rois.to_picture(alignment.reshape(2, 2) / size, around)
    square = rois.hand_from_recrop(centre, edge)
    if not square.usable:
        return None
    raw, flag, world = networks.hand(rois.cut_out(picture, square, networks.hand.size))
    score = float(flag[0, 0])
    if not score > MIN_FLAG:
        return None
    points = raw.reshape(-1, 3)[:, :2] / np.float32(networks.hand.size)
    return Hand(
        points=rois.to_picture(points, square),
        world=rois.turn_upright(world.reshape(-1, 3), square),
        score=score,
    )


def find_face(picture: Bytes, pose: Pose, networks: Networks) -> Face | None:
    """The face of a pose, None when the detector or the mesh network does not recognise one."""
    around = rois.face_from_pose(pose.points[:11])
    if not around.usable:
        return None
    size = networks.face_detector.size
    raw, logits = networks.face_detector(rois.cut_out(picture, around, size, border=cv2.BORDER_CONSTANT))
    keypoints = ssd.best_keypoints(raw[0], logits[0, :, 0], FACE_ANCHORS, size)
    if keypoints is None:
        return None
    square = rois.face_from_detection(rois.to_picture(keypoints, around))
    if not square.usable:
        return None
    mesh, flag = networks.face(rois.cut_out(picture, square, networks.face.size))
    score = float(landmarks.sigmoid(flag.reshape(1))[0])
    if not score > MIN_FLAG:
        return None
    points = mesh.reshape(-1, 3) / np.float32(networks.face.size)
    return Face(mesh=rois.to_picture(points, square), score=score)


def find_parts(person: Subject, networks: Networks) -> Parts:
    """Everything of one person, one network after the other; `networks` are asked by this thread only."""
    square = find_pose_square(person, networks)
    pose = find_pose(person.picture, square, networks.pose) if square else None
    if pose is None:
        return Parts()
    return Parts(
        pose=pose,
        left_hand=find_hand(person.picture, pose, "left", networks),
        right_hand=find_hand(person.picture, pose, "right", networks),
        face=find_face(person.picture, pose, networks),
    )


def _is_within(picture: Bytes, roi: Roi) -> bool:
    height, width = picture.shape[:2]
    return bool(0 <= roi.x < width and 0 <= roi.y < height)


def _whole(picture: Bytes) -> Roi:
    height, width = picture.shape[:2]
    return Roi(width / 2, height / 2, float(max(width, height)))
