"""Encoded bytes to an upright RGB image, and an image to PNG or JPEG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from pi_heif import HeifImageFile, options, register_heif_opener
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)
from PIL import Image as PillowImage
from PIL.ExifTags import Base as ExifTag

from service.core.geometry import Affine, Rgb8, ScaledImage
from service.errors import ImageTooCostly, ImageTooLarge, ImageUndecodable
from service.media.image_bounds import Structure, check_head, check_scans
from service.media.jpeg import REDUCTIONS, decode_jpeg, decode_jpeg_reduced
from service.media.orientation import Orientation, upright

LeastScale: TypeAlias = Callable[[tuple[int, int]], float]
"""Of an image's upright size (width, height): the scale that it is needed at; below it, detail is lost."""

Format = Literal["png", "jpeg"]
MEDIA_TYPES: dict[Format, str] = {"png": "image/png", "jpeg": "image/jpeg"}

ScaledDecoding = Literal["off", "fine", "fast"]
"""How far JPEGs are reduced while they are decoded."""

# Least size, in model inputs. Between one and two inputs keypoints move by a median of 0.4 to 0.5 px of the
# input, as a shift of the image by one pixel moves them too; from two on by 0.2 px (1080p, 12 MP; YOLO11n).
_MARGINS: dict[ScaledDecoding, float] = {"fine": 2.0, "fast": 1.0}

MAX_SIDE: dict[Format, int] = {"png": 1_000_000, "jpeg": 65_500}
"""Px of one side that a file of the format can have: limits of libpng and libjpeg."""

# Imported by name because Pillow otherwise loads plugins as it pleases. The JPEG plugin also takes
# MPO, what phones write when they store two JPEGs in one file; its first image is the photo.
_FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        BmpImagePlugin.BmpImageFile,
        TiffImagePlugin.TiffImageFile,
        AvifImagePlugin.AvifImageFile,
        HeifImageFile,
    )
)
_ACCEPTED = "JPEG, PNG, WebP, BMP, TIFF, HEIC or AVIF"
# Of all of them; what begins otherwise needs no decoder to be refused.
_FIRST_BYTES = re.compile(
    rb"\xff\xd8\xff|\x89PNG|RIFF....WEBP|BM|II\*\0|MM\0\*|MM\*\0|II\0\*|MM\0\+|II\+\0|....ftyp", re.DOTALL
)
_JPEG, _DECODED_BY_PILLOW = ("JPEG", "MPO"), ("AVIF", "HEIF")

# How an image is made upright, by its EXIF orientation (CIPA DC-008, tag 0x0112).
_ORIENTATIONS = {
    2: Orientation(0, mirrored=True),
    3: Orientation(180),
    4: Orientation(180, mirrored=True),
    5: Orientation(270, mirrored=True),
    6: Orientation(90),
    7: Orientation(90, mirrored=True),
    8: Orientation(270),
}

_EXPANDS = "Decompressed data too large"  # what Pillow says of a chunk of a PNG
_SAMPLE_BITS = (8, 10, 12, 14, 16)  # that a 16-bit sample may hold

# Pillow's own check of the size would warn, or raise, below or above the limit that `inspect` holds.
PillowImage.MAX_IMAGE_PIXELS = None
# One image is decoded by one thread: several are decoded at once.
register_heif_opener(thumbnails=False)
options.DECODE_THREADS = 1
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


@dataclass(frozen=True)
class ImageLimits:
    """Upper limits of an image.

    Attributes:
        max_bytes: of the encoded file.
        max_pixels: width times height, as the file's header declares them.
    """

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True)
class Header:
    """What a file declares before it is decoded.

    Attributes:
        file_format: Pillow's name of it.
        size_wh: px, as stored.
        orientation: by the file's EXIF data.
        is_deep: samples have 16 bits.
    """

    file_format: str
    size_wh: tuple[int, int]
    orientation: Orientation
    is_deep: bool

    @property
    def upright_wh(self) -> tuple[int, int]:
        """Size in px after the orientation."""
        width, height = self.size_wh
        return (height, width) if self.orientation.swaps_sides else (width, height)


