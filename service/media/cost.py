"""What an encoded image will cost, guessed from its first bytes in microseconds, to queue by."""

from __future__ import annotations

import struct

LARGE_PIXELS = 16_000_000
"""From here on an image is large: it takes several times as long as an inference to decode."""

_SEGMENTS = 64  # of a JPEG before its frame header; cameras write fewer than 20
_PIXELS_PER_BYTE = 8  # of other formats, at ordinary qualities
_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))


def is_large(content: bytes) -> bool:
    """Whether an image will take long to decode. A guess: nothing is checked, and nothing refused by it."""
    return expected_pixels(content) >= LARGE_PIXELS


def expected_pixels(content: bytes) -> int:
    """Number of pixels by the header of a JPEG or PNG, by the number of bytes of another file."""
    by_size = len(content) * _PIXELS_PER_BYTE
    if content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) >= 24:
        width, height = struct.unpack_from(">II", content, 16)
        return int(width * height)
    if content[:2] != b"\xff\xd8":
        return by_size
    at = 2
    for _ in range(_SEGMENTS):
        if at + 9 > len(content) or content[at] != 0xFF:
            return by_size
        if content[at + 1] in _FRAMES:
            height, width = struct.unpack_from(">HH", content, at + 5)
            return int(width * height)
        at += 2 + int(struct.unpack_from(">H", content, at + 2)[0])
    return by_size
