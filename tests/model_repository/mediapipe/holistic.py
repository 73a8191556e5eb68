"""What MediaPipe's own Holistic says of the pictures, and how to hold this backend against it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wholebody.estimator import Scene
from wholebody.rois import Roi

Floats = NDArray[np.float32]
Rgb8 = NDArray[np.uint8]

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "tests" / "data"
WEIGHTS = ROOT / ".posegate" / "weights" / "mediapipe"
PICTURES = ("single_person.jpg", "two_people.jpg", "astronaut.png")


@dataclass(frozen=True, eq=False)
class Holistic:
    """One picture's answer: (K, 2) px, (K, 3) metres; None where it saw nothing."""

    pose: Floats
    pose_world: Floats
    visibility: Floats
    left_hand: Floats | None
    right_hand: Floats | None
    face: Floats | None


def picture(name: str) -> Rgb8:
    """A test picture, RGB."""
    read = cv2.imread(str(DATA / name), cv2.IMREAD_COLOR)
    assert read is not None
    return np.ascontiguousarray(read[..., ::-1], np.uint8)


def reference(name: str, *, call: str) -> Holistic:
    """Holistic's answer.

    Args:
        name: of the picture.
        call: "first" of a new object; or "later", when hands and face were looked for where the calls before
            had seen them, which Holistic does in static_image_mode too.
    """
    file = {"first": "mediapipe_holistic_first_call.json", "later": "mediapipe_holistic_reference.json"}[call]
    data = json.loads((DATA / file).read_text(encoding="utf-8"))["images"][name]
    height, width = picture(name).shape[:2]

    def in_px(rows: list[list[float]] | None) -> Floats | None:
        return (
            None
            if rows is None
            else np.array(rows, np.float32)[:, :2] * np.array([width, height], np.float32)
        )

    pose = in_px(data["pose"])
    assert pose is not None
    return Holistic(
        pose=pose,
        pose_world=np.array(data["pose_world"], np.float32)[:, :3],
        visibility=np.array(data["pose"], np.float32)[:, 3],
        left_hand=in_px(data["left_hand"]),
        right_hand=in_px(data["right_hand"]),
        face=in_px(data["face"]),
    )


def first_stage(name: str) -> tuple[Floats, Floats]:
    """Boxes (N, 4) and keypoints (N, 17, 3) of YOLO11n-pose on a picture, px."""
    data = json.loads((DATA / "yolo11n_pose_reference.json").read_text(encoding="utf-8"))
    square = data["images"][name]["square"]
    return np.array(square["boxes_xyxy"], np.float32), np.array(square["keypoints_xys"], np.float32)


def scene_of(name: str, *people: int) -> Scene:
    """A picture with all of its people; or with those of these numbers asked about, and the others known."""
    boxes, keypoints = first_stage(name)
    asked = list(people or range(len(boxes)))
    rest = [i for i in range(len(boxes)) if i not in asked]
    return Scene(picture(name), boxes[asked], keypoints[asked + rest])


def distances(found: Floats, expected: Floats) -> Floats:
    """How far apart points are, row by row."""
    return np.asarray(np.linalg.norm(found - expected, axis=1), np.float32)


def face_square(mesh: Floats) -> Roi:
    """The square that Holistic keeps on a face it has seen (`face_landmarks_to_roi.pbtxt`): scale 1.5."""
    eyes = mesh[263] - mesh[33]
    rotation = -math.atan2(-eyes[1], eyes[0])
    # The face's box is upright in the picture, only the square is turned.
    low, high = mesh.min(0), mesh.max(0)
    x, y = (low + high) / 2
    return Roi(float(x), float(y), 1.5 * float((high - low).max()), rotation)
