"""Faces: where to look for one, what the networks say of it, and whether it is this person's.

The first look is MediaPipe Holistic's: the face detector around the pose's head, then the mesh network. Where
that finds nothing, MediaPipe's other mesh network, the one with attention, looks at the first stage's head
without a detector: it knows faces that are out of focus, small, or behind goggles and masks, and the first
one does not. What it does not know, such as faces near to profile or that look down, is left to the first
one on the same square. The flag decides each time; a look whose flag is not clear is repeated once, as in
tracking, at the square that its own points give.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wholebody import landmarks, rois, ssd
from wholebody.association import confident
from wholebody.networks import Network, Networks
from wholebody.rois import Roi

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

MIN_FLAG = 0.5
"""From which probability on a face counts as there (`face_landmark_cpu.pbtxt`)."""

MIN_DIRECT_FLAG = 0.8
"""The same for a face that no detector has seen."""

MIN_ATTENTION_FLAG = 0.95
"""The same of the network with attention, which is sure of the faces it knows, 0.951 and more of 330, and
says less of most heads that were made unrecognisable. It says so of 14 in 1374 squares without a face too, so
that both are asked about heads only of which the first stage is sure."""

MIN_LONE_FLAG = 0.98
"""The same of both networks where the first stage is sure of only one of nose and eyes: without a face they
had up to 0.971 there (a shadow on a chest, a head in large pixels); the one real face had 1.0."""

WORTH_ANOTHER = 0.1
"""A look with at least this flag is followed by one at the square that its own points give: faces in three
quarter view and with glasses are lost by small errors of the square."""

MAX_FROM_HEAD = 0.35
"""How far nose and eyes of a face may be from the head's, on average, in lengths of the torso."""

ON_NEIGHBOUR = 0.1
"""How near to a neighbour's nose and eyes a face is that neighbour's, where the first stage is sure of none
of the person's own, in lengths of the torso: 0.03-0.04 where the pose has a hidden head on the one before
it."""

MIN_SIZE, MAX_SIZE = 0.12, 0.9
"""Extent of a face in lengths of the torso."""

ANCHORS = ssd.anchors(128, (8, 16, 16, 16))

NOSE_AND_EYES = (1, 263, 33)
"""Tip of the nose, outer corners of the left and the right eye of the mesh: the first of COCO's 17."""


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
    for square, network, least in _looks(image, head, networks):
        face = in_square(image, square, network)
        if face is not None and WORTH_ANOTHER < face.score <= least and is_plausible(face, head):
            face = in_square(image, rois.face_from_landmarks(face.mesh), network)
        if face is not None and face.score > least and is_plausible(face, head):
            return face
    return None


def from_pose(image: Bytes, points: Floats, networks: Networks) -> Face | None:
    """Holistic's look: detector around the pose's points 0-10 (11, 2), then the mesh."""
    square = _detected(image, rois.face_from_pose(points), networks.face_detector)
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
    marks = face.mesh[list(NOSE_AND_EYES), :2]
    own = _apart(marks, head.body[:3])
    nearest = min((_apart(marks, other[:3]) for other in head.others), default=np.inf)
    if not np.isfinite(own):
        if nearest <= ON_NEIGHBOUR * head.unit:
            return False
        known = confident(head.body)
        points = head.body[known, :2] if known.any() else head.pose
        own = 0.0 if points is None else float(np.linalg.norm(points.mean(0) - marks.mean(0)))
    reach = MAX_FROM_HEAD * head.unit
    return own <= reach and (nearest >= own or nearest > reach)


def _apart(marks: Floats, points: Floats) -> float:
    """How far a face's nose and eyes (3, 2) are from the confident ones of a first stage's (3, 3) on average,
    px; infinite without any."""
    sure = confident(points)
    return float(np.linalg.norm(marks - points[:, :2], axis=1)[sure].mean()) if sure.any() else np.inf


def _looks(image: Bytes, head: Head, networks: Networks) -> Iterator[tuple[Roi, Network, float]]:
    """Squares, the mesh network that looks at each, and the flag that is asked of it."""
    if head.pose is not None:
        square = _detected(image, rois.face_from_pose(head.pose), networks.face_detector)
        if square is not None:
            yield square, networks.face, MIN_FLAG
    sure = int(confident(head.body)[:3].sum())
    around = rois.face_from_head(head.body, head.unit) if sure else None
    if around is None:  # without nose and eyes the head is turned away
        return
    square = rois.face_mesh_from_head(head.body, around)
    yield square, networks.attention_face, MIN_ATTENTION_FLAG if sure > 1 else MIN_LONE_FLAG
    yield square, networks.face, MIN_DIRECT_FLAG if sure > 1 else MIN_LONE_FLAG


def _detected(image: Bytes, around: Roi, detector: Network) -> Roi | None:
    if not around.usable:
        return None
    square = rois.cut_out(image, around, detector.size, border=cv2.BORDER_CONSTANT)
    raw, logits = detector(square)
    found = ssd.best_keypoints(raw[0], logits[0, :, 0], ANCHORS, detector.size)
    return None if found is None else rois.face_from_detection(rois.to_image(found, around))
