"""Encoded bytes to an upright RGB picture, and a picture to PNG or JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import (
    BmpImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)
from PIL import Image as PillowImage

from service.core.geometry import Rgb8
from service.errors import ImageTooLarge, ImageUndecodable

Format = Literal["png", "jpeg"]
MEDIA_TYPES: dict[Format, str] = {"png": "image/png", "jpeg": "image/jpeg"}

MAX_SIDE: dict[Format, int] = {"png": 1_000_000, "jpeg": 65_500}
"""Px of one side that a file of the format can have: limits of libpng and libjpeg."""

# Imported by name because Pillow otherwise loads plugins as it pleases. The JPEG plugin also takes
# MPO, what phones write when they store two JPEGs in one file; its first picture is the photo.
_FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        BmpImagePlugin.BmpImageFile,
        TiffImagePlugin.TiffImageFile,
    )
)
_ACCEPTED = "JPEG, PNG, WebP, BMP or TIFF"

# Pillow reads headers only here, and `inspect` holds the declared size against our own limit;
# Pillow's own check would warn, or raise, below or above it.
PillowImage.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class ImageLimits:
    """What a picture may be at most.

    Attributes:
        max_bytes: of the encoded file.
        max_pixels: width times height, as the file's header declares them.
    """

    max_bytes: int
    max_pixels: int


def inspect(content: bytes, limits: ImageLimits) -> tuple[int, int]:
    """Size (width, height) from the file's header, before orientation; nothing is decoded.

    Raises:
        ImageUndecodable: empty, not a picture, or of a format that is not accepted.
        ImageTooLarge: more bytes or pixels than the limits allow.
    """
    if not content:
        raise ImageUndecodable("The picture is empty: send the bytes of an encoded file.")
    if len(content) > limits.max_bytes:
        raise ImageTooLarge(
            f"The picture has {len(content)} bytes; at most {limits.max_bytes} are accepted.",
            metadata={"limit_bytes": str(limits.max_bytes), "actual_bytes": str(len(content))},
        )
    try:
        with PillowImage.open(io.BytesIO(content), formats=_FORMATS) as header:
            width, height = header.size
    except UnidentifiedImageError:
        raise ImageUndecodable(f"The bytes are not a picture that can be read: send {_ACCEPTED}.") from None
    except Exception as error:
        # Pillow's plugins raise many types on broken headers (OSError, SyntaxError, struct.error, ...).
        raise ImageUndecodable("The picture's header is broken: send a whole, valid file.") from error
    if width < 1 or height < 1:
        raise ImageUndecodable("The picture has no pixels: its width or height is zero.")
    check_pixels((width, height), limits)
    return width, height


def check_pixels(size_wh: tuple[int, int], limits: ImageLimits) -> None:
    """Raise ImageTooLarge if an image of that size has more pixels than allowed."""
    width, height = size_wh
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"The picture has {width}×{height} px; at most {limits.max_pixels} px are accepted: "
            "scale it down.",
            metadata={"limit_pixels": str(limits.max_pixels), "actual_pixels": str(width * height)},
        )


def decode(content: bytes, limits: ImageLimits) -> Rgb8:
    """The picture as (H, W, 3) uint8 RGB, upright (EXIF orientation applied).

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB; an alpha channel is dropped; of
    several pictures in one file the first is taken.

    Raises:
        ImageUndecodable: empty, truncated, not a picture, or of a format that is not accepted.
        ImageTooLarge: more bytes or pixels than the limits allow.
    """
    inspect(content, limits)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except (cv2.error, MemoryError) as error:
        raise _broken() from error
    if image is None or image.dtype != np.uint8 or image.ndim != 3:
        raise _broken()
    return image  # type: ignore[return-value]  # cv2's stubs do not know that imdecode gave uint8


def _broken() -> ImageUndecodable:
    return ImageUndecodable(
        "The picture is truncated, damaged or stored in a way that is not supported (32-bit samples, for "
        "example): send the whole file, with 8 or 16 bits a sample."
    )


def encode(image: Rgb8, media_format: Format, *, jpeg_quality: int = 90) -> bytes:
    """A picture as PNG or JPEG bytes.

    Args:
        image: (H, W, 3) uint8 RGB.
        media_format: what to write.
        jpeg_quality: 1 to 100; JPEG only.

    Raises:
        ImageTooLarge: a side is longer than the format allows.
    """
    height, width = image.shape[:2]
    if max(width, height) > MAX_SIDE[media_format]:
        raise ImageTooLarge(
            f"A drawn picture of {width}×{height} px does not fit into {media_format.upper()}, which has at "
            f"most {MAX_SIDE[media_format]} px a side.",
            metadata={"limit_side": str(MAX_SIDE[media_format]), "actual_side": str(max(width, height))},
        )
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if media_format == "jpeg":
        done, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    else:
        # Level 1: about a third of the default's time for a tenth more bytes.
        done, encoded = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise RuntimeError(f"cv2 did not encode a {image.shape} picture as {media_format}")
    return encoded.tobytes()
