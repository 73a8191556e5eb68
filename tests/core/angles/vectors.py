"""Four people with known angles, coordinates to 0.1 px; and what must be measured of them."""

from __future__ import annotations

import numpy as np

from service.core.poses import Floats
from tests.core.angles.figures import COCO_NAMES

_SHORT = {"S": "shoulder", "E": "elbow", "W": "wrist", "H": "hip", "K": "knee", "A": "ankle"}
_SIDES = {"L": "left", "R": "right"}


def _person(text: str) -> Floats:
    keypoints = np.zeros((17, 3), np.float32)
    for entry in text.split(";"):
        name, at = entry.split()
        if name == "nose":
            full = ["nose"]
        elif name in ("eyes", "ears"):
            full = [f"{side}_{name[:-1]}" for side in _SIDES.values()]
        else:
            full = [f"{_SIDES[name[-1]]}_{_SHORT.get(name[:-1], name[:-1])}"]
        for each in full:
            keypoints[COCO_NAMES.index(each)] = *(float(v) for v in at.split(",")), 1.0
    return keypoints


FRONTAL = _person(
    "nose 343.5,268.9; eyeL 353.4,268.3; eyeR 345.7,259.1; earL 358.6,274.5; earR 340.6,253; SL 367.1,318;"
    "SR 301.3,294.1; EL 418.8,336.8; ER 310.9,239.9; WL 461.1,352.2; WR 318.7,195.6; HL 320,400; HR 280,400;"
    "KL 349.1,479.9; KR 219.9,460.1; AL 391.6,553.5; AR 166.4,526.2"
)
RIGHTWARD = _person(
    "nose 382.5,294; eyes 384.2,283.9; ears 372.5,274.4; SL 352,313.4; SR 348,313.4; EL 407,313.4;"
    "ER 403,313.4; WL 438.8,281.6; WR 434.8,281.6; HL 302,400; HR 298,400; KL 367.1,454.6; KR 363.1,454.6;"
    "AL 338,534.5; AR 334,534.5"
)
LEFTWARD = _person(
    "nose 320,246.7; eyes 330.3,246.8; ears 337.5,259.9; SL 327.9,303.4; SR 323.9,303.4; EL 351.1,353.3;"
    "ER 347.1,353.3; WL 370.1,394; WR 366.1,394; HL 302,400; HR 298,400; KL 294.6,484.7; KR 290.6,484.7;"
    "AL 279.8,568.4; AR 275.8,568.4"
)
OVER_SPLIT = _person(
    "SL 335,300; SR 265,300; HL 320,400; HR 280,400; KL 404.7,392.6; KR 195.3,392.6; AL 489.4,385.2;"
    "AR 110.6,385.2"
)

# name, person, measurement, left, right
EXPECTED: tuple[tuple[str, Floats, str, float, float], ...] = (
    ("V1", FRONTAL, "shoulder_abduction", 90, 170),
    ("V1", FRONTAL, "back_side_flexion", 20, -20),
    ("V1", FRONTAL, "neck_lateral_flexion", 30, -30),
    ("V1", FRONTAL, "splits", 65, 65),
    ("V1", FRONTAL, "squats_knee_front", 10, -6),
    ("V1", FRONTAL, "squats_hip_front", 40, 25),
    ("V1", FRONTAL, "elbow_side", 180, 180),
    ("V1", FRONTAL, "hip_side", 130.1, 146.4),
    ("V1", FRONTAL, "knee_side", 170, 174),
    ("V2", RIGHTWARD, "shoulder_forward_flexion", 120, 120),
    ("V2", RIGHTWARD, "shoulder_extension", -120, -120),
    ("V2", RIGHTWARD, "back_lumbar_forward_flexion", 30, 30),
    ("V2", RIGHTWARD, "back_lumbar_extension", -30, -30),
    ("V2", RIGHTWARD, "knee_flexion", 70, 70),
    ("V2", RIGHTWARD, "knee_extension", -70, -70),
    ("V2", RIGHTWARD, "squats_knee_side", 70, 70),
    ("V2", RIGHTWARD, "squats_hip_side", 80, 80),
    ("V2", RIGHTWARD, "neck_forward_flexion", 25, 25),
    ("V2", RIGHTWARD, "neck_extension", -25, -25),
    ("V2", RIGHTWARD, "elbow_side", 135, 135),
    ("V2", RIGHTWARD, "hip_side", 100, 100),
    ("V2", RIGHTWARD, "knee_side", 110, 110),
    ("V3", LEFTWARD, "shoulder_forward_flexion", -39.9, -39.9),
    ("V3", LEFTWARD, "shoulder_extension", 39.9, 39.9),
    ("V3", LEFTWARD, "back_lumbar_forward_flexion", -15, -15),
    ("V3", LEFTWARD, "back_lumbar_extension", 15, 15),
    ("V3", LEFTWARD, "knee_flexion", -5, -5),
    ("V3", LEFTWARD, "knee_extension", 5, 5),
    ("V3", LEFTWARD, "squats_hip_side", -10, -10),
    ("V3", LEFTWARD, "neck_forward_flexion", -30, -30),
    ("V3", LEFTWARD, "neck_extension", 30, 30),
    ("V3", LEFTWARD, "elbow_side", 179.9, 179.9),
    ("V3", LEFTWARD, "hip_side", 170, 170),
    ("V3", LEFTWARD, "knee_side", 175, 175),
    ("V4", OVER_SPLIT, "splits", 190, 190),
)
