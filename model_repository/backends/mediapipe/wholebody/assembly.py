"""The parts of one person as the native skeleton: 634 points in 2D, and in one 3D frame.

The 3D frame is metres, origin mid-hip, x image right, y down, z away from the camera. Three networks with
three origins and three ideas of scale are put together in it:

    body, feet   the fused body's positions (`fusion`), the rest of the pose as it is
    hands        each hand's own world landmarks, moved so that its wrist is the body's wrist
    face         the mesh, which is in pixels, scaled to the size of the canonical face model, and moved so
                 that nose tip and ears are the body's on average

Hands and face are thus rigidly attached: how far in front of the body a hand is comes from the pose alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholebody import keypoints as kp
from wholebody.faces import Face
from wholebody.fusion import Body
from wholebody.hands import Hand
from wholebody.pipeline import Parts, Pose

Floats = NDArray[np.float32]

LEFT_HIP, RIGHT_HIP = 11, 12
LEFT_WRIST, RIGHT_WRIST = 9, 10
"""Of COCO's 17."""

FEET = ((13, 15, (17, 19), (31, 29)), (14, 16, (20, 22), (32, 30)))
"""Of each side: knee and ankle of COCO's 17, big toe and heel of COCO-WholeBody, and of BlazePose."""

MAX_FOOT = 0.8
"""How far a heel or a toe may be from its ankle, in lengths of the shank; beyond it hangs on another leg."""

FACE_SPANS_M = ((33, 263, 0.0889172), (234, 454, 0.1532836), (10, 152, 0.1766646))
"""Mesh points and how far they are apart in MediaPipe's canonical face model, in metres: outer corners of the
eyes, sides, top to chin (`face_geometry/data/canonical_face_model.obj`, Apache-2.0, in cm)."""

FACE_ANCHORS_MESH = [1, 234, 454]
FACE_ANCHORS_BODY = [0, 4, 3]
"""Nose tip, right and left ear, of the mesh and of COCO's 17."""


@dataclass(frozen=True, eq=False)
class Person:
    """One person: (634, 2) px of the image, (634,) scores, (634, 3) metres; NaN and 0 where unseen."""

    keypoints: Floats
    scores: Floats
    positions: Floats


def assemble(parts: Parts) -> Person:
    """Put a person together.

    Returns:
        Scores are the fused body's for COCO's 17, and for the same points of `blazepose_*`; the pose
        network's visibility for feet and the rest of `blazepose_*`; for each hand and for the face one
        number for all of its points, since the networks give no more.
    """
    points = np.full((kp.KEYPOINT_COUNT, 2), np.nan, np.float32)
    scores = np.zeros(kp.KEYPOINT_COUNT, np.float32)
    positions = np.full((kp.KEYPOINT_COUNT, 3), np.nan, np.float32)
    body = parts.body
    shift = np.zeros(3, np.float32)
    if parts.pose is not None:
        shift = -(body.world[LEFT_HIP] + body.world[RIGHT_HIP]) / 2
        _put_pose(parts.pose, body, shift, points, scores, positions)
    points[: kp.BODY_COUNT], scores[: kp.BODY_COUNT] = body.points, body.scores
    world = body.world + shift
    positions[: kp.BODY_COUNT] = world
    for hand, start, wrist in (
        (parts.left_hand, kp.LEFT_HAND_START, LEFT_WRIST),
        (parts.right_hand, kp.RIGHT_HAND_START, RIGHT_WRIST),
    ):
        if hand is not None:
            rows = slice(start, start + kp.HAND_COUNT)
            points[rows], scores[rows] = hand.points, hand.score
            positions[rows] = attach_hand(hand, world[wrist])
    if parts.face is not None:
        _put_face(parts.face, world, points, scores, positions)
    return Person(points, scores, positions)


def attach_hand(hand: Hand, wrist: Floats) -> Floats:
    """The hand's positions (21, 3) with its wrist where the body's (3,) is; NaN where that has none."""
    return np.asarray(hand.world + (wrist - hand.world[0]), np.float32)


def attach_face(face: Face, world: Floats) -> Floats:
    """The mesh's positions (468, 3), in metres and where the body's head is; NaN where that has none.

    Args:
        face: its mesh in px.
        world: (17, 3) the body's positions.
    """
    scale = np.mean(
        [metres / max(_distance(face.mesh[a], face.mesh[b]), 1e-6) for a, b, metres in FACE_SPANS_M]
    )
    metric = face.mesh * np.float32(scale)
    move = world[FACE_ANCHORS_BODY].mean(0) - metric[FACE_ANCHORS_MESH].mean(0)
    return np.asarray(metric + move, np.float32)


def _put_pose(
    pose: Pose, body: Body, shift: Floats, points: Floats, scores: Floats, positions: Floats
) -> None:
    """BlazePose's 33, of which the 17 that COCO has too are the fused body's, and the feet."""
    first = kp.BLAZEPOSE_START
    rows = slice(first, kp.FACE_MESH_START)
    points[rows], scores[rows], positions[rows] = pose.points, pose.visibility, pose.world + shift
    shared = first + kp.BODY_FROM_BLAZEPOSE
    points[shared], scores[shared], positions[shared] = body.points, body.scores, body.world + shift
    for knee, ankle, feet, sources in FEET:
        shank = np.linalg.norm(body.points[knee] - body.points[ankle])
        # In 3D a foot keeps its place at the ankle, wherever that was moved.
        carry = body.world[ankle] - pose.world[kp.BODY_FROM_BLAZEPOSE[ankle]]
        for foot, source in zip(feet, sources, strict=True):
            if not np.linalg.norm(pose.points[source] - body.points[ankle]) <= MAX_FOOT * shank:
                points[first + source], positions[first + source] = np.nan, np.nan
                scores[first + source] = 0
                continue
            positions[first + source] += carry
            points[foot], scores[foot] = pose.points[source], pose.visibility[source]
            positions[foot] = positions[first + source]


def _put_face(face: Face, world: Floats, points: Floats, scores: Floats, positions: Floats) -> None:
    metric = attach_face(face, world)
    mesh_rows = slice(kp.FACE_MESH_START, kp.KEYPOINT_COUNT)
    rows = slice(kp.FACE_START, kp.LEFT_HAND_START)
    points[mesh_rows], scores[mesh_rows], positions[mesh_rows] = face.mesh[:, :2], face.score, metric
    points[rows], scores[rows], positions[rows] = kp.face_68(face.mesh[:, :2]), face.score, kp.face_68(metric)


def _distance(a: Floats, b: Floats) -> float:
    return float(np.linalg.norm(a - b))
