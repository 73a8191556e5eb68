"""Matroska walk: whether the elements of a file lead from one block to the next.

FFmpeg passes over damaged elements, up to the next cluster or the end of the file, without a word. This walk
follows the elements (RFC 8794, RFC 9559) beside it, and so finds what was passed over.
"""

from __future__ import annotations

from service.media.container_probe import Read, ebml_size
from service.media.walks.walk import JUNK, Broken, Rest, find

_HEADER, _SEGMENT, _CLUSTER, _TRACKS = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1654AE6B
_SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK = 0xA3, 0xA0, 0xA1
_TRACK_ENTRY, _TRACK_NUMBER = 0xAE, 0xD7
_VOID, _CRC = 0xEC, 0xBF
# Seek head, info, tracks, cues, attachments, chapters, tags.
_OF_SEGMENT = frozenset(
    (0x114D9B74, 0x1549A966, _TRACKS, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, _VOID, _CRC)
)
# Time stamp, size of the cluster before, position, silent tracks, encrypted block.
_OF_CLUSTER = frozenset((_SIMPLE_BLOCK, _BLOCK_GROUP, 0xE7, 0xAB, 0xA7, 0x5854, 0xAF, _VOID, _CRC))
_CLUSTER_BYTES = _CLUSTER.to_bytes(4, "big")
_HEAD = 12  # bytes of an identifier and a size, at most


class MatroskaWalk:
    """Follows the elements of one file, from front to back.

    Args:
        read: the bytes; waits for them.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._at = 0  # next element
        self._segment_end: int | None = None  # None: the file does not say
        self._cluster_end: int | None = None
        self._in_cluster = False
        self._tracks: frozenset[int] = frozenset()
        self._block = -1  # start of the content of the last block
        self._is_lost = False
        self._rest: Rest | None = None

    def reach(self, block: int) -> bool:
        """Go on to a block. False where bytes were passed over, or a block of an unknown track.

        Args:
            block: where its content starts.
        """
        whole = True
        while self._block < block:
            try:
                whole = self._step(None) and whole
            except Broken:
                whole = whole and self._is_lost  # once for one place
                self._is_lost = not self._find_cluster(block)
                if self._is_lost:
                    self._at = self._block = block
        return whole

    def jump(self) -> None:
        """The next packet is another one: the elements lead there all the same."""

    def rest(self, size: int) -> Rest:
        """What stands behind the last block: nothing of the track, an incomplete or foreign block, or what
        cannot be read.

        Args:
            size: of the file.
        """
        if self._rest is None:
            self._rest = self._walk_on(size)
        return self._rest

    def _walk_on(self, size: int) -> Rest:
        whole = True
        while self._at < size:
            start = self._at
            try:
                whole = self._step(size) and whole
            except Broken:
                if self._segment_end is not None and start >= self._segment_end:
                    break  # behind the end
                states_length = self._segment_end is not None or (
                    self._in_cluster and self._cluster_end is not None
                )
                return "lost" if states_length or size - start > JUNK else "ragged"
        return "whole" if whole and self._at <= size else "ragged"

    def _step(self, size: int | None) -> bool:
        """Pass over the next element or enter it; False for a block of an unknown track."""
        if self._in_cluster and self._cluster_end is not None and self._at >= self._cluster_end:
            self._in_cluster = False
        kind, start, length = self._element(self._at)
        if kind in (_SEGMENT, _CLUSTER):
            self._enter(kind, start, None if length is None else start + length)
            return True
        if length is None or not self._belongs(kind):
            raise Broken
        end = start + length
        parent_end = self._cluster_end if self._in_cluster else self._segment_end
        if parent_end is not None and kind != _HEADER and end > parent_end:
            raise Broken
        known = True
        if kind == _TRACKS:
            self._tracks = frozenset(self._numbers(start, end))
        elif kind in (_SIMPLE_BLOCK, _BLOCK_GROUP) and (size is None or end <= size):
            self._block = start if kind == _SIMPLE_BLOCK else self._in_group(start, end)
            known = not self._tracks or self._track(self._block) in self._tracks
        self._at = end
        return known

    def _belongs(self, kind: int) -> bool:
        """Whether an element may stand here; one of the segment ends a cluster that states no length."""
        if self._in_cluster and kind in _OF_CLUSTER:
            return True
        if kind == _HEADER:
            return self._at == 0 or self._at == self._segment_end
        if kind in _OF_SEGMENT and (not self._in_cluster or self._cluster_end is None):
            self._in_cluster = False
            return self._segment_end is None or self._at < self._segment_end
        return False

    def _enter(self, kind: int, start: int, end: int | None) -> None:
        if kind == _SEGMENT:
            self._segment_end, self._in_cluster = end, False
        else:
            self._cluster_end, self._in_cluster = end, True
        self._at = start

    def _find_cluster(self, before: int) -> bool:
        """Go to the next cluster, as FFmpeg does."""
        place = find(self._read, _CLUSTER_BYTES, self._at + 1, before)
        if place is None:
            return False
        self._at, self._in_cluster = place, False
        return True

    def _element(self, at: int) -> tuple[int, int, int | None]:
        """Identifier, start and length of the content; length None for "unknown"."""
        head = self._read(_HEAD, at)
        count = 9 - head[0].bit_length() if head else 9
        size = ebml_size(head[count:]) if count <= 4 else None
        if size is None:
            raise Broken
        return int.from_bytes(head[:count], "big"), at + count + size[0], size[1]

    def _children(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Identifier, start and end of the elements within another one."""
        children = []
        while start < end:
            kind, content, length = self._element(start)
            if length is None or content + length > end:
                raise Broken
            children.append((kind, content, content + length))
            start = content + length
        return children

    def _in_group(self, start: int, end: int) -> int:
        """Where the content of the block of a group starts."""
        blocks = [content for kind, content, _ in self._children(start, end) if kind == _BLOCK]
        if not blocks:
            raise Broken
        return blocks[0]

    def _numbers(self, start: int, end: int) -> list[int]:
        """Of the tracks."""
        entries = [part for part in self._children(start, end) if part[0] == _TRACK_ENTRY]
        return [
            int.from_bytes(self._read(end - start, start), "big")
            for _, *entry in entries
            for kind, start, end in self._children(*entry)
            if kind == _TRACK_NUMBER
        ]

    def _track(self, block: int) -> int | None:
        size = ebml_size(self._read(8, block))
        return None if size is None else size[1]