def decode(content: bytes, limits: ImageLimits) -> Rgb8:
    """The image as (H, W, 3) uint8 RGB, upright (EXIF orientation and HEIF transformations applied).

    Grey, palette, CMYK and 16-bit images become 8-bit RGB; an alpha channel is dropped; of
    several images in one file the first is taken, of a HEIC the primary one. The samples of a 16-bit
    image count as 8, 10, 12, 14 or 16 bits, the fewest that hold the largest of them, and the upper 8 of
    those are kept. Pixels count as square, whatever resolution a file states: in no accepted format is it
    binding for display.

    Raises:
        ImageUndecodable: empty, truncated, not an image, or of a format that is not accepted.
        ImageTooLarge: more bytes or pixels than the limits allow.
        ImageTooCostly: decoding takes more time or memory than the size of the image warrants.
    """
    return decode_whole(content, read_header(content, limits))


def decode_scaled(
    content: bytes,
    limits: ImageLimits,
    least_scale: LeastScale | None,
    mode: ScaledDecoding = "fine",
    structure: Structure | None = None,
) -> ScaledImage:
    """As `decode`, but a JPEG is decoded at half, a quarter or an eighth of its size where that is enough.

    Args:
        content: bytes of the file.
        limits: of it.
        least_scale: of the upright size (width, height), the scale that is needed; None for the whole image.
        mode: how far the image may be reduced towards that scale.
        structure: by `examine`; None where the head was not looked at yet.
    """
    header = read_header(content, limits, structure)
    if least_scale is not None and mode != "off" and header.file_format in _JPEG:
        needed = least_scale(header.upright_wh) * _MARGINS[mode]
        for divisor in REDUCTIONS:
            if 1 / divisor >= needed:
                reduced = decode_jpeg_reduced(content, header.size_wh, divisor)
                if reduced is not None:
                    return _turned(reduced, header, divisor)
                break
    return ScaledImage.whole(decode_whole(content, header))


def _turned(reduced: Rgb8, header: Header, divisor: int) -> ScaledImage:
    """A reduced image, made upright. Its last column and row may reach beyond the original, and come first
    where the side is reversed."""
    pixels = upright(reduced, header.orientation)
    width, height = header.upright_wh
    reversed_x, reversed_y = header.orientation.reverses_sides
    return ScaledImage(
        pixels,
        (width, height),
        Affine(
            scale_x=1 / divisor,
            scale_y=1 / divisor,
            shift_x=pixels.shape[1] - width / divisor if reversed_x else 0.0,
            shift_y=pixels.shape[0] - height / divisor if reversed_y else 0.0,
        ),
    )


def decode_whole(content: bytes, header: Header) -> Rgb8:
    """As `decode`, by the header that `read_header` gave."""
    if header.file_format in _JPEG:
        return upright(decode_jpeg(content), header.orientation)
    if header.file_format in _DECODED_BY_PILLOW:
        return upright(_decode_by_pillow(content), header.orientation)
    # cv2 applies the orientation itself, and swaps the channels of 16-bit TIFF wrongly.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH if header.is_deep else cv2.IMREAD_COLOR_RGB
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise _broken() from error
    if header.is_deep and image is not None and image.dtype == np.uint16:
        image = cv2.cvtColor(_eight_bits(image), cv2.COLOR_BGR2RGB)
    if image is None or image.dtype != np.uint8 or image.ndim != 3:
        raise _broken()
    return image  # type: ignore[return-value]  # cv2's stubs do not know that imdecode gave uint8


def examine(content: bytes, limits: ImageLimits) -> Structure:
    """What the head of a file announces, for less than a millisecond; nothing is decoded.

    Raises:
        ImageUndecodable, ImageTooLarge, ImageTooCostly: as `decode`, as far as that is seen already.
    """
    if not content:
        raise ImageUndecodable("The image is empty: send the bytes of an encoded file.")
    if len(content) > limits.max_bytes:
        raise ImageTooLarge(
            f"The image has {len(content)} bytes; at most {limits.max_bytes} are accepted.",
            metadata={"limit_bytes": str(limits.max_bytes), "actual_bytes": str(len(content))},
        )
    if _FIRST_BYTES.match(content) is None:
        raise _unknown()
    return check_head(content)


