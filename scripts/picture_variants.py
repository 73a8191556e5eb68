"""Forty variants of one image that show the same persons: shifted, scaled, mirrored, compressed, brighter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from service.core.geometry import Rgb8
from service.core.poses import Floats
from service.core.skeleton.template import Skeleton

_SHIFTS = (
    (0.0, 0.0),
    (4.5, 0.0),
    (-4.5, 0.0),
    (0.0, 4.5),
    (0.0, -4.5),
    (9.0, 7.0),
    (-7.0, 9.0),
    (13.0, -11.0),
)
# On the same canvas: a model that fits every image into its input would undo a scale of the whole image.
_SCALES = (0.75, 0.8, 0.85, 0.89, 0.93, 0.96, 1.03, 1.06)
_QUALITIES = (95, 85, 75, 65, 55, 45, 35, 25)
_BRIGHTNESS = ((0.6, 0), (0.75, 0), (0.9, 0), (1.1, 0), (1.25, 0), (1.4, 0), (1.0, 25), (1.0, -25))
# Mirror images that are shifted (px) and scaled too.
_MIRRORED = ((0, 1.0), (4.5, 1.0), (-6.5, 1.0), (9.0, 1.0), (0, 0.92), (0, 1.04), (3.5, 0.97), (11, 0.87))

MIRRORED = len(_SHIFTS) + len(_SCALES) + len(_QUALITIES) + len(_BRIGHTNESS)
"""Number of the variant that is the image itself, mirrored; the image itself is 0."""


@dataclass(frozen=True, eq=False)
class Variant:
    """A changed image, and how points of it go back to the original.

    Attributes:
        kind: what was changed: shift, scale, jpeg, brightness or mirror.
        image: (H, W, 3) uint8 RGB.
        scale: px of the variant for a px of the original.
        shift_xy: px of the variant, added after scaling.
        mirrored: exchanged left and right, across the width of the original, before all else.
    """

    kind: str
    image: Rgb8
    scale: float = 1.0
    shift_xy: tuple[float, float] = (0.0, 0.0)
    mirrored: bool = False

    def keypoints_back(self, keypoints: Floats, skeleton: Skeleton, width: int) -> Floats:
        """(N, K, 3) keypoints in px of the original that is `width` px wide, sides exchanged back.

        Points that are not there stay x = y = score = 0.
        """
        there = (keypoints != 0).any(axis=2, keepdims=True)
        moved = np.where(there, np.concatenate([self._back(keypoints), keypoints[..., 2:]], axis=2), 0)
        if self.mirrored:
            moved[..., 0] = np.where(there[..., 0], width - moved[..., 0], 0)
            moved = moved[:, exchanged(skeleton)]
        return moved.astype(np.float32)

    def boxes_back(self, boxes_xyxy: Floats, width: int) -> Floats:
        """(N, 4) boxes in px of the original that is `width` px wide."""
        corners = self._back(boxes_xyxy.reshape(-1, 2, 2))
        if self.mirrored:
            corners[..., 0] = width - corners[:, ::-1, 0]
        return corners.reshape(-1, 4).astype(np.float32)

    def _back(self, points: Floats) -> Floats:
        return (points[..., :2] - np.array(self.shift_xy, np.float32)) / np.float32(self.scale)


def exchanged(skeleton: Skeleton) -> list[int]:
    """For every keypoint the index of the same one of the other side."""
    pairs = {a: b for pair in skeleton.flip_pairs for a, b in (pair, pair[::-1])}
    return [skeleton.index(pairs.get(name, name)) for name in skeleton.names]


def variants(image: Rgb8) -> Iterator[Variant]:
    """Forty variants; the first one is the image itself."""
    for shift in _SHIFTS:
        yield Variant("shift", _moved(image, 1.0, shift), shift_xy=shift)
    for scale in _SCALES:
        shift = _centred(image, scale)
        yield Variant("scale", _moved(image, scale, shift), scale, shift)
    for quality in _QUALITIES:
        yield Variant("jpeg", _compressed(image, quality))
    for factor, offset in _BRIGHTNESS:
        changed = np.clip(image.astype(np.float32) * factor + offset, 0, 255)
        yield Variant("brightness", changed.astype(np.uint8))
    mirrored = np.ascontiguousarray(image[:, ::-1])
    for across, scale in _MIRRORED:
        x, y = _centred(image, scale)
        shift = (x + across, y)
        yield Variant("mirror", _moved(mirrored, scale, shift), scale, shift, mirrored=True)


def _centred(image: Rgb8, scale: float) -> tuple[float, float]:
    """The shift, px, that keeps the centre of a scaled image where it is."""
    height, width = image.shape[:2]
    return (1 - scale) / 2 * width, (1 - scale) / 2 * height


def _moved(image: Rgb8, scale: float, shift_xy: tuple[float, float]) -> Rgb8:
    """The image scaled and moved on a canvas of its size; what comes in from outside repeats the edge."""
    if scale == 1.0 and shift_xy == (0.0, 0.0):
        return image
    height, width = image.shape[:2]
    # px have their centres at half numbers
    x, y = (shift + (scale - 1) / 2 for shift in shift_xy)
    matrix = np.array([[scale, 0, x], [0, scale, y]], np.float32)
    moved = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.uint8)


def _compressed(image: Rgb8, quality: int) -> Rgb8:
    done, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("the image cannot be compressed")
    decoded = cv2.imdecode(content, cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("the image cannot be read back")
    return np.ascontiguousarray(decoded[..., ::-1], np.uint8)
