"""AVI walk: from chunk to chunk of the lists of frames (RIFF; OpenDML AVI File Format Extensions 1.02)."""

from __future__ import annotations

from collections.abc import Container

from service.media.container_probe import Read
from service.media.walks.walk import Broken, Chunk, ChunkWalk

AVI_HEAD = 8
"""Bytes of a chunk before its content, whose start is what FFmpeg states of a packet."""
_LISTS = (b"RIFF", b"LIST")
_LIST_HEAD = 12
_MOVIE, _RECORD = b"movi", b"rec "
_FORMS = (b"AVI ", b"AVIX")
_UNKNOWN = (0, 0xFFFF_FFFF)  # sizes that a writer into a pipe leaves
_NO_FRAMES = frozenset((b"JUNK", b"idx1", b"indx"))
_KINDS = frozenset((b"dc", b"db", b"wb", b"pc", b"tx", b"sb", b"iv", b"id", b"__"))


class AviWalk(ChunkWalk):
    """Follows the chunks of one AVI.

    Args:
        read: the bytes; waits for them.
        streams: number of tracks.
        indexed: where the index says that chunks of the track start.
    """

    def __init__(self, read: Read, streams: int, indexed: Container[int]) -> None:
        super().__init__(read, 0, AVI_HEAD)
        self._streams = streams
        self._indexed = indexed
        self._track = b""  # of the chunks of the track
        self._in_movie = False
        self._end: int | None = None  # of the list of frames

    def chunk(self, start: int) -> Chunk:
        """The chunk that starts there; a list counts as its head only."""
        head = self._read(_LIST_HEAD, start)
        if len(head) < AVI_HEAD:
            raise Broken
        kind, size = head[:4], int.from_bytes(head[4:AVI_HEAD], "little")
        if kind in _LISTS and len(head) == _LIST_HEAD:
            return self._list(start, size, head[AVI_HEAD:])
        end = start + AVI_HEAD + size + size % 2
        if not self._in_movie:
            if not kind.isascii():
                raise Broken
            return Chunk(end)
        if start in self._indexed:
            return Chunk(end, size > 0)
        if kind in _NO_FRAMES or kind[:2] == b"ix" or kind[2:] == b"ix":
            return Chunk(end)
        if kind[:2].isdigit() and int(kind[:2]) < self._streams and kind[2:] in _KINDS:
            return Chunk(end, size > 0 and kind == self._track)
        raise Broken

    def reach(self, position: int) -> bool:
        """Go on to a packet; see `Walk`."""
        whole = super().reach(position)
        if not self._track:
            self._in_movie = True
            self._track = self._read(4, position - AVI_HEAD)
        return whole

    def end(self) -> int | None:
        """End of the list of frames, where it states its length."""
        return self._end

    def _list(self, start: int, size: int, kind: bytes) -> Chunk:
        """Enter a list of frames; pass over any other."""
        if kind == _MOVIE:
            self._in_movie = True
            self._end = None if size in _UNKNOWN else start + AVI_HEAD + size
        elif kind != _RECORD and kind not in _FORMS:
            return Chunk(start + AVI_HEAD + size + size % 2)
        return Chunk(start + _LIST_HEAD)