def read_header(content: bytes, limits: ImageLimits, structure: Structure | None = None) -> Header:
    """What a file declares; nothing is decoded.

    Args:
        content: bytes of the file.
        limits: of it.
        structure: by `examine`; None where the head was not looked at yet.

    Raises:
        ImageUndecodable, ImageTooLarge, ImageTooCostly: as `decode`.
    """
    check_scans(content, structure or examine(content, limits), limits.max_pixels)
    try:
        with PillowImage.open(io.BytesIO(content), formats=_FORMATS) as picture:
            width, height = picture.size
            file_format = picture.format or ""
            orientation, is_deep = _orientation(picture), _is_deep(picture, content)
    except UnidentifiedImageError:
        raise _unknown() from None
    except Exception as error:
        if _EXPANDS in str(error):
            raise ImageTooCostly(
                "A text or colour profile in the PNG expands to more than 1 MiB: save it without metadata."
            ) from error
        # Pillow's plugins raise many types on broken headers (OSError, SyntaxError, struct.error, ...).
        raise ImageUndecodable("The image's header is broken: send a whole, valid file.") from error
    if width < 1 or height < 1:
        raise ImageUndecodable("The image has no pixels: its width or height is zero.")
    check_pixels((width, height), limits)
    return Header(file_format, (width, height), orientation, is_deep)


def check_pixels(size_wh: tuple[int, int], limits: ImageLimits) -> None:
    """Raise ImageTooLarge if an image of that size has more pixels than allowed."""
    width, height = size_wh
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"The image has {width}×{height} px; at most {limits.max_pixels} px are accepted: scale it down.",
            metadata={"limit_pixels": str(limits.max_pixels), "actual_pixels": str(width * height)},
        )


def _orientation(picture: PillowImage.Image) -> Orientation:
    """By the EXIF data of formats that are not decoded by cv2; none where they are damaged."""
    if picture.format not in (*_JPEG, *_DECODED_BY_PILLOW):
        return Orientation()
    try:
        return _ORIENTATIONS.get(picture.getexif().get(ExifTag.Orientation, 1), Orientation())
    except Exception:
        # Damaged EXIF data, for which Pillow raises many types, leave the image itself readable.
        return Orientation()


def _is_deep(picture: PillowImage.Image, content: bytes) -> bool:
    """Whether the samples of a PNG or TIFF have 16 bits."""
    if isinstance(picture, PngImagePlugin.PngImageFile):
        return content[24] == 16  # the bit depth of IHDR, which is the first chunk
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return 16 in picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, ())
    return False


def _decode_by_pillow(content: bytes) -> Rgb8:
    """AVIF and HEIC, (H, W, 3) RGB, before the EXIF orientation."""
    try:
        with PillowImage.open(io.BytesIO(content), formats=_FORMATS) as picture:
            return np.asarray(picture.convert("RGB"))
    except Exception as error:  # libheif's and libavif's errors reach Python in many types
        raise _broken() from error


def _eight_bits(image: NDArray[Any]) -> NDArray[np.uint8]:
    """The upper 8 of the bits that the samples use."""
    used = int(image.max()).bit_length()
    bits = next(bits for bits in _SAMPLE_BITS if bits >= used)
    return (image >> (bits - 8)).astype(np.uint8)


def _unknown() -> ImageUndecodable:
    return ImageUndecodable(f"The bytes are not an image that can be read: send {_ACCEPTED}.")


def _broken() -> ImageUndecodable:
    return ImageUndecodable(
        "The image is truncated, damaged or stored in a way that is not supported (32-bit samples, for "
        "example): send the whole file, with 8 or 16 bits a sample."
    )


def encode(image: Rgb8, media_format: Format, *, jpeg_quality: int = 90) -> bytes:
    """An image as PNG or JPEG bytes.

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
            f"A drawn image of {width}×{height} px does not fit into {media_format.upper()}, which has at "
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
