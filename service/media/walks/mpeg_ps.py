"""MPEG program stream walk: from packet to packet (ISO/IEC 11172-1 and 13818-1)."""

from __future__ import annotations

from service.media.container_probe import Read
from service.media.walks.walk import Broken, Chunk, ChunkWalk

_PREFIX = b"\0\0\1"
_END, _PACK, _FIRST = 0xB9, 0xBA, 0xBB  # from the last on, all codes have a length
_PACK_BYTES = 14  # of MPEG-2, before its stuffing
_PACK_BYTES_1 = 12  # of MPEG-1
_PADDING = 1 << 16  # bytes that are looked at at a time


class ProgramStreamWalk(ChunkWalk):
    """Follows the packs and packets of one program stream."""

    def __init__(self, read: Read) -> None:
        super().__init__(read, 0)

    def chunk(self, start: int) -> Chunk:
        """The pack header, packet or padding that starts there."""
        head = self._read(_PACK_BYTES, start)
        if not any(head[:3]):
            return self._padding(start)
        if head[:3] != _PREFIX or len(head) < 4:
            raise Broken
        code = head[3]
        if code == _END:
            return Chunk(start + 4)
        if code == _PACK and len(head) == _PACK_BYTES:
            is_new = head[4] & 0xC0 == 0x40
            return Chunk(start + (_PACK_BYTES + (head[13] & 7) if is_new else _PACK_BYTES_1))
        if code < _FIRST or len(head) < 6:
            raise Broken
        return Chunk(start + 6 + int.from_bytes(head[4:6], "big"))

    def _padding(self, start: int) -> Chunk:
        """Zeros, up to the two before the next code."""
        content = self._read(_PADDING, start)
        zeros = len(content) - len(content.lstrip(b"\0"))
        return Chunk(start + (zeros if zeros == len(content) else zeros - 2))
