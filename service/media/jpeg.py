"""JPEG: decoding that distinguishes an image without its end marker from one whose rows end early.

libjpeg fills missing rows with grey and reports no more than a warning. A file that is decoded without a
warning is complete; after one it is decoded again with other bytes behind its data, and rows that change were
missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import simplejpeg

from service.core.geometry import Rgb8
from service.errors import ImageTooCostly, ImageUndecodable

_START_OF_SCAN, _END = 0xDA, 0xD9
_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))  # SOFn
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # TEM, RSTn, SOI: no length behind them
_EOI = b"\xff\xd9"
# A marker within the data of a scan: no stuffed zero, no restart, no fill byte (ITU-T T.81, B.1.1).
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_FILLINGS = (b"\x55" * 512, b"\xaa" * 512)
_COEFFICIENTS = 64
# What libjpeg says of images that are whole all the same: parameters that some encoders set wrongly, and a
# colour space that TurboJPEG's interface does not convert.
_HARMLESS = re.compile("Invalid SOS parameters|Unknown Adobe color|Unsupported color conversion")
_PADDED = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_MAX_MARKERS = 4000  # segments, scans and fill bytes that are walked over

REDUCTIONS = (8, 4, 2)
"""Divisors of width and height for which libjpeg-turbo has vector code; at the eighths in between a reduced
image costs more than the whole."""


def decode_jpeg(content: bytes) -> Rgb8:
    """The image (H, W, 3) as it is stored, in RGB.

    Raises:
        ImageUndecodable: damaged, not supported, or with fewer rows than its header declares.
        ImageTooCostly: damaged, with far more segments than any encoder writes.
    """
    try:
        return cast("Rgb8", simplejpeg.decode_jpeg(content, "RGB", fastdct=False, fastupsample=False))
    except ValueError:
        return _decode_suspect(content)


def decode_jpeg_reduced(content: bytes, size_wh: tuple[int, int], divisor: int) -> Rgb8 | None:
    """The image as it is stored, in RGB, reduced: fewer coefficients of each block are transformed.

    Args:
        content: bytes of the file.
        size_wh: of the whole image, px, as the header declares it.
        divisor: one of `REDUCTIONS`.

    Returns:
        (ceil(H / divisor), ceil(W / divisor), 3) uint8; None where libjpeg says that something is wrong:
        `decode_jpeg` finds out what.
    """
    width, height = (-(-side // divisor) for side in size_wh)
    try:
        image = simplejpeg.decode_jpeg(
            content, "RGB", fastdct=False, fastupsample=False, min_width=width, min_height=height
        )
    except ValueError:
        return None
    return cast("Rgb8", image) if image.shape[:2] == (height, width) else None


def _decode_suspect(content: bytes) -> Rgb8:
    """An image of which libjpeg says that something is wrong, if all of it is there."""
    scans = _scans(content)
    data = content[: scans.end].rstrip(b"\xff")
    image = _decode_leniently(data + _EOI)
    if image is None:
        raise ImageUndecodable(
            "The image is truncated, damaged or stored in a way that is not supported: send the whole file."
        )
    height = image.shape[0]
    rows = height
    for filling in _FILLINGS:
        other = _decode_leniently(data + filling + _EOI)
        if other is None or other.shape != image.shape:
            continue
        changed = (other != image).any(axis=(1, 2))
        rows = min(rows, int(changed.argmax()) if changed.any() else height)
    if rows < height:
        raise ImageUndecodable(
            f"The image is cut short: {rows} of its {height} rows are there. Send the whole file.",
            metadata={"rows": str(rows), "height": str(height)},
        )
    if scans.missing:
        raise ImageUndecodable(
            f"The image is cut short: its {height} rows lack their detail. Send the whole file.",
            metadata={"rows": str(height), "height": str(height)},
        )
    complaint = _complaint(data + _EOI)
    if complaint and not _is_harmless(complaint, data):
        raise ImageUndecodable(
            f"The image is damaged in the middle ({complaint}): all {height} rows are there, but those "
            "behind the damage are wrong. Send the undamaged file, or encode the image again.",
            metadata={"rows": str(height), "height": str(height)},
        )
    return image


def _is_harmless(complaint: str, data: bytes) -> bool:
    """Whether an image is whole in spite of what libjpeg says; padding is so only if it is nothing else."""
    padded = _PADDED.search(complaint)
    if padded is not None:
        return not data[-int(padded[1]) :].strip(b"\0\xff")
    return _HARMLESS.search(complaint) is not None


def _complaint(content: bytes) -> str:
    """What libjpeg says about the content; empty where nothing is wrong."""
    try:
        simplejpeg.decode_jpeg(content, "RGB", fastdct=False, fastupsample=False)
    except ValueError as error:
        return str(error)
    return ""


def _decode_leniently(content: bytes) -> Rgb8 | None:
    """What libjpeg makes of it, missing rows in grey; None where it makes nothing."""
    try:
        return cast(
            "Rgb8", simplejpeg.decode_jpeg(content, "RGB", fastdct=False, fastupsample=False, strict=False)
        )
    except ValueError:  # a colour space that TurboJPEG's interface does not know
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        try:
            return cast("Rgb8 | None", cv2.imdecode(np.frombuffer(content, np.uint8), flags))
        except cv2.error:
            return None


@dataclass(frozen=True)
class _Scans:
    """The scans of a file.

    Attributes:
        end: where the data of the last of them end.
        missing: the file has no end marker, and a scan that refines a component is not there.
    """

    end: int
    missing: bool


def _scans(content: bytes) -> _Scans:
    """Walk over the markers of a file (ITU-T T.81, annex B)."""
    components: list[int] = []
    # Of every component and coefficient the lowest bit that was sent so far; None: not sent.
    sent: dict[int, list[int | None]] = {}
    start = end = 2
    for _ in range(_MAX_MARKERS):
        if start + 4 > len(content):
            break
        if content[start] != 0xFF:
            break
        kind = content[start + 1]
        if kind == 0xFF or kind in _STANDALONE:
            start += 1 if kind == 0xFF else 2
            continue
        if kind == _END:
            return _Scans(start, missing=False)
        length = int.from_bytes(content[start + 2 : start + 4], "big")
        segment = content[start + 4 : start + 2 + length]
        start += 2 + length
        if kind in _FRAMES and not components and len(segment) >= 6:
            components = list(segment[6::3][: segment[5]])
            sent = {component: [None] * _COEFFICIENTS for component in components}
        elif kind == _START_OF_SCAN:
            _note_scan(segment, sent)
            marker = _MARKER.search(content, start)
            start = end = len(content) if marker is None else marker.start()
    else:
        raise ImageTooCostly(
            f"The image is damaged and has more than {_MAX_MARKERS} JPEG segments: save it anew.",
            metadata={"limit_segments": str(_MAX_MARKERS)},
        )
    if end < len(content) and content[end : end + 2] == _EOI:
        return _Scans(end, missing=False)
    return _Scans(max(end, 2), missing=any(bit != 0 for bits in sent.values() for bit in bits))


def _note_scan(segment: Sequence[int], sent: dict[int, list[int | None]]) -> None:
    """Enter what a scan header announces: components, first and last coefficient, lowest bit."""
    count = segment[0] if segment else 0
    if len(segment) < 4 + 2 * count:
        return
    first, last, bits = segment[1 + 2 * count], segment[2 + 2 * count], segment[3 + 2 * count]
    for component in segment[1 : 1 + 2 * count : 2]:
        if component in sent:
            for place in range(first, min(last, _COEFFICIENTS - 1) + 1):
                sent[component][place] = bits & 0x0F
