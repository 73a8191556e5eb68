"""Ogg walk: from page to page, each with its checksum and its number (RFC 3533)."""

from __future__ import annotations

import zlib

from service.media.container_probe import Read
from service.media.walks.walk import Broken, Chunk, ChunkWalk

_HEAD = 27  # bytes of a page before its table of segments
_BEGIN, _END = 2, 4  # flags of the first page of a stream, and of the last
_CHECKSUM = slice(22, 26)
# Ogg's CRC is that of zlib with the bits of every byte, and of the result, in the other order.
_MIRRORED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_ONES = 0xFFFF_FFFF


class OggWalk(ChunkWalk):
    """Follows the pages of one Ogg."""

    def __init__(self, read: Read) -> None:
        super().__init__(read, 0)
        self._next: dict[bytes, int] = {}  # number of the next page, by stream
        self._ends: dict[bytes, int] = {}  # of streams whose last page was passed

    def chunk(self, start: int) -> Chunk:
        """The page that starts there."""
        head = self._read(_HEAD + 255, start)
        if len(head) < _HEAD or head[:5] != b"OggS\0":
            raise Broken
        count = head[_HEAD - 1]
        length = _HEAD + count + sum(head[_HEAD : _HEAD + count])
        page = self._read(length, start)
        if len(page) < length or checksum(page) != int.from_bytes(page[_CHECKSUM], "little"):
            raise Broken
        stream, number = page[14:18], int.from_bytes(page[18:22], "little")
        self._is_missing |= not page[5] & _BEGIN and number != self._next.get(stream, number)
        self._next[stream] = (number + 1) & _ONES
        if page[5] & _END:
            self._ends[stream] = start + length
        return Chunk(start + length)

    def end(self) -> int | None:
        """End of the track, by the flag of its last page."""
        return self._ends.get(self._read(18, self._last)[14:]) if self._last >= 0 else None


def checksum(page: bytes) -> int:
    """CRC of a page; the checksum in it counts as zero."""
    mirrored = (page[: _CHECKSUM.start] + bytes(4) + page[_CHECKSUM.stop :]).translate(_MIRRORED)
    mirrored_crc = zlib.crc32(mirrored, _ONES) ^ _ONES  # zlib begins and ends with all bits set
    return int.from_bytes(mirrored_crc.to_bytes(4, "little").translate(_MIRRORED), "big")
