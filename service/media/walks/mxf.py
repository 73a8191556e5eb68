"""MXF walk: from one key with its length and value to the next (SMPTE ST 377-1 and 379-2)."""

from __future__ import annotations

from service.media.container_probe import Read
from service.media.walks.walk import Broken, Chunk, ChunkWalk

_KEY = 16  # bytes
_PREFIX = b"\x06\x0e\x2b\x34"
_PARTITION = _PREFIX + bytes.fromhex("020501010d01020101")
_MOST_RUN_IN = 1 << 16  # bytes before the first partition
_ESSENCE = b"\x0d\x01\x03\x01"
_VIDEO = (0x05, 0x15)  # items that hold pictures


class MxfWalk(ChunkWalk):
    """Follows the elements of one MXF. One element may hold a frame or a whole track."""

    holds_many = True

    def __init__(self, read: Read) -> None:
        super().__init__(read, max(read(_MOST_RUN_IN + _KEY, 0).find(_PARTITION), 0))

    def chunk(self, start: int) -> Chunk:
        """The element that starts there."""
        head = self._read(_KEY + 9, start)
        key = head[:_KEY]
        if not key.startswith(_PREFIX) or len(head) <= _KEY:
            raise Broken
        length, count = head[_KEY], 1
        if length & 0x80:
            count += length & 0x7F
            if not 1 < count <= 9 or len(head) < _KEY + count:
                raise Broken
            length = int.from_bytes(head[_KEY + 1 : _KEY + count], "big")
        return Chunk(
            start + _KEY + count + length, key[8:12] == _ESSENCE and key[12] in _VIDEO and length > 0
        )
