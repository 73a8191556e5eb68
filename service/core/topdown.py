"""Family `top_down`: one crop per person, and the model's outputs mapped back to the image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from service.core.geometry import Affine, Rgb8
from service.core.poses import DepthSource, Floats, Poses

BOX_MARGIN = 1.25
"""By how much a crop is larger than the person's box; what top-down models are trained with (mmpose
`GetBBoxCenterScale`)."""

FRAME_MARGIN = 1.75
"""Side of the square around a person that a model which takes the image may look at, in longer sides of the
box: a pose square is at least 1.375 of it, about the hips."""

ENOUGH_PX = 1024
"""Longer side of a person's box from which on more pixels give no better hands: they are about 100 px then,
and the hand network takes 224 px for twice the hand."""

MAX_PIXELS = 12_000_000
"""Pixels that a model which takes the image gets at most."""

STATURE_M = 1.70
"""The stature that `lift` assumes for every person."""

LIMBS: tuple[tuple[str, str, float], ...] = (
    ("left_shoulder", "left_elbow", 0.186),
    ("right_shoulder", "right_elbow", 0.186),
    ("left_elbow", "left_wrist", 0.146),
    ("right_elbow", "right_wrist", 0.146),
    ("left_hip", "left_knee", 0.245),
    ("right_hip", "right_knee", 0.245),
    ("left_knee", "left_ankle", 0.246),
    ("right_knee", "right_ankle", 0.246),
    ("left_shoulder", "left_hip", 0.288),
    ("right_shoulder", "right_hip", 0.288),
    ("left_shoulder", "right_shoulder", 0.259),
)
"""Lengths between joints as fractions of stature: Drillis and Contini 1966, as in Winter, Biomechanics and
Motor Control of Human Movement, 4th ed., figure 4.1."""

MIN_LIMBS = 2
"""Least number of usable limbs for a scale."""


def crop_affine(box_xyxy: Floats, shape_hw: tuple[int, int]) -> Affine:
    """The map from image px to crop px for one person.

    The box grows by `BOX_MARGIN` about its centre, then in one direction to the crop's aspect, so the scale
    is the same along both axes and nothing is squeezed. A box without extent counts as one pixel wide.

    Args:
        box_xyxy: (4,) px of the image; may reach beyond it.
        shape_hw: the crop's height and width.
    """
    height, width = shape_hw
    x1, y1, x2, y2 = (float(value) for value in box_xyxy)
    box_w, box_h = max(x2 - x1, 1.0) * BOX_MARGIN, max(y2 - y1, 1.0) * BOX_MARGIN
    scale = min(width / box_w, height / box_h)
    return Affine(
        scale_x=scale,
        scale_y=scale,
        shift_x=width / 2 - scale * (x1 + x2) / 2,
        shift_y=height / 2 - scale * (y1 + y2) / 2,
    )


def crop_people(image: Rgb8, boxes_xyxy: Floats, shape_hw: tuple[int, int]) -> tuple[Rgb8, list[Affine]]:
    """Cut every person out, bilinear, black beyond the image.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes_xyxy: (N, 4) px of the image.
        shape_hw: of the crops.

    Returns:
        The crops (N, *shape_hw, 3), and the maps from image px to crop px.
    """
    height, width = shape_hw
    crops = np.zeros((len(boxes_xyxy), height, width, 3), np.uint8)
    affines = [crop_affine(box, shape_hw) for box in boxes_xyxy]
    for crop, affine in zip(crops, affines, strict=True):
        matrix = np.array(
            [[affine.scale_x, 0, affine.shift_x], [0, affine.scale_y, affine.shift_y]], np.float64
        )
        cv2.warpAffine(image, matrix, (width, height), dst=crop, flags=cv2.INTER_LINEAR)
    return crops, affines


def frame_persons(image: Rgb8, boxes_xyxy: Floats) -> tuple[Rgb8, Affine]:
    """The part of an image that its persons need, for a model that takes the image itself.

    As large as in the image, unless the smallest of the persons is larger than `ENOUGH_PX`: then so much
    smaller that this one has that size. Never more than `MAX_PIXELS`.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes_xyxy: (N, 4) px of the image, N at least 1; may reach beyond it.

    Returns:
        The part (H', W', 3), at least a pixel, and the map from px of the image to px of it.
    """
    height, width = image.shape[:2]
    sides = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 1).max(axis=1)  # (N,)
    centers = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    reach = sides[:, None] * (FRAME_MARGIN / 2)
    low, high = (centers - reach).min(axis=0), (centers + reach).max(axis=0)
    x1, y1 = (int(np.clip(low[axis], 0, size - 1)) for axis, size in enumerate((width, height)))
    x2, y2 = (int(np.clip(np.ceil(high[axis]), 1, size)) for axis, size in enumerate((width, height)))
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    part, shift = image[y1:y2, x1:x2], Affine(shift_x=-x1, shift_y=-y1)
    scale = min(1.0, ENOUGH_PX / float(sides.min()), float(np.sqrt(MAX_PIXELS / ((x2 - x1) * (y2 - y1)))))
    if scale == 1.0:
        return part, shift
    size_wh = max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale))
    scale_x, scale_y = size_wh[0] / (x2 - x1), size_wh[1] / (y2 - y1)
    # cv2.resize maps the centres of pixels: (x + ½) · scale − ½.
    zoom = Affine(scale_x, scale_y, shift_x=(scale_x - 1) / 2, shift_y=(scale_y - 1) / 2)
    return np.asarray(cv2.resize(part, size_wh, interpolation=cv2.INTER_AREA), np.uint8), shift.then(zoom)


def in_frame(affine: Affine, boxes_xyxy: Floats, keypoints: Floats) -> tuple[Floats, Floats]:
    """Boxes (N, 4) and keypoints (M, K, 3) of an image in px of what `frame_persons` gave; scores stay."""
    boxes = affine.apply(boxes_xyxy.reshape(-1, 2).astype(np.float32)).reshape(-1, 4)
    bodies = keypoints.astype(np.float32)
    bodies[..., :2] = affine.apply(bodies[..., :2].reshape(-1, 2)).reshape(*bodies.shape[:2], 2)
    return np.asarray(boxes, np.float32), bodies


def bodies_in_crops(keypoints: Floats, affines: Sequence[Affine]) -> Floats:
    """The first stage's keypoints (N, K, 3) in px of each person's own crop, scores as they are."""
    bodies = keypoints.astype(np.float32)
    for body, affine in zip(bodies, affines, strict=True):
        body[:, :2] = affine.apply(body[:, :2])
    return bodies


def poses_from_crops(
    people: Poses, affines: Sequence[Affine], keypoints: Floats, scores: Floats, positions: Floats
) -> Poses:
    """A top-down model's answer as persons of the image.

    Args:
        persons: the persons of the crops; their boxes and scores are kept.
        affines: the maps from image px to crop px, one per person.
        keypoints: (N, K, 2) px of the crop; NaN where the model gives no point.
        scores: (N, K) the model's own.
        positions: (N, K, 3) metres; NaN where the model gives none.

    Returns:
        Keypoints that were not seen are at (0, 0) with score 0, as in COCO files. The positions' source is
        "measured" where a model gives x, y and z, "lifted" where it gives z only (`lift` then has to follow),
        "none" where it gives nothing, and positions are then absent.
    """
    answer = np.zeros((len(people), scores.shape[1], 3), np.float32)  # (N, K, 3)
    for row, affine, points, score in zip(answer, affines, keypoints, scores, strict=True):
        seen = np.isfinite(points).all(1) & np.isfinite(score)
        row[seen, :2] = affine.inverse().apply(points[seen].astype(np.float32))
        row[seen, 2] = score[seen]
    source = depth_source(positions)
    return Poses(
        boxes_xyxy=people.boxes_xyxy,
        scores=people.scores,
        keypoints=answer,
        positions=None if source == "none" else positions.astype(np.float32),
        depth_source=source,
    )


def depth_source(positions: Floats) -> DepthSource:
    """What kind of positions (N, K, 3) a model gave; see `poses_from_crops`."""
    known = np.isfinite(positions)
    if not known[..., 2].any():
        return "none"
    return "measured" if known[..., :2].any() else "lifted"


def lift(
    keypoints: Floats,
    positions: Floats,
    names: Sequence[str],
    *,
    stature_m: float = STATURE_M,
    min_score: float = 0.3,
) -> Floats:
    """Give x and y in metres to positions of which only z is known.

    The assumption, by name "limb lengths": the person is an adult of `stature_m` with average proportions,
    seen in weak perspective. A limb of length L whose ends are d px apart in the image and dz metres apart
    in depth makes a pixel √(L² − dz²) / d metres; the median over all limbs with confident ends is taken. So
    an error of 10 % in the stature is one of 10 % in x and y; z is the model's and stays.

    Args:
        keypoints: (N, K, 3) px of the image, score.
        positions: (N, K, 3) metres, x and y NaN.
        names: of the K keypoints; limbs go by name.
        stature_m: of every person.
        min_score: of a limb's ends.

    Returns:
        (N, K, 3) positions about mid-hip. A person without two usable limbs, or without hips, keeps NaN.
    """
    index = {name: i for i, name in enumerate(names)}
    hips = [index[name] for name in ("left_hip", "right_hip") if name in index]
    limbs = [(index[a], index[b], share) for a, b, share in LIMBS if a in index and b in index]
    lifted = positions.astype(np.float32)
    if len(hips) < 2 or len(limbs) < MIN_LIMBS:
        return lifted
    start, end, shares = (np.array(column) for column in zip(*limbs, strict=True))
    for person, row in zip(keypoints, lifted, strict=True):
        scale = metres_per_px(person, row[:, 2], start, end, shares * stature_m, min_score)
        centre = person[hips, :2].mean(0)
        root_z = row[hips, 2].mean()
        if scale is None or not (person[hips, 2] >= min_score).all() or not np.isfinite(root_z):
            continue
        given = np.isfinite(row[:, 2])
        row[given, :2] = (person[given, :2] - centre) * np.float32(scale)
        row[given, 2] -= root_z
    return lifted


def metres_per_px(
    keypoints: Floats,
    z: Floats,
    start: NDArray[np.int_],
    end: NDArray[np.int_],
    lengths_m: NDArray[np.float64],
    min_score: float,
) -> float | None:
    """The scale at which limbs have their lengths; None with fewer than `MIN_LIMBS` usable ones.

    Args:
        keypoints: (K, 3) px and score.
        z: (K,) metres.
        start: indices of the limbs' first ends.
        end: indices of the limbs' second ends.
        lengths_m: the limbs' lengths.
        min_score: of a limb's ends.
    """
    apart_px = np.linalg.norm(keypoints[start, :2] - keypoints[end, :2], axis=1)
    across_m2 = lengths_m**2 - (z[start] - z[end]).astype(np.float64) ** 2
    usable = (np.minimum(keypoints[start, 2], keypoints[end, 2]) >= min_score) & (apart_px > 1.0)
    # A limb that points at the camera says little of the scale: its length across is a small difference.
    usable &= across_m2 > (0.5 * lengths_m) ** 2
    if np.count_nonzero(usable) < MIN_LIMBS:
        return None
    return float(np.median(np.sqrt(across_m2[usable]) / apart_px[usable]))
