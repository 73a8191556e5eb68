"""Pictures made in memory, so that every test says what it sends."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from service.core.geometry import Rgb8

QUARTERS = ((200, 30, 10), (10, 180, 40), (20, 40, 220), (230, 230, 60))
"""Colours of the four quarters of `quartered`: top left, top right, bottom left, bottom right."""


def plain(size_wh: tuple[int, int], color: tuple[int, int, int] = (90, 120, 150)) -> Rgb8:
    """One colour all over."""
    return np.full((size_wh[1], size_wh[0], 3), color, np.uint8)


def noise(size_wh: tuple[int, int], seed: int = 0) -> Rgb8:
    """What no encoder makes small."""
    return np.random.default_rng(seed).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)


def quartered(size_wh: tuple[int, int]) -> Rgb8:
    """Four colours, so that every rotation and mirroring looks different."""
    width, height = size_wh
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = QUARTERS[0]
    image[: height // 2, width // 2 :] = QUARTERS[1]
    image[height // 2 :, : width // 2] = QUARTERS[2]
    image[height // 2 :, width // 2 :] = QUARTERS[3]
    return image


def encoded(image: Rgb8 | Image.Image, file_format: str, **options: Any) -> bytes:
    """The image as a file, written by Pillow and not by the code under test."""
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, file_format, **options)
    return file.getvalue()


def jpeg(size_wh: tuple[int, int], color: tuple[int, int, int] = (90, 120, 150)) -> bytes:
    """A small file of one colour."""
    return encoded(plain(size_wh, color), "JPEG")
