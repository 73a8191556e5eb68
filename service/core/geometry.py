"""Affine maps between the pixels of an image and of a model's input, and the letterbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import cv2
import numpy as np
from numpy.typing import NDArray

from service.core.poses import Floats

Rgb8 = NDArray[np.uint8]

LETTERBOX_GREY = 114
"""The grey around a letterboxed image; what YOLO models were trained with (Ultralytics `LetterBox`)."""


@dataclass(frozen=True)
class Affine:
    """x' = x · scale_x + shift_x, likewise y: image px to input px, without rotation."""

    scale_x: float = 1.0
    scale_y: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    def inverse(self) -> Affine:
        """Input px back to image px."""
        return Affine(
            scale_x=1 / self.scale_x,
            scale_y=1 / self.scale_y,
            shift_x=-self.shift_x / self.scale_x,
            shift_y=-self.shift_y / self.scale_y,
        )

    def then(self, after: Affine) -> Affine:
        """This one first, `after` second."""
        return Affine(
            scale_x=self.scale_x * after.scale_x,
            scale_y=self.scale_y * after.scale_y,
            shift_x=self.shift_x * after.scale_x + after.shift_x,
            shift_y=self.shift_y * after.scale_y + after.shift_y,
        )

    def apply(self, points_xy: Floats) -> Floats:
        """Map points (..., 2); returns a new float32 array of the same shape."""
        scale = np.array([self.scale_x, self.scale_y], np.float32)
        shift = np.array([self.shift_x, self.shift_y], np.float32)
        return points_xy * scale + shift


@dataclass(frozen=True, eq=False)
class ScaledImage:
    """An upright image, at its own size or reduced while it was decoded.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        size_wh: of the original, px; coordinates that are answered are those of it.
        to_pixels: px of the original to px of `pixels`.
    """

    pixels: Rgb8
    size_wh: tuple[int, int]
    to_pixels: Affine

    @staticmethod
    def whole(pixels: Rgb8) -> ScaledImage:
        """An image at its own size."""
        return ScaledImage(pixels, (pixels.shape[1], pixels.shape[0]), Affine())

    @staticmethod
    def reduced(pixels: Rgb8, size_wh: tuple[int, int]) -> ScaledImage:
        """An image of `size_wh` that was scaled as a whole to the size of `pixels`."""
        scale_x, scale_y = pixels.shape[1] / size_wh[0], pixels.shape[0] / size_wh[1]
        return ScaledImage(pixels, size_wh, Affine(scale_x, scale_y))


Region = tuple[float, float, float, float]
"""A box of an image: x1, y1, x2, y2, px."""


def touched(region_xyxy: Region, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """The whole pixels that a region touches, clipped to the image: x1, y1, x2, y2. Empty, with x1 >= x2 or
    y1 >= y2, where the region lies outside."""
    x1, y1, x2, y2 = region_xyxy
    width, height = size_wh
    return max(0, floor(x1)), max(0, floor(y1)), min(width, ceil(x2)), min(height, ceil(y2))


def least_scale(
    size_wh: tuple[int, int], shapes_hw: Sequence[tuple[int, int]], region_xyxy: Region | None = None
) -> float:
    """The scale below which an image, or the region of it, would have to be enlarged for a model's input.

    Args:
        size_wh: of the image, px.
        shapes_hw: inputs that the model allows.
        region_xyxy: the part of the image that is fitted into the input; None for the whole.
    """
    if region_xyxy is not None:
        x1, y1, x2, y2 = touched(region_xyxy, size_wh)
        if x1 >= x2 or y1 >= y2:
            return 0.0
        size_wh = (x2 - x1, y2 - y1)
    height, width = choose_shape(size_wh, shapes_hw)
    return min(height / size_wh[1], width / size_wh[0])


def choose_shape(size_wh: tuple[int, int], shapes_hw: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The smallest allowed input (H, W) that holds the image at the model's working size.

    The working size is the longest side among the shapes: that is the size the model sees persons
    at, whatever the aspect. The image is thought scaled until its long side has that length (up
    or down, as in training); of the shapes that hold it whole, the one of least area is taken. An
    image that none holds at that size goes to the one that shows it largest.
    """
    width, height = size_wh
    longest = max(max(shape) for shape in shapes_hw)
    gain = longest / max(width, height)
    need_w, need_h = max(round(width * gain), 1), max(round(height * gain), 1)
    holding = [(h, w) for h, w in shapes_hw if h >= need_h and w >= need_w]
    if holding:
        return min(holding, key=lambda shape: (shape[0] * shape[1], shape))
    return max(shapes_hw, key=lambda shape: min(shape[0] / height, shape[1] / width))


def fitted_wh(size_wh: tuple[int, int], shape_hw: tuple[int, int]) -> tuple[int, int]:
    """Size that an image of `size_wh` has in a letterbox of `shape_hw`: as large as fits, aspect kept."""
    width, height = size_wh
    gain = min(shape_hw[0] / height, shape_hw[1] / width)
    return max(round(width * gain), 1), max(round(height * gain), 1)


def resized(image: Rgb8, size_wh: tuple[int, int], dst: Rgb8 | None = None) -> Rgb8:
    """The image in another size, px, by the interpolation of `letterbox`.

    Args:
        image: (H, W, 3) uint8 RGB.
        size_wh: of the result.
        dst: array of that size to write into; None for a new one.
    """
    return cv2.resize(image, size_wh, dst=dst, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def letterbox(
    image: Rgb8,
    shape_hw: tuple[int, int],
    size_wh: tuple[int, int] | None = None,
    out: Rgb8 | None = None,
) -> tuple[Rgb8, Affine]:
    """Scale an image into an input of `shape_hw`, centred on grey, aspect kept.

    Rounding and padding are those of Ultralytics' `LetterBox`, so that results can be held against
    theirs to the pixel.

    Args:
        image: (H, W, 3) uint8 RGB.
        shape_hw: the input's height and width.
        size_wh: size of the original, px, of which `image` is a reduced copy; None for its own. What the
            image covers in the input follows from it.
        out: array of that shape to write into; None for a new one.

    Returns:
        The input (shape_hw + 3) uint8, and the map from px of `image` to input px.
    """
    target_h, target_w = shape_hw
    new_w, new_h = fitted_wh(size_wh or (image.shape[1], image.shape[0]), shape_hw)
    left = round((target_w - new_w) / 2 - 0.1)
    top = round((target_h - new_h) / 2 - 0.1)
    boxed = np.empty((target_h, target_w, 3), np.uint8) if out is None else out
    boxed[:top] = LETTERBOX_GREY
    boxed[top + new_h :] = LETTERBOX_GREY
    boxed[top : top + new_h, :left] = LETTERBOX_GREY
    boxed[top : top + new_h, left + new_w :] = LETTERBOX_GREY
    inside = boxed[top : top + new_h, left : left + new_w]
    height, width = image.shape[:2]
    if (new_w, new_h) == (width, height):
        inside[...] = image
    else:
        resized(image, (new_w, new_h), inside)
    return boxed, Affine(
        scale_x=new_w / width, scale_y=new_h / height, shift_x=float(left), shift_y=float(top)
    )
