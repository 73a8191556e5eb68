"""Faces: where to look for one, what the networks say of it, and whether it is this person's.

The first look is MediaPipe Holistic's: the near-face detector around the pose's head. Where that finds
nothing, the detectors look around the first stage's head, the near one and then the far one, and last the
mesh network looks at both heads without a detector. The mesh network's flag decides each time; a look whose
flag is not clear is repeated once, as in tracking, at the square that its own points give.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wholebody import landmarks, rois, ssd
from wholebody.association import confident, nearest_is_own
from wholebody.networks import Network, Networks
from wholebody.rois import Roi

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

MIN_FLAG = 0.5
"""From which probability on a face counts as there (`face_landmark_cpu.pbtxt`)."""

MIN_DIRECT_FLAG = 0.8
"""The same for a face that no detector has seen."""

WORTH_ANOTHER = 0.1
"""A look with at least this flag is followed by one at the square that its own points give: faces in three
quarter view and with glasses are lost by small errors of the square."""

POSE_HEAD = 0.85
"""The mesh's square on the pose's head without a detector, in sides of the one on the first stage's: the
eleven points of that head spread wider. It is the one that finds faces that look down."""

MIN_FAR_SCORE = 0.5
"""From which score of the far-face detector on the mesh network is asked; its graph says 0.6."""

MAX_FROM_HEAD = 0.35
"""How far the middle of a face may be from the middle of the head's points, in lengths of the torso."""

MIN_SIZE, MAX_SIZE = 0.12, 0.9
"""Extent of a face in lengths of the torso."""

NEAR_ANCHORS = ssd.anchors(128, (8, 16, 16, 16))
FAR_ANCHORS = ssd.anchors(192, (4,), per_cell=1)

HEAD = (0, 1, 2, 3, 4)
"""Nose, eyes and ears of COCO's 17."""

EYES_AND_NOSE = (1, 33, 263)
"""Nose tip and outer corners of the eyes of the mesh."""


@dataclass(frozen=True, eq=False)
class Face:
    """One face: (468, 3) px of the image, z on the scale of x; one score for all of it."""

    mesh: Floats
    score: float


@dataclass(frozen=True, eq=False)
class Head:
    """What is known of a head before its face is looked for.

    Attributes:
        pose: (11, 2) the pose's points 0-10, px; None without a pose.
        body: (5, 3) the first stage's nose, eyes and ears, px and score.
        unit: the person's length of torso, px.
        others: (M, 17, 3) the neighbours' bodies.
    """

    pose: Floats | None
    body: Floats
    unit: float
    others: Floats


def find_face(image: Bytes, head: Head, networks: Networks) -> Face | None:
    """The face on a head, None when it is turned away, not recognised, or another person's."""
    for square, least in _squares(image, head, networks):
        face = in_square(image, square, networks.face)
        if face is not None and WORTH_ANOTHER < face.score <= least and is_plausible(face, head):
            face = in_square(image, rois.face_from_landmarks(face.mesh), networks.face)
        if face is not None and face.score > least and is_plausible(face, head):
            return face
    return None


def from_pose(image: Bytes, points: Floats, networks: Networks) -> Face | None:
    """Holistic's look: detector around the pose's points 0-10 (11, 2), then the mesh."""
    square = _detected(image, rois.face_from_pose(points), networks.face_detector, NEAR_ANCHORS)
    face = None if square is None else in_square(image, square, networks.face)
    return face if face is not None and face.score > MIN_FLAG else None


def in_square(image: Bytes, square: Roi, network: Network) -> Face | None:
    """What the mesh network says of a square; None only for one that cannot be cut out."""
    if not square.usable:
        return None
    mesh, flag = network(rois.cut_out(image, square, network.size))
    points = mesh.reshape(-1, 3) / np.float32(network.size)
    return Face(rois.to_image(points, square), float(landmarks.sigmoid(flag.reshape(1))[0]))


def is_plausible(face: Face, head: Head) -> bool:
    """Whether a face is of a person's size, on this head and on no other person's."""
    extent = float(np.ptp(face.mesh[:, :2], axis=0).max()) / head.unit
    if not MIN_SIZE <= extent <= MAX_SIZE:
        return False
    middle = face.mesh[list(EYES_AND_NOSE), :2].mean(0)
    own = _own_heads(head)
    if len(own) and np.linalg.norm(own - middle, axis=1).min() > MAX_FROM_HEAD * head.unit:
        return False
    return nearest_is_own(middle, own, head.others, HEAD[:3], reach=MAX_FROM_HEAD * head.unit)


def _own_heads(head: Head) -> Floats:
    """Middles (H, 2) of the head's points: the first stage's, or the pose's where that has none."""
    sure = confident(head.body)
    if sure.any():
        return np.asarray(head.body[sure, :2].mean(0)[None], np.float32)
    return np.zeros((0, 2), np.float32) if head.pose is None else head.pose.mean(0)[None]


def _squares(image: Bytes, head: Head, networks: Networks) -> Iterator[tuple[Roi, float]]:
    """Squares for the mesh network, and the flag that is asked of each."""
    if head.pose is not None:
        square = _detected(image, rois.face_from_pose(head.pose), networks.face_detector, NEAR_ANCHORS)
        if square is not None:
            yield square, MIN_FLAG
    around = rois.face_from_head(head.body, head.unit) if confident(head.body)[:3].any() else None
    if around is None:  # without nose and eyes the head is turned away
        return
    for detector, anchors, least in (
        (networks.face_detector, NEAR_ANCHORS, ssd.MIN_SCORE),
        (networks.far_face_detector, FAR_ANCHORS, MIN_FAR_SCORE),
    ):
        square = _detected(image, around, detector, anchors, least)
        if square is not None:
            yield square, MIN_FLAG
    yield rois.face_mesh_from_head(around), MIN_DIRECT_FLAG
    if head.pose is not None:
        square = rois.face_mesh_from_head(rois.face_from_pose(head.pose))
        yield replace(square, side=POSE_HEAD * square.side), MIN_DIRECT_FLAG


def _detected(
    image: Bytes, around: Roi, detector: Network, anchors: Floats, min_score: float = ssd.MIN_SCORE
) -> Roi | None:
    if not around.usable:
        return None
    square = rois.cut_out(image, around, detector.size, border=cv2.BORDER_CONSTANT)
    raw, logits = detector(square)
    found = ssd.best(raw[0], logits[0, :, 0], anchors, detector.size, min_score=min_score)
    if found is None:
        return None
    return rois.face_from_detection(rois.to_image(found.keypoints, around))
