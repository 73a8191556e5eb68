"""What an encoded image will cost, guessed from its first bytes in microseconds, to queue by."""

from __future__ import annotations

import re
import struct

from service.media.image_bounds import Structure

LARGE_PIXELS = 16_000_000
"""From here on an image is large: it takes several times as long as an inference to decode."""

_PIXELS_PER_BYTE = 8  # where the size is not known, at ordinary qualities
_HEAD_BYTES = 1 << 16
# Image spatial extents of HEIF and AVIF (ISO/IEC 23008-12, 6.5.3), version and flags 0; one for the image and
# one for the tiles of a grid.
_EXTENTS = re.compile(rb"ispe\0\0\0\0(.{8})", re.DOTALL)


def is_large(content: bytes, structure: Structure) -> bool:
    """Whether an image will take long to decode. A guess: nothing is checked, and nothing refused by it."""
    return expected_pixels(content, structure) >= LARGE_PIXELS


def expected_pixels(content: bytes, structure: Structure) -> int:
    """Number of pixels by the header, where it is understood; else by the number of bytes."""
    width, height = structure.size_wh
    return width * height or _webp(content) or _heif(content) or len(content) * _PIXELS_PER_BYTE


def _webp(content: bytes) -> int:
    """By the first chunk (RFC 9649, section 2)."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return 0
    match content[12:16]:
        case b"VP8X":
            width, height = content[24:27], content[27:30]
            return (int.from_bytes(width, "little") + 1) * (int.from_bytes(height, "little") + 1)
        case b"VP8L":
            bits = int.from_bytes(content[21:25], "little")
            return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", content, 26)
            return int(width & 0x3FFF) * int(height & 0x3FFF)
    return 0


def _heif(content: bytes) -> int:
    if content[4:8] != b"ftyp":
        return 0
    found = _EXTENTS.finditer(content, 0, _HEAD_BYTES)
    pixels = 0
    for extents in found:
        width, height = struct.unpack(">II", extents[1])
        pixels = max(pixels, int(width * height))
    return pixels
