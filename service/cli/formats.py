"""Image or video, by the first bytes: a file given to the wrong command is refused before it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_HEAD = 4 * 188 + 4  # bytes; four packets of a transport stream, with the time code of M2TS in front
_STILLS = (b"heic", b"heix", b"mif1", b"avif")  # brands of HEIF and AVIF that hold one image


def kind_of(file: Path) -> Literal["image", "video"] | None:
    """What a file is; None where the first bytes do not say.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
    return kind_of_bytes(head)


def kind_of_bytes(head: bytes) -> Literal["image", "video"] | None:
    """The same of the first bytes of a file."""
    if head[:3] == b"\xff\xd8\xff" or head[:8] == b"\x89PNG\r\n\x1a\n" or head[:4] in (b"II*\0", b"MM\0*"):
        return "image"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "image"
    if head[:4] == b"RIFF":
        return {b"WEBP": "image", b"AVI ": "video"}.get(head[8:12])  # type: ignore[return-value]
    if head[4:8] == b"ftyp":
        return "image" if head[8:12] in _STILLS else "video"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"styp", b"pnot"):
        return "video"
    if head[:4] in (b"\x1a\x45\xdf\xa3", b"OggS", b"FLV\x01", b"\0\0\x01\xba", b"GIF8", b"\x30\x26\xb2\x75"):
        return "video"  # Matroska, Ogg, FLV, MPEG program stream, GIF, ASF
    for packet, start in ((188, 0), (192, 4)):  # MPEG-TS, M2TS
        if len(head) >= start + 3 * packet and {head[start + n * packet] for n in range(3)} == {0x47}:
            return "video"
    return None
