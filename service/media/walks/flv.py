"""FLV walk: from tag to tag (Adobe Flash Video File Format Specification 10.1, annex E; Enhanced RTMP v2)."""

from __future__ import annotations

from service.media.container_probe import Read
from service.media.walks.walk import Broken, Chunk, ChunkWalk

_HEAD = 11  # bytes of a tag before its content
_BACK = 4  # bytes behind it, which repeat its size
_VIDEO = 9
_KINDS = frozenset((8, _VIDEO, 15, 18))  # sound, video, data in two encodings
_KIND_BITS, _RESERVED_BITS = 0x1F, 0xC0
_INFO_FRAME = 5  # a command to the player
_WITH_HEADERS = (7, 12, 13)  # codecs whose second byte tells frames from headers: H.264, HEVC, AV1
_HEADERS = (0, 2)  # of the decoder; end of the sequence
_ENHANCED, _ENHANCED_FRAMES = 0x80, (1, 3, 6)  # with and without a time of their own, several tracks


class FlvWalk(ChunkWalk):
    """Follows the tags of one FLV."""

    def __init__(self, read: Read) -> None:
        super().__init__(read, max(int.from_bytes(read(9, 0)[5:], "big"), 9) + _BACK)

    def chunk(self, start: int) -> Chunk:
        """The tag that starts there."""
        head = self._read(_HEAD + 2, start)
        if len(head) < _HEAD or head[0] & _RESERVED_BITS:
            raise Broken
        end = start + _HEAD + int.from_bytes(head[1:4], "big") + _BACK
        kind = head[0] & _KIND_BITS
        behind = self._read(_BACK + 1, end - _BACK)
        # FFmpeg, too, takes the size without the head, which some writers repeat.
        repeated = int.from_bytes(behind[:_BACK], "big") - (end - _BACK - start)
        if repeated not in (0, -1, -_HEAD) and (kind not in _KINDS or not _leads_on(behind)):
            raise Broken
        return Chunk(end, kind not in _KINDS or (kind == _VIDEO and _is_frame(head[_HEAD:], end - start)))


def _leads_on(behind: bytes) -> bool:
    """Whether another tag stands behind one that does not repeat its size, as of some recorders."""
    return behind[_BACK : _BACK + 1] == b"" or behind[_BACK] in _KINDS


def _is_frame(content: bytes, length: int) -> bool:
    """Whether a video tag holds a frame.

    Args:
        content: its first two bytes.
        length: of the whole tag.
    """
    if len(content) < 2 or length <= _HEAD + _BACK + 2:
        return False
    if content[0] & _ENHANCED:
        return content[0] & 0x0F in _ENHANCED_FRAMES
    if content[0] >> 4 == _INFO_FRAME:
        return False
    return content[0] & 0x0F not in _WITH_HEADERS or content[1] not in _HEADERS
