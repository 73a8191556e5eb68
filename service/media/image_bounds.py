"""Bounds of an image file by its structure: scans, segments, chunks, strips, tiles and items.

A few bytes of these can cost a decoder, or the Python code that reads headers, many times what the pixels of
the image do.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from service.errors import ImageTooCostly, ImageUndecodable

MAX_SCANS = 100
"""Scans of one JPEG; encoders make 10 to 20 of a progressive one."""

_MAX_SCANNED = 20  # times the pixels that an image may have, over all scans
_MAX_SEGMENTS = 2000  # of a JPEG before its first scan; a profile or depth map takes up to 255 of 64 KB
_MAX_JUNK = 1 << 16  # bytes between the segments of a JPEG
_MAX_CHUNKS = 1000  # of a PNG before its pixels
_MAX_ENTRIES = 1000  # of the directory of a TIFF
_SPARE_PIXELS = 1 << 22  # of a strip or tile that is larger than the image: tiles of 2048 by 2048 px

_MAX_ITEMS = 1000  # of a HEIC or AVIF; the largest grids of phones have 200 tiles
_MAX_META_BYTES = 1 << 20
_MAX_BOXES = 16  # of a file before its metadata
_OLD_BMP = 12  # bytes of the header of OS/2 1
_SPARE_PARTS = 1000  # strips or tiles that a TIFF lists beyond those it needs

_SOS, _EOI = 0xDA, 0xD9
_SEQUENTIAL = frozenset((0xC0, 0xC1))  # SOFn that is Huffman-coded and not progressive
_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # no length behind them
_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)  # fill bytes before it are junk
_SCAN_END = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)

_WIDTH, _HEIGHT, _SAMPLES, _ROWS_PER_STRIP, _PLANAR = 256, 257, 277, 278, 284
_TILE_WIDTH, _TILE_HEIGHT, _STRIPS, _TILES = 322, 323, 273, 324
_TIFF_INTEGERS = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4), 16: ("Q", 8)}


@dataclass(frozen=True)
class Structure:
    """What the head of a file announces.

    Attributes:
        size_wh: px, of a JPEG, PNG, TIFF or BMP; (0, 0) where it was not found.
        streams: it is decoded row by row in one pass, and costs what its pixels do: a BMP, or a JPEG that is
            sequential with all components in one scan.
        first_scan: of any other JPEG the place behind the marker of its first scan, for `check_scans`.
    """

    size_wh: tuple[int, int] = (0, 0)
    streams: bool = False
    first_scan: int | None = None


def check_structure(content: bytes, max_pixels: int) -> Structure:
    """Hold the whole structure of a file against its bounds: `check_head` and `check_scans`."""
    structure = check_head(content)
    check_scans(content, structure, max_pixels)
    return structure


def check_head(content: bytes) -> Structure:
    """Hold the head of a JPEG, PNG, TIFF, HEIC or AVIF against its bounds; other formats and bytes pass. It
    takes less than a millisecond of any file that an encoder wrote, and a few of any other.

    Raises:
        ImageTooCostly: beyond a bound.
        ImageUndecodable: a JPEG with too much between its segments.
    """
    if content[:3] == b"\xff\xd8\xff":
        return _check_jpeg(content)
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return _check_png(content)
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _check_tiff(content)
    if content[4:8] == b"ftyp":
        return _check_heif(content)
    if content[:2] == b"BM":
        return _bmp(content)
    return Structure()


def check_frame(content: bytes, max_pixels: int) -> None:
    """Hold one frame of a Motion JPEG against the bounds of a JPEG; raises as `check_structure`."""
    if content[:3] == b"\xff\xd8\xff":
        check_structure(content, max_pixels)


def _check_jpeg(content: bytes) -> Structure:
    """Hold the segments of a JPEG up to its first scan against their bounds."""
    size_wh, components, sequential = (0, 0), 0, False
    start, junk = 2, 0
    for _ in range(_MAX_SEGMENTS):
        marker = _MARKER.search(content, start, start + _MAX_JUNK)
        if marker is None:
            break
        junk += marker.end() - 2 - start
        if junk > _MAX_JUNK:
            break
        kind, start = marker[1][0], marker.end()
        if kind in _STANDALONE:
            continue
        if kind == _EOI:
            return Structure(size_wh)
        length = int.from_bytes(content[start : start + 2], "big")
        if kind in _FRAMES and start + 8 <= len(content):
            height, width, components = struct.unpack_from(">HHB", content, start + 3)
            size_wh, sequential = (width, height), kind in _SEQUENTIAL
        if kind == _SOS:
            streams = sequential and components > 0 and content[start + 2 : start + 3] == bytes([components])
            return Structure(size_wh, streams, None if streams else start)
        start += max(length, 2)
    else:
        raise ImageTooCostly(
            f"The image has more than {_MAX_SEGMENTS} JPEG segments before its first scan: save it without "
            "metadata.",
            metadata={"limit_segments": str(_MAX_SEGMENTS)},
        )
    if start + 4 <= len(content):
        raise ImageUndecodable("The image's header is broken: send a whole, valid file.")
    return Structure(size_wh)


def check_scans(content: bytes, structure: Structure, max_pixels: int) -> None:
    """Hold the number of a JPEG's scans against its bound. All of the file is looked through: 10 to 100 ms
    for 25 MB.

    Raises:
        ImageTooCostly: beyond it.
    """
    start, size_wh = structure.first_scan, structure.size_wh
    if start is None:
        return
    pixels = max(size_wh[0] * size_wh[1], 1)
    limit = max(min(MAX_SCANS, _MAX_SCANNED * max_pixels // pixels), 1)
    # Within the data of a scan no marker can stand: a count is quick and can only be too high.
    if 1 + content.count(b"\xff\xda", start) <= limit:
        return
    scans = 1
    for step in range(_MAX_SEGMENTS + limit):
        marker = _SCAN_END.search(content, start)
        if marker is None or marker[1][0] == _EOI:
            return
        start = marker.end()
        if marker[1][0] == _SOS:
            scans += 1
        elif marker[1][0] not in _STANDALONE:
            start += int.from_bytes(content[start : start + 2], "big")
        if scans > limit or step == _MAX_SEGMENTS + limit - 1:
            raise ImageTooCostly(
                f"The JPEG of {size_wh[0]}×{size_wh[1]} px has more than {limit} scans: save it as a "
                "baseline JPEG, or scale it down.",
                metadata={"limit_scans": str(limit)},
            )


def _check_png(content: bytes) -> Structure:
    start = 8
    for _ in range(_MAX_CHUNKS):
        if content[start + 4 : start + 8] in (b"IDAT", b""):
            size = struct.unpack_from(">II", content, 16) if len(content) >= 24 else (0, 0)  # IHDR is first
            return Structure(size)
        start += 12 + int.from_bytes(content[start : start + 4], "big")
    raise ImageTooCostly(
        f"The PNG has more than {_MAX_CHUNKS} chunks before its pixels: save it without metadata.",
        metadata={"limit_chunks": str(_MAX_CHUNKS)},
    )


def _check_tiff(content: bytes) -> Structure:
    """The first directory of a TIFF (TIFF 6.0, section 2) or BigTIFF: strips and tiles not much larger or
    more than the image needs."""
    tags, counts = _tiff_directory(content)
    width, height = tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)
    if width < 1 or height < 1:
        return Structure()
    if _TILE_WIDTH in tags and _TILE_HEIGHT in tags:
        part_wh = tags[_TILE_WIDTH], tags[_TILE_HEIGHT]
        part_wh = max(part_wh[0], 1), max(part_wh[1], 1)
        name, given = "tiles", counts.get(_TILES, 0)
    else:
        part_wh = width, min(max(tags.get(_ROWS_PER_STRIP, height), 1), height)
        name, given = "strips", counts.get(_STRIPS, 0)
    pixels = part_wh[0] * part_wh[1]
    if pixels > max(width * height, _SPARE_PIXELS):
        raise ImageTooCostly(
            f"The TIFF of {width}×{height} px is stored in tiles of {part_wh[0]}×{part_wh[1]} px: save it in "
            "tiles no larger than itself, or in strips.",
            metadata={"limit_pixels": str(max(width * height, _SPARE_PIXELS)), "actual_pixels": str(pixels)},
        )
    needed = -(-width // part_wh[0]) * -(-height // part_wh[1])
    if tags.get(_PLANAR) == 2:
        needed *= tags.get(_SAMPLES, 1)
    if given > needed + _SPARE_PARTS:
        raise ImageTooCostly(
            f"The TIFF of {width}×{height} px lists {given} {name}, of which it has {needed}: save it anew.",
            metadata={"limit": str(needed), "actual": str(given)},
        )
    return Structure((width, height))


def _check_heif(content: bytes) -> Structure:
    """The items of a HEIC or AVIF (ISO/IEC 23008-12): a grid has one for each of its tiles, and readers take
    time that grows with the square of their number."""
    start = 0
    for _ in range(_MAX_BOXES):
        size, kind = int.from_bytes(content[start : start + 4], "big"), content[start + 4 : start + 8]
        if kind == b"meta":
            break
        if size < 8:  # up to the end, of 64 bits, or no box
            return Structure()
        start += size
    else:
        return Structure()
    if min(size or len(content), len(content) - start) > _MAX_META_BYTES:
        raise ImageTooCostly(
            f"The image has more than {_MAX_META_BYTES} bytes of metadata before its pixels: save it anew.",
            metadata={"limit_bytes": str(_MAX_META_BYTES)},
        )
    items = content.count(b"infe", start, start + size if size else len(content))
    if items > _MAX_ITEMS:
        raise ImageTooCostly(
            f"The image is made of {items} items, at most {_MAX_ITEMS} are accepted: save it in fewer tiles.",
            metadata={"limit_items": str(_MAX_ITEMS), "actual_items": str(items)},
        )
    return Structure()


def _bmp(content: bytes) -> Structure:
    """Size by the header of a BMP; a negative height says that the rows come from the top."""
    if len(content) < 26:
        return Structure(streams=True)
    if int.from_bytes(content[14:18], "little") == _OLD_BMP:
        width, height = struct.unpack_from("<HH", content, 18)
    else:
        width, height = struct.unpack_from("<ii", content, 18)
    return Structure((abs(width), abs(height)), streams=True)


def _tiff_directory(content: bytes) -> tuple[dict[int, int], dict[int, int]]:
    """First values and numbers of values of the entries of the first directory; as far as it is there."""
    order = "<" if content[:2] == b"II" else ">"
    is_big = content[2:3] == b"+" or content[3:4] == b"+"
    place, number, entry, inline = ("Q", "Q", "HHQ", 8) if is_big else ("I", "H", "HHI", 4)
    values: dict[int, int] = {}
    counts: dict[int, int] = {}
    try:
        (start,) = struct.unpack_from(order + place, content, 8 if is_big else 4)
        (entries,) = struct.unpack_from(order + number, content, start)
        start += struct.calcsize("=" + number)
        if entries > _MAX_ENTRIES:
            raise ImageTooCostly(
                f"The TIFF has {entries} entries in its directory, at most {_MAX_ENTRIES} are accepted: save "
                "it anew.",
                metadata={"limit_entries": str(_MAX_ENTRIES), "actual_entries": str(entries)},
            )
        for _ in range(entries):
            tag, kind, count = struct.unpack_from(order + entry, content, start)
            start += struct.calcsize("=" + entry)
            code, size = _TIFF_INTEGERS.get(kind, ("", 0))
            if code and count:
                where = start
                if size * count > inline:
                    (where,) = struct.unpack_from(order + place, content, start)
                counts[tag] = count
                if where + size <= len(content):
                    (values[tag],) = struct.unpack_from(order + code, content, where)
            start += inline
    except struct.error:  # cut short: for the decoder to say
        pass
    return values, counts
