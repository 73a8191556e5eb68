"""Container facts from the bytes alone: whether decoding can begin before the whole file is here, whether it
is a still image, and whether a file that states its length is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

Read = Callable[[int, int], bytes]
"""(count, position) to that many bytes, waiting for them; fewer only at the end."""

Streaming = Literal["front to back", "whole file"]

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_TS_SYNC = 0x47
# Length of a packet and place of its sync byte: MPEG-TS, M2TS of cameras and discs, with error correction.
_TS_PACKETS = ((188, 0), (192, 4), (204, 0))
_TS_PROBED = 4  # packets
_GIF_TRAILER, _GIF_IMAGE, _GIF_EXTENSION = 0x3B, 0x2C, 0x21
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_BROADCAST = 1
_HEAD = 4096  # bytes; far more than the heads of the containers that are recognised here
_MAX_BOXES = 4096  # on one level; a file with more is not walked to the end
_PICTURE_BOXES = (b"moov", b"mdat", b"moof")
_BOXES = frozenset(
    (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"uuid", b"pnot", b"meta")
)
_RIFF_UNKNOWN = 0xFFFF_FFFF  # the size that a writer into a pipe leaves; 0 is another
_STILL_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis"), "HEIC"),
    b"avif": "AVIF",
    b"mif1": "HEIF",
}
_PNG_SEARCHED = 1 << 20  # bytes before the pixels of a PNG, where an animation announces itself
_JPEG_SEARCHED = 32 << 20  # bytes that the first of several JPEG images has at most


def streaming(read: Read) -> Streaming:
    """Whether a container can be decoded as it comes: an MP4 or MOV whose index stands in front of the
    frames, Matroska and WebM, MPEG-TS. Reads no further than it has to."""
    head = read(_TS_PROBED * _TS_PACKETS[-1][0], 0)
    if head[:4] == _EBML or _ts_packet(head):
        return "front to back"
    if head[4:8] in _BOXES:
        for kind, _, _ in _boxes(read):
            if kind == b"moov":
                return "front to back"
            if kind == b"mdat":
                return "whole file"
    return "whole file"


def still_image(read: Read, size: int | None) -> str | None:
    """Name of the format if the file is one still image, so that no video decoder should be given it.

    Args:
        read: the bytes.
        size: of the file; None where it is still on its way and can be decoded as it comes.
    """
    head = read(16, 0)
    if head[4:8] == b"ftyp":
        brand = _STILL_BRANDS.get(head[8:12])
        # Sequences and videos with a still for a cover have an index of tracks.
        return brand if brand and not any(kind == b"moov" for kind, _, _ in _boxes(read)) else None
    if size is None:
        return None
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return None if b"acTL" in read(_PNG_SEARCHED, 0) else "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and int.from_bytes(head[2:6], "little") == size:
        return "BMP"
    if head[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    if head[:3] == b"\xff\xd8\xff":
        # A Motion JPEG stream is one image behind the other; so is what phones store beside their photo.
        content = read(min(size, _JPEG_SEARCHED), 0)
        return None if b"\xff\xd9\xff\xd8\xff" in content and b"MPF\0" not in content[:_HEAD] else "JPEG"
    return None


def is_cut_short(read: Read, size: int) -> bool:
    """Whether a file states that it goes on after `size` bytes, in a way that its format makes binding. For a
    file that is here whole; containers that do not know their length, such as a live WebM, are never cut
    short."""
    head = read(_HEAD, 0)
    if head[4:8] in _BOXES:
        # Phones and editors put things of their own behind the last box: only those with images count.
        return any(end > size for kind, _, end in _boxes(read) if kind in _PICTURE_BOXES)
    if head[:4] == _EBML:
        return _segment_end(read, head) > size
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return _movie_end(read, size) > size
    if head[:3] == b"GIF":
        return not _leads_to_gif_trailer(read, size)
    if head.startswith(_ASF):
        return _asf_size(head) > size
    return False


def is_ragged(read: Read, size: int) -> bool:
    """Whether a transport stream ends within a packet."""
    packet = _ts_packet(read(_TS_PROBED * _TS_PACKETS[-1][0], 0))
    return packet > 0 and size % packet > 0


def _ts_packet(head: bytes) -> int:
    """Length of the packets of a transport stream; 0 where it is none."""
    for length, sync in _TS_PACKETS:
        places = range(sync, min(len(head), _TS_PROBED * length), length)
        if len(places) >= 2 and all(head[place] == _TS_SYNC for place in places):
            return length
    return 0


def _movie_end(read: Read, size: int) -> int:
    """Where the list of frames of an AVI ends by its own statement; 0 where it gives none. What stands behind
    it, an index, is not needed."""
    start = 12
    while start + 12 <= size:
        head = read(12, start)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] == b"LIST" and head[8:12] == b"movi":
            return 0 if length in (0, _RIFF_UNKNOWN) else start + 8 + length
        start += 8 + length + length % 2
    return 0


def _leads_to_gif_trailer(read: Read, size: int) -> bool:
    """Whether the blocks of a GIF lead to its trailer (GIF89a, appendix B), or to the end of the file right
    behind an image, where nothing but the trailer is missing. Bytes behind the trailer do not count."""
    content = _Window(read, size)
    last = 0
    start = 13 + _colors(content.byte(10))
    while (kind := content.byte(start)) is not None:
        if kind == _GIF_TRAILER:
            return True
        if kind == _GIF_EXTENSION:
            start += 2
        elif kind == _GIF_IMAGE:
            start += 11 + _colors(content.byte(start + 9))
        else:
            return False
        while length := content.byte(start):  # sub-blocks, up to an empty one
            start += 1 + length
        if length is None:
            return False
        start += 1
        last = kind
    return start == size and last == _GIF_IMAGE


def _colors(flags: int | None) -> int:
    """Bytes of the colour table that the flags of a GIF announce."""
    return 3 << ((flags & 7) + 1) if flags is not None and flags & 0x80 else 0


class _Window:
    """Single bytes of a file, which is read in pieces."""

    def __init__(self, read: Read, size: int) -> None:
        self._read, self._size = read, size
        self._start, self._content = 0, b""

    def byte(self, position: int) -> int | None:
        """The byte at a position; None behind the end."""
        if position >= self._size:
            return None
        if not self._start <= position < self._start + len(self._content):
            self._start, self._content = position, self._read(1 << 20, position)
        return self._content[position - self._start] if self._content else None


def _asf_size(head: bytes) -> int:
    """The length that an ASF file states; 0 where it states none, as a broadcast (specification, 3.2)."""
    start = head.find(_ASF_PROPERTIES)
    if start < 0 or len(head) < start + 92 or head[start + 88] & _ASF_BROADCAST:
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
    """Where a Matroska file ends by its own statement; 0 where it gives none (RFC 8794, RFC 9559)."""
    header = ebml_size(head[4:])
    if header is None or header[1] is None:
        return 0
    start = 4 + header[0] + header[1]
    segment = read(12, start)
    if segment[:4] != _SEGMENT:
        return 0
    length = ebml_size(segment[4:])
    if length is None or length[1] is None:
        return 0
    return start + 4 + length[0] + length[1]


def ebml_size(content: bytes) -> tuple[int, int | None] | None:
    """An EBML size: its own length, and its value or None for "unknown"; None where there is none."""
    if not content or not content[0]:
        return None
    length = 9 - content[0].bit_length()
    if len(content) < length:
        return None
    value = int.from_bytes(content[:length], "big") & ((1 << (7 * length)) - 1)
    return length, None if value == (1 << (7 * length)) - 1 else value
