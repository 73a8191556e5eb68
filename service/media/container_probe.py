"""What the first bytes of a video say: whether decoding can begin before the rest is here, and whether
a file that claims a length has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

Read = Callable[[int, int], bytes]
"""(count, position) to that many bytes, waiting for them; fewer only at the end."""

Streaming = Literal["front to back", "whole file"]

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_TS_PACKET, _TS_SYNC = 188, 0x47
_GIF_TRAILER = b";"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_HEAD = 4096  # bytes; far more than the heads of the containers that are told apart here
_MAX_BOXES = 4096  # on one level; a file with more is not walked to the end
_PICTURE_BOXES = (b"moov", b"mdat", b"moof")
_BOXES = frozenset((b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"uuid", b"pnot"))


def streaming(read: Read) -> Streaming:
    """Whether a container can be decoded as it comes: an MP4 or MOV whose index stands in front of the
    pictures, Matroska and WebM, MPEG-TS. Reads no further than it has to."""
    head = read(4 * _TS_PACKET, 0)
    if head[:4] == _EBML or _is_transport_stream(head):
        return "front to back"
    if head[4:8] in _BOXES:
        for kind, _, _ in _boxes(read):
            if kind == b"moov":
                return "front to back"
            if kind == b"mdat":
                return "whole file"
    return "whole file"


def is_cut_short(read: Read, size: int) -> bool:
    """Whether a file says of itself that it goes on after `size` bytes. For a file that is here whole;
    containers that do not know their length, such as a live WebM, are never cut short."""
    head = read(_HEAD, 0)
    if head[4:8] in _BOXES:
        # Phones and editors put things of their own behind the last box: only those with pictures count.
        return any(end > size for kind, _, end in _boxes(read) if kind in _PICTURE_BOXES)
    if head[:4] == _EBML:
        return _segment_end(read, head) > size
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return int.from_bytes(head[4:8], "little") + 8 > size
    if head[:3] == b"GIF":
        tail = read(_HEAD, max(size - _HEAD, 0))
        return not tail.rstrip(b"\0").endswith(_GIF_TRAILER)
    if head.startswith(_ASF):
        return _asf_size(head) > size
    return _is_transport_stream(head) and size % _TS_PACKET > 0


def _is_transport_stream(head: bytes) -> bool:
    if len(head) < 2 * _TS_PACKET:
        return False
    return all(head[start] == _TS_SYNC for start in range(0, min(len(head), 4 * _TS_PACKET), _TS_PACKET))


def _asf_size(head: bytes) -> int:
    """The length that an ASF file gives itself; 0 where it gives none (ASF specification, 3.2)."""
    start = head.find(_ASF_PROPERTIES)
    if start < 0 or len(head) < start + 48:
        return 0
    return int.from_bytes(head[start + 40 : start + 48], "little")


def _boxes(read: Read) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the boxes of an MP4 on the first level (ISO/IEC 14496-12, 4.2)."""
    start = 0
    for _ in range(_MAX_BOXES):
        head = read(16, start)
        if len(head) < 8:
            return
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        if length == 0:  # to the end of the file, however long it is
            yield kind, start, start
            return
        if length < 8:
            return
        yield kind, start, start + length
        start += length


def _segment_end(read: Read, head: bytes) -> int:
    """Where a Matroska file ends by its own words; 0 where it does not say (RFC 8794, RFC 9559)."""
    header = _size(head[4:])
    if header is None or header[1] is None:
        return 0
    start = 4 + header[0] + header[1]
    segment = read(12, start)
    if segment[:4] != _SEGMENT:
        return 0
    length = _size(segment[4:])
    if length is None or length[1] is None:
        return 0
    return start + 4 + length[0] + length[1]


def _size(content: bytes) -> tuple[int, int | None] | None:
    """An EBML size: its own length, and its value or None for "unknown"; None where there is none."""
    if not content or not content[0]:
        return None
    length = 9 - content[0].bit_length()
    if len(content) < length:
        return None
    value = int.from_bytes(content[:length], "big") & ((1 << (7 * length)) - 1)
    return length, None if value == (1 << (7 * length)) - 1 else value
