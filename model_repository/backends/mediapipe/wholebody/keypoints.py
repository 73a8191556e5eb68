"""Names and index tables of the native skeleton: 634 points.

0-132 COCO-WholeBody (body 0-16, feet 17-22, face 23-90, left hand 91-111, right hand 112-132), 133-165
BlazePose's own 33, 166-633 the 468 points of the face mesh. Left and right are the person's own.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

BODY_COUNT: Final = 17
WHOLE_BODY_COUNT: Final = 133
BLAZEPOSE_COUNT: Final = 33
FACE_MESH_COUNT: Final = 468
HAND_COUNT: Final = 21

FACE_START: Final = 23
LEFT_HAND_START: Final = 91
RIGHT_HAND_START: Final = 112
BLAZEPOSE_START: Final = WHOLE_BODY_COUNT
FACE_MESH_START: Final = BLAZEPOSE_START + BLAZEPOSE_COUNT
KEYPOINT_COUNT: Final = FACE_MESH_START + FACE_MESH_COUNT


BODY_FROM_BLAZEPOSE: Final = np.array([0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28])
"""BlazePose's index of each of COCO's 17."""

FEET_FROM_BLAZEPOSE: Final = {17: 31, 19: 29, 20: 32, 22: 30}
"""Big toes and heels. BlazePose has no small toes: 18 and 21 stay without value."""

FACE_FROM_MESH: Final[tuple[tuple[int, ...], ...]] = (
    # jaw, the person's right ear to the left
    (127,), (234,), (93,), (132, 58), (58, 172), (136,), (150,), (176,), (152,),
    (400,), (379,), (365,), (397, 288), (361, 288), (323,), (454,), (356,),
    # brows
    (70,), (63,), (105,), (66,), (107,), (336,), (296,), (334,), (293,), (300,),
    # nose
    (168, 6), (197, 195), (5,), (4,), (75,), (97,), (2,), (326,), (305,),
    # eyes
    (33,), (160,), (158,), (133,), (153,), (144,), (362,), (385,), (387,), (263,), (373,), (380,),
    # lips, outside and inside
    (61,), (39,), (37,), (0,), (267,), (269,), (291,), (321,), (314,), (17,), (84,), (91,),
    (78,), (82,), (13,), (312,), (308,), (317,), (14,), (87,),
)  # fmt: skip
"""Mesh points whose mean is each of the 68 iBUG points.

After PeizhiYan/Mediapipe_2_Dlib_Landmarks (MIT), made symmetric: its point 13 is 361 alone while point 3 is
the mean of 132 and 58. Eyes, nose and mouth are close; jaw and brows are approximations.
"""

_FACE_MEAN: NDArray[np.float32] = np.zeros((len(FACE_FROM_MESH), FACE_MESH_COUNT), np.float32)
for _row, _points in enumerate(FACE_FROM_MESH):
    _FACE_MEAN[_row, list(_points)] = 1 / len(_points)


def face_68(mesh: NDArray[np.float32]) -> NDArray[np.float32]:
    """The 68 iBUG points (68, D) of a mesh (468, D)."""
    return _FACE_MEAN @ mesh


def names() -> tuple[str, ...]:
    """All 634 names in order."""
    return (
        *_whole_body(),
        *(f"blazepose_{name}" for name in BLAZEPOSE),
        *(f"face_mesh_{i:03}" for i in range(468)),
    )


BLAZEPOSE: Final = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye",
    "right_eye_outer", "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_pinky",
    "right_pinky", "left_index", "right_index", "left_thumb", "right_thumb", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle", "left_heel", "right_heel",
    "left_foot_index", "right_foot_index",
)  # fmt: skip


def _whole_body() -> tuple[str, ...]:
    body = tuple(BLAZEPOSE[i] for i in BODY_FROM_BLAZEPOSE)
    feet = tuple(f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel"))
    face = tuple(f"face_{i}" for i in range(68))
    fingers = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
    hands = tuple(
        name
        for side in ("left", "right")
        for name in (f"{side}_hand_root", *(f"{side}_{finger}{i}" for finger in fingers for i in range(1, 5)))
    )
    return body + feet + face + hands
