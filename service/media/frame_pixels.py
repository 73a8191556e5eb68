"""Pixels of decoded frames: FFmpeg's frames to upright RGB images of square pixels, all of one size."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame as AvFrame
from av.video.reformatter import VideoReformatter
from numpy.lib.stride_tricks import as_strided

from service.core.geometry import Rgb8
from service.media.orientation import Orientation, from_display_matrix, upright


class FramePixels:
    """Converts the frames of one video. One converter is set up once; that of a frame would be for each.

    Args:
        first: frame, whose size and orientation are those of the video.
        pixel_aspect: width of a stored pixel by its height.

    Attributes:
        orientation: what makes the stored frames upright.
    """

    def __init__(self, first: AvFrame, pixel_aspect: Fraction) -> None:
        self.orientation = _orientation(first)
        self._aspect = pixel_aspect
        self._shown_wh = _square_pixels((first.width, first.height), pixel_aspect)
        self._converter = VideoReformatter()

    @property
    def size_wh(self) -> tuple[int, int]:
        """Of the upright images, px."""
        width, height = self._shown_wh
        return (height, width) if self.orientation.swaps_sides else (width, height)

    def image(self, frame: AvFrame) -> Rgb8:
        """The frame as (H, W, 3) RGB in the size of the video. One of another shape, where a stream changes
        its size, is scaled to fit and centred on black: persons are never squeezed."""
        fitted_wh = _fitted(_square_pixels((frame.width, frame.height), self._aspect), self._shown_wh)
        image = _rgb(frame, fitted_wh, self._converter)
        if fitted_wh != self._shown_wh:
            (width, height), (inner_width, inner_height) = self._shown_wh, fitted_wh
            left, top = (width - inner_width) // 2, (height - inner_height) // 2
            canvas = np.zeros((height, width, 3), np.uint8)
            canvas[top : top + inner_height, left : left + inner_width] = image
            image = canvas
        return upright(image, self.orientation)


def _orientation(frame: AvFrame) -> Orientation:
    """Of the display matrix that the container or the codec (SEI, EXIF) gives the frame."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV cannot name some other kind of data on the frame: then without mirroring
        return Orientation(-round(frame.rotation / 90) * 90 % 360)
    return Orientation() if matrix is None else from_display_matrix(bytes(cast("SideData", matrix)))


def _square_pixels(stored_wh: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    """Size with square pixels: the shorter side of a pixel grows, so that no detail is lost."""
    width, height = stored_wh
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))


def _fitted(size_wh: tuple[int, int], into_wh: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the same shape that fits; the whole where only rounding differs."""
    (width, height), (into_width, into_height) = size_wh, into_wh
    scale = min(Fraction(into_width, width), Fraction(into_height, height))
    fitted = max(round(width * scale), 1), max(round(height * scale), 1)
    return into_wh if max(into_width - fitted[0], into_height - fitted[1]) <= 1 else fitted


def _rgb(frame: AvFrame, size_wh: tuple[int, int], converter: VideoReformatter) -> Rgb8:
    """The frame in RGB and in that size, in FFmpeg's memory: a copy would cost as much as the conversion."""
    rgb = converter.reformat(frame, *size_wh, format="rgb24", threads=1)
    plane = rgb.planes[0]
    samples = np.frombuffer(memoryview(plane), np.uint8)
    return as_strided(samples, (rgb.height, rgb.width, 3), (plane.line_size, 3, 1))
