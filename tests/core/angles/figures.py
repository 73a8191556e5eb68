"""People made of joint angles, so that what goes in is known; and the skeletons that they come with."""

from __future__ import annotations

import cmath
from collections.abc import Iterable, Mapping
from math import radians

import numpy as np

from service.core.angles import MEASUREMENTS, AngleOptions, Measured, measure
from service.core.poses import Floats, Poses
from service.core.skeleton.template import Keypoint, Skeleton

ALL = tuple(MEASUREMENTS)
NINETEEN = tuple(name for name, measurement in MEASUREMENTS.items() if not measurement.extension)

_PARTS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COCO_NAMES = ("nose", *(f"{side}_{part}" for part in _PARTS for side in ("left", "right")))
_FOOT_NAMES = tuple(f"{s}_{part}" for s in ("left", "right") for part in ("big_toe", "small_toe", "heel"))
_FACE_NAMES = tuple(f"face-{i}" for i in range(68))
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
_HAND_NAMES = tuple(
    name
    for s in ("left", "right")
    for name in (f"{s}_hand_root", *(f"{s}_{finger}{i}" for finger in _FINGERS for i in range(1, 5)))
)
BLAZE_NAMES = (
    *COCO_NAMES,
    *(f"{s}_{part}" for s in ("left", "right") for part in ("heel", "foot_index", "index", "pinky")),
)


def skeleton_of(names: Iterable[str], name: str = "test") -> Skeleton:
    """A skeleton without published sigmas."""
    return Skeleton(name, name, tuple(Keypoint(n) for n in names))


COCO = skeleton_of(COCO_NAMES, "coco_17")
WHOLEBODY = skeleton_of((*COCO_NAMES, *_FOOT_NAMES, *_FACE_NAMES, *_HAND_NAMES), "coco_wholebody_133")
BLAZE = skeleton_of(BLAZE_NAMES, "blazepose")


def poses_of(keypoints: Floats) -> Poses:
    """People (N, K, 3) or one (K, 3), with boxes around what is finite and has a score."""
    people = np.asarray(keypoints, np.float32)
    people = people if people.ndim == 3 else people[None]
    seen = np.isfinite(people).all(axis=2) & (people[..., 2] > 0)
    boxes = np.zeros((len(people), 4), np.float32)
    for box, person, good in zip(boxes, people, seen, strict=True):
        if good.any():
            box[:2], box[2:] = person[good, :2].min(axis=0), person[good, :2].max(axis=0)
    return Poses(boxes, np.ones(len(people), np.float32), people)


def measured(keypoints: Floats, names: tuple[str, ...] = ALL, **options: object) -> Measured:
    """COCO people measured."""
    return measure(poses_of(keypoints), COCO, names, AngleOptions(**options))  # type: ignore[arg-type]


def degrees(found: Measured, name: str, person: int = 0) -> tuple[float, float]:
    """Left and right value of one measurement, NaN where there is none."""
    index = [measurement.name for measurement in found.measurements].index(name)
    left, right = found.degrees[person, index].tolist()
    return left, right


def array_of(points: Mapping[str, complex], skeleton: Skeleton, score: float = 1.0) -> Floats:
    """Keypoints (K, 3) of a skeleton; points that are not given have score 0."""
    keypoints = np.zeros((len(skeleton.keypoints), 3), np.float32)
    for name, at in points.items():
        if name in skeleton.names:
            keypoints[skeleton.index(name)] = at.real, at.imag, score
    return keypoints


def _turn(deg: float) -> complex:
    """A clockwise turn on the screen."""
    return cmath.exp(1j * radians(deg))


