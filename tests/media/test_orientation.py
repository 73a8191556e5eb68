"""The eight display matrices of right angles."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from service.core.geometry import Rgb8
from service.media.orientation import Orientation, from_display_matrix, upright

# a, b, c, d of the matrix; rotation clockwise and mirroring.
MATRICES = {
    "none": ((1, 0, 0, 1), Orientation(0)),
    "rotated by 90": ((0, 1, -1, 0), Orientation(90)),
    "rotated by 180": ((-1, 0, 0, -1), Orientation(180)),
    "rotated by 270": ((0, -1, 1, 0), Orientation(270)),
    "mirrored": ((-1, 0, 0, 1), Orientation(0, mirrored=True)),
    "upside down": ((1, 0, 0, -1), Orientation(180, mirrored=True)),
    "transposed": ((0, 1, 1, 0), Orientation(270, mirrored=True)),
    "transversed": ((0, -1, -1, 0), Orientation(90, mirrored=True)),
}
IMAGE: Rgb8 = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def matrix(a: float, b: float, c: float, d: float) -> bytes:
    numbers = [round(one * 65536) for one in (a, b, 0, c, d, 0, 0, 0)]
    return struct.pack("=9i", *numbers, 1 << 30)


def shown(image: Rgb8, a: int, b: int, c: int, d: int) -> Rgb8:
    """Every pixel (p, q) at (a·p + c·q, b·p + d·q), moved into the quadrant of positive numbers."""
    height, width = image.shape[:2]
    places = {(a * p + c * q, b * p + d * q): image[q, p] for q in range(height) for p in range(width)}
    left, top = min(x for x, _ in places), min(y for _, y in places)
    result = np.zeros((width, height, 3) if b else (height, width, 3), np.uint8)
    for (x, y), pixel in places.items():
        result[y - top, x - left] = pixel
    return result


@pytest.mark.parametrize("name", MATRICES)
def test_each_matrix_has_its_rotation_and_mirroring(name: str) -> None:
    numbers, orientation = MATRICES[name]
    assert from_display_matrix(matrix(*numbers)) == orientation


@pytest.mark.parametrize("name", MATRICES)
def test_pixels_are_where_the_matrix_puts_them(name: str) -> None:
    numbers, orientation = MATRICES[name]
    assert np.array_equal(upright(IMAGE, orientation), shown(IMAGE, *numbers))
    assert orientation.swaps_sides == (upright(IMAGE, orientation).shape != IMAGE.shape)


@pytest.mark.parametrize(
    ("content", "orientation"),
    [
        (b"", Orientation()),
        (bytes(36), Orientation()),
        (matrix(1, 1, 1, 1), Orientation()),
        (matrix(0.1, 0.99, -0.99, 0.1), Orientation(90)),
        (matrix(2, 0, 0, -2), Orientation(180, mirrored=True)),
        (b"\xff" * 36, Orientation()),
    ],
    ids=["empty", "zeros", "no inverse", "nearly 90", "scaled", "ones"],
)
def test_any_other_matrix_is_the_nearest_or_none(content: bytes, orientation: Orientation) -> None:
    assert from_display_matrix(content) == orientation


def test_nothing_is_copied_where_nothing_changes() -> None:
    assert upright(IMAGE, Orientation()) is IMAGE
    assert np.array_equal(upright(IMAGE, Orientation(90)), cv2.rotate(IMAGE, cv2.ROTATE_90_CLOCKWISE))
