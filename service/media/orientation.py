"""Orientation of stored frames: one of the eight display matrices of right angles, and its application."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import atan2, pi
from typing import cast

import cv2

from service.core.geometry import Rgb8

_MATRIX = struct.Struct("=9i")
_ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class Orientation:
    """What makes a stored frame upright: a mirroring, then a rotation.

    Attributes:
        rotation_deg: clockwise, 0, 90, 180 or 270; applied after the mirroring.
        mirrored: left and right of the stored frame are exchanged.
    """

    rotation_deg: int = 0
    mirrored: bool = False

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places."""
        return self.rotation_deg in (90, 270)

    @property
    def reverses_sides(self) -> tuple[bool, bool]:
        """Whether x and y of the upright frame run against the stored sides that they come from."""
        return {
            0: (self.mirrored, False),
            90: (True, self.mirrored),
            180: (not self.mirrored, True),
            270: (False, not self.mirrored),
        }[self.rotation_deg]


def from_display_matrix(content: bytes) -> Orientation:
    """The orientation of a display matrix: nine native 32-bit integers, as FFmpeg gives them with a frame.

    A point (p, q) of the stored frame is shown at (a·p + c·q, b·p + d·q), y down (ISO/IEC 14496-12, 6.2.2).
    A matrix that is not one of right angles is rounded to the nearest; one without an inverse counts as none.
    """
    if len(content) < _MATRIX.size:
        return Orientation()
    a, b, _, c, d, *_ = _MATRIX.unpack_from(content)
    determinant = a * d - b * c
    if determinant == 0:
        return Orientation()
    mirrored = determinant < 0
    # A mirroring comes first: the first column of rotation × mirroring is that of the rotation, negated.
    angle = atan2(-b, -a) if mirrored else atan2(b, a)
    return Orientation(round(angle / (pi / 2)) * 90 % 360, mirrored)


def upright(image: Rgb8, orientation: Orientation) -> Rgb8:
    """The stored frame (H, W, 3) mirrored and rotated; the same array where nothing changes."""
    if orientation.mirrored:
        image = cast("Rgb8", cv2.flip(image, 1))
    if orientation.rotation_deg:
        image = cast("Rgb8", cv2.rotate(image, _ROTATIONS[orientation.rotation_deg]))
    return image
