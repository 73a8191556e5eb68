"""The parts of one person as the native skeleton: 634 points in 2D, and in one 3D frame.

The 3D frame is metres, origin mid-hip, x image right, y down, z away from the camera. Three networks with
three origins and three ideas of scale are put together in it:

    body, feet   the pose's world landmarks as they are
    hands        each hand's own world landmarks, moved so that its wrist is the pose's wrist
    face         the mesh, which is in pixels, scaled to the size of the canonical face model, and moved so
                 that nose tip and ears are the pose's on average

Hands and face are thus rigidly attached: how far in front of the body a hand is comes from the pose alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholebody import keypoints as kp
from wholebody.pipeline import Face, Hand, Parts, Pose

Floats = NDArray[np.float32]

LEFT_HIP, RIGHT_HIP = 23, 24
"""Of BlazePose."""

FACE_SPANS_M = ((33, 263, 0.0889172), (234, 454, 0.1532836), (10, 152, 0.1766646))
"""Mesh points and how far they are apart in MediaPipe's canonical face model, in metres: outer corners of the
eyes, sides, top to chin (`face_geometry/data/canonical_face_model.obj`, Apache-2.0, in cm)."""

FACE_ANCHORS_MESH = [1, 234, 454]
FACE_ANCHORS_POSE = [0, 8, 7]
"""Nose tip, right and left ear, of the mesh and of BlazePose."""


@dataclass(frozen=True, eq=False)
class Person:
    """One person: (634, 2) px of the crop, (634,) scores, (634, 3) metres; NaN and score 0 where unseen."""

    keypoints: Floats
    scores: Floats
    positions: Floats


def assemble(body: Floats, parts: Parts, origin: Floats) -> Person:
    """Put a person together.

    Args:
        body: (17, 3) the first stage's keypoints in px of the crop with score. In 2D they are the answer's
            first 17, unchanged: they are better than the pose network's own.
        parts: what the networks found, in px of the picture.
        origin: (2,) of that picture in the crop.

    Returns:
        Scores are the first stage's for the body; the pose network's visibility for feet and `blazepose_*`;
        for each hand and for the face one number for all of its points.
    """
    points = np.full((kp.KEYPOINT_COUNT, 2), np.nan, np.float32)
    scores = np.zeros(kp.KEYPOINT_COUNT, np.float32)
    positions = np.full((kp.KEYPOINT_COUNT, 3), np.nan, np.float32)
    if parts.pose is not None:
        _put_pose(parts.pose, points, scores, positions)
        world = positions[kp.BLAZEPOSE_START : kp.FACE_MESH_START]
        for hand, start, wrist in (
            (parts.left_hand, kp.LEFT_HAND_START, kp.LEFT_WRIST),
            (parts.right_hand, kp.RIGHT_HAND_START, kp.RIGHT_WRIST),
        ):
            if hand is not None:
                rows = slice(start, start + kp.HAND_COUNT)
                points[rows], scores[rows], positions[rows] = (
                    hand.points,
                    hand.score,
                    attach_hand(hand, world[wrist]),
                )
        if parts.face is not None:
            _put_face(parts.face, world, points, scores, positions)
    points += origin
    points[: kp.BODY_COUNT] = body[:, :2]
    scores[: kp.BODY_COUNT] = body[:, 2]
    return Person(points, scores, positions)


def attach_hand(hand: Hand, wrist: Floats) -> Floats:
    """The hand's positions (21, 3) with its wrist where the pose's is."""
    return np.asarray(hand.world + (wrist - hand.world[0]), np.float32)


def attach_face(face: Face, world: Floats) -> Floats:
    """The mesh's positions (468, 3), in metres and where the pose's head is.

    Args:
        face: its mesh in px.
        world: (33, 3) BlazePose positions.
    """
    scale = np.mean(
        [metres / max(_distance(face.mesh[a], face.mesh[b]), 1e-6) for a, b, metres in FACE_SPANS_M]
    )
    metric = face.mesh * np.float32(scale)
    move = world[FACE_ANCHORS_POSE].mean(0) - metric[FACE_ANCHORS_MESH].mean(0)
    return np.asarray(metric + move, np.float32)


def _put_pose(pose: Pose, points: Floats, scores: Floats, positions: Floats) -> None:
    world = pose.world - (pose.world[LEFT_HIP] + pose.world[RIGHT_HIP]) / 2
    feet, feet_source = list(kp.FEET_FROM_BLAZEPOSE), list(kp.FEET_FROM_BLAZEPOSE.values())
    rows = slice(kp.BLAZEPOSE_START, kp.FACE_MESH_START)
    points[rows], scores[rows], positions[rows] = pose.points, pose.visibility, world
    points[feet], scores[feet], positions[feet] = (
        pose.points[feet_source],
        pose.visibility[feet_source],
        world[feet_source],
    )
    positions[: kp.BODY_COUNT] = world[kp.BODY_FROM_BLAZEPOSE]


def _put_face(face: Face, world: Floats, points: Floats, scores: Floats, positions: Floats) -> None:
    metric = attach_face(face, world)
    mesh_rows = slice(kp.FACE_MESH_START, kp.KEYPOINT_COUNT)
    rows = slice(kp.FACE_START, kp.LEFT_HAND_START)
    points[mesh_rows], scores[mesh_rows], positions[mesh_rows] = face.mesh[:, :2], face.score, metric
    points[rows], scores[rows], positions[rows] = kp.face_68(face.mesh[:, :2]), face.score, kp.face_68(metric)


def _distance(a: Floats, b: Floats) -> float:
    return float(np.linalg.norm(a - b))