def profile(
    *,
    facing: int = 1,
    lean: float = 0.0,
    hip: float = 0.0,
    knee: float = 0.0,
    shoulder: float = 0.0,
    elbow: float = 20.0,
    neck: float = 0.0,
    ankle: float = 0.0,
    wrist: float = 0.0,
    size: float = 600.0,
) -> dict[str, complex]:
    """A person seen from the side (facing 1: to the right), angles in flexion, `size` px tall.

    Both sides are alike but for a few px, so that the shoulders do not coincide.
    """
    f, trunk = facing, 0.288 * size
    up = -1j * _turn(f * lean)
    hips = 500.0 + 500.0j
    shoulders = hips + trunk * up
    arm = -up * _turn(-f * shoulder)
    forearm = arm * _turn(-f * elbow)
    thigh = -up * _turn(-f * hip)
    shank = thigh * _turn(f * knee)
    foot = shank * _turn(-f * (90 + ankle))
    face = up * _turn(f * (98 + neck))
    hand = forearm * _turn(-f * wrist)
    ear = shoulders + 0.12 * size * up
    points = {"nose": ear + 0.07 * size * face}
    for side, aside in (("left", 0.004 * size), ("right", -0.004 * size)):
        at = {
            "ear": ear,
            "eye": ear + 0.05 * size * face,
            "shoulder": shoulders,
            "elbow": shoulders + 0.186 * size * arm,
            "hip": hips,
            "knee": hips + 0.245 * size * thigh,
        }
        at["wrist"] = at["elbow"] + 0.146 * size * forearm
        at["ankle"] = at["knee"] + 0.246 * size * shank
        at["heel"] = at["ankle"] + 0.04 * size * shank - 0.03 * size * foot
        at["big_toe"] = at["foot_index"] = at["heel"] + 0.15 * size * foot
        at["hand_root"] = at["wrist"]
        at["middle_finger1"] = at["wrist"] + 0.06 * size * hand
        at["index"] = at["middle_finger1"] + 0.01 * size
        at["pinky"] = at["middle_finger1"] - 0.01 * size
        # fingers curl toward the palm, which is the side that the wrist flexes to
        at["middle_finger4"] = at["middle_finger1"] + 0.05 * size * hand * _turn(-f * 30)
        # ears and eyes are set apart along the face, which leaves its direction as it is
        points |= {
            f"{side}_{part}": place + aside * (face if part in ("ear", "eye") else 1)
            for part, place in at.items()
        }
    return points


def frontal(
    *,
    toward: int = 1,
    lean: float = 0.0,
    abduction: tuple[float, float] = (10.0, 10.0),
    thighs: tuple[float, float] = (5.0, 5.0),
    valgus: tuple[float, float] = (0.0, 0.0),
    neck: float = 0.0,
    elbow: float = 15.0,
    size: float = 600.0,
) -> dict[str, complex]:
    """A person seen from the front (toward 1) or the back (−1); pairs are (left, right).

    `lean` and `neck` are to the person's left.
    """
    o = toward
    up = -1j * _turn(o * lean)
    hips = 500.0 + 500.0j
    shoulders = hips + 0.288 * size * up
    to_left = -up * _turn(-90 * o)
    head = shoulders + 0.13 * size * up * _turn(o * neck)
    to_left_ear = to_left * _turn(o * neck)
    points = {"nose": head}
    for i in range(68):
        points[f"face-{i}"] = head
    for left, right, wide, high in ((45, 36, 0.03, 0.02), (42, 39, 0.01, 0.02), (26, 17, 0.035, 0.03)):
        for index, sign in ((left, 1), (right, -1)):
            points[f"face-{index}"] = head + size * to_left_ear * (sign * wide + 1j * high)
    for left, right, wide in ((22, 21, 0.01), (16, 0, 0.045), (14, 2, 0.04), (54, 48, 0.015)):
        for index, sign in ((left, 1), (right, -1)):
            points[f"face-{index}"] = head + size * to_left_ear * sign * wide
    for i, (side, k) in enumerate((("left", 1), ("right", -1))):
        at = {
            "ear": head + 0.045 * size * k * to_left_ear,
            "eye": head + 0.02 * size * (k * to_left_ear - 1j * to_left_ear * o),
            "shoulder": shoulders + 0.11 * size * k * to_left,
            "hip": hips + 0.055 * size * k * to_left,
        }
        arm = -up * _turn(-o * k * abduction[i])
        thigh = -up * _turn(-o * k * thighs[i])
        shank = thigh * _turn(-o * k * valgus[i])
        at["elbow"] = at["shoulder"] + 0.186 * size * arm
        at["wrist"] = at["elbow"] + 0.146 * size * arm * _turn(-o * k * elbow)
        at["knee"] = at["hip"] + 0.245 * size * thigh
        at["ankle"] = at["knee"] + 0.246 * size * shank
        points |= {f"{side}_{part}": place for part, place in at.items()}
    return points
