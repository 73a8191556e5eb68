"""Named points and rays of the body, with their published proportions and OKS sigmas.

Names are COCO's; BlazePose's `foot_index` and knuckles stand in where COCO-WholeBody's are missing.
"""

from __future__ import annotations

from collections.abc import Mapping

from service.core.angles.definitions import Point, Ray, Side

# Height of a segment over stature: D. A. Winter, Biomechanics and Motor Control of Human Movement,
# after Drillis & Contini (1966). The trunk is shoulder to hip.
STATURE_FRACTIONS: Mapping[str, float] = {
    "upper_arm": 0.186,
    "forearm": 0.146,
    "thigh": 0.245,
    "shank": 0.246,
    "trunk": 0.288,
}

# OKS sigmas of COCO (cocodataset.org, keypoint evaluation) and of COCO-WholeBody's feet, for
# skeletons that publish none: standard deviation of annotators over the square root of the area.
KEYPOINT_SIGMAS: Mapping[str, float] = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
    "heel": 0.094,
    "big_toe": 0.092,
    "foot_index": 0.092,
}
# The widest of them, for points without a published sigma.
UNPUBLISHED_SIGMA = 0.107

# Pairs of COCO-WholeBody's 68 face points (left, right) that lie level on an upright head: corners
# of eyes and mouth, ends of brows, jaw. Their mean line is the head's roll.
_FACE_PAIRS = ((45, 36), (42, 39), (26, 17), (22, 21), (16, 0), (14, 2), (54, 48))

_FACE_PREFIXES = ("face-", "face_")  # mmpose's spelling, and the same in snake case
_FACE_OPPOSITES = {
    f"{prefix}{a}": f"{prefix}{b}"
    for prefix in _FACE_PREFIXES
    for pair in _FACE_PAIRS
    for a, b in (pair, pair[::-1])
}


def point(name: str) -> Point:
    """One keypoint."""
    return Point(((name, 1.0),))


def mean(*names: str) -> Point:
    """The mean of several keypoints."""
    return Point(tuple((name, 1.0 / len(names)) for name in names))


def joint(side: Side, part: str) -> Point:
    """The keypoint `part` of one side, such as left_knee."""
    return point(f"{side}_{part}")


def segment(side: Side, start: str, end: str) -> Ray:
    """From one keypoint of a side to another of the same side."""
    return Ray(joint(side, start), joint(side, end))


def across(part: str) -> Ray:
    """From the right keypoint to the left one."""
    return Ray(joint("right", part), joint("left", part))


def other(side: Side) -> Side:
    """The opposite side."""
    return "right" if side == "left" else "left"


def opposite(name: str) -> str:
    """The same keypoint of the other side; the middle is its own opposite."""
    for prefix, swapped in (("left_", "right_"), ("right_", "left_")):
        if name.startswith(prefix):
            return swapped + name.removeprefix(prefix)
    return _FACE_OPPOSITES.get(name, name)


def default_sigma(name: str) -> float:
    """OKS sigma by the keypoint's own name, whichever skeleton it is in."""
    part = name.removeprefix("left_").removeprefix("right_")
    return KEYPOINT_SIGMAS.get(part, UNPUBLISHED_SIGMA)


MID_SHOULDER = mean("left_shoulder", "right_shoulder")
MID_HIP = mean("left_hip", "right_hip")
NOSE = point("nose")
MIDLINE = Ray(MID_SHOULDER, MID_HIP)
SHOULDERS = across("shoulder")
HIPS = across("hip")
KNEES = across("knee")
ANKLES = across("ankle")
LEGS = Ray(MID_HIP, mean("left_knee", "right_knee"))
EARS = across("ear")
EYES = across("eye")
FACES = tuple(
    Ray(
        mean(*(f"{prefix}{right}" for _, right in _FACE_PAIRS)),
        mean(*(f"{prefix}{left}" for left, _ in _FACE_PAIRS)),
    )
    for prefix in _FACE_PREFIXES
)


def upper_arm(side: Side) -> Ray:
    """Shoulder to elbow."""
    return segment(side, "shoulder", "elbow")


def forearm(side: Side) -> Ray:
    """Elbow to wrist."""
    return segment(side, "elbow", "wrist")


def flank(side: Side) -> Ray:
    """Shoulder to hip of one side."""
    return segment(side, "shoulder", "hip")


def thigh(side: Side) -> Ray:
    """Hip to knee."""
    return segment(side, "hip", "knee")


def shank(side: Side) -> Ray:
    """Knee to ankle."""
    return segment(side, "knee", "ankle")


def _anatomy() -> Mapping[Ray, tuple[str, float]]:
    rays = {MIDLINE: ("trunk", STATURE_FRACTIONS["trunk"])}
    sides: tuple[Side, Side] = ("left", "right")
    for side in sides:
        for ray, part in (
            (upper_arm(side), "upper_arm"),
            (forearm(side), "forearm"),
            (flank(side), "trunk"),
            (thigh(side), "thigh"),
            (shank(side), "shank"),
        ):
            rays[ray] = (f"{side}_{part}", STATURE_FRACTIONS[part])
    return rays | {ray.reversed(): value for ray, value in rays.items()}


# Rays of known size, either way round: their name and their length over stature.
SEGMENTS: Mapping[Ray, tuple[str, float]] = _anatomy()
