"""Fragment walk: whether the media data of a fragmented MP4 are described, and what is described was given
(ISO/IEC 14496-12, 8.8)."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator
from typing import NamedTuple

from service.media.container_probe import Read
from service.media.walks.walk import Broken, Rest, find

_HEAD, _LONG_HEAD = 8, 16  # bytes of a box before its content
_MAX_MOOF = 16 << 20  # bytes; far more than any file has
_MAX_ALIKE = 1 << 20  # samples of one fragment that state no length
_PADDING = 1 << 20  # bytes of padding that are looked at
_MOOF, _MOOV, _MDAT = b"moof", b"moov", b"mdat"
_SIZE_TABLES = (b"stsz", b"stz2")
# Flags of a track fragment (tfhd): fields that are there, and where its data offsets count from.
_BASE_OFFSET, _DESCRIPTION, _DURATION, _SIZE, _FLAGS = 0x1, 0x2, 0x8, 0x10, 0x20
_FROM_MOOF = 0x20000
# Flags of a run of samples (trun); the fields of every sample have four bytes each.
_RUN_OFFSET, _FIRST_FLAGS = 0x1, 0x4
_SAMPLE_FIELDS, _SAMPLE_SIZE = (0x100, 0x200, 0x400, 0x800), 0x200


class _Box(NamedTuple):
    kind: bytes
    start: int  # of the content
    end: int


class _Content(NamedTuple):
    """Bytes of the file, and where they stand in it."""

    data: bytes
    start: int

    def number(self, at: int, length: int = 4) -> int:
        return int.from_bytes(self.data[at : at + length], "big")

    def boxes(self, at: int, end: int) -> Iterator[_Box]:
        """The boxes within another one, in places of the data."""
        while at < end:
            size, kind = self.number(at), self.data[at + 4 : at + _HEAD]
            if size < _HEAD or at + size > end or not _is_kind(kind):
                raise Broken
            yield _Box(kind, at + _HEAD, at + size)
            at += size


class FragmentWalk:
    """Follows the boxes of one MP4 or MOV on the first level. In one without fragments nothing is missed: its
    index says where all frames lie.

    Args:
        read: the bytes; waits for them.
        track: identifier of the track.
    """

    def __init__(self, read: Read, track: int) -> None:
        self._read = read
        self._track = track
        self._at = 0  # next box
        self._is_lost = False  # there is none that can be read
        self._sizes: dict[int, int] = {}  # of samples that state none, by track; empty without fragments
        self._has_index = True  # the media data before the first fragment are described by an index
        self._expected: deque[int] = deque()  # positions of the fragment's samples that were not given yet
        self._places: set[int] = set()  # the same ones
        self._is_understood = False  # at least one was since the last jump, so that they are read aright
        self._described = 0  # bytes of samples whose media data did not come yet
        self._undescribed = 0  # bytes of media data that the next fragment has to describe
        self._rest: Rest | None = None

    def reach(self, position: int) -> bool:
        """Go on to a packet; see `Walk`."""
        whole = self._go(position)
        if position in self._places:
            while (given := self._expected.popleft()) != position:
                self._places.discard(given)
                whole = whole and not self._is_understood
            self._places.discard(position)
            self._is_understood = True
        return whole

    def jump(self) -> None:
        """The next packet is another one; see `Walk`."""
        self._is_understood = False

    def rest(self, size: int) -> Rest:
        """What stands behind the last packet; see `Walk`."""
        if self._rest is None:
            self._rest = self._walk_on(size)
        return self._rest

    def _go(self, position: int) -> bool:
        whole = True
        while self._is_lost or self._at <= position:
            try:
                if self._is_lost:
                    place = self._find(_MOOF, position)
                    if place is None:
                        self._at = max(self._at, position - _HEAD)
                        return whole
                    self._at, self._is_lost = place, False
                whole = self._step() and whole
            except Broken:
                whole = False
                self._is_lost = True
                self._at += 1
        return whole

    def _walk_on(self, size: int) -> Rest:
        whole = True
        while self._at < size and not self._is_lost:
            try:
                box = self._box(self._at)
                if box.end > size and box.kind in (_MOOF, _MDAT):
                    return "lost"
                whole = self._step() and whole
            except Broken:
                self._is_lost = True
        # What phones and editors put behind the last box is no loss.
        if (
            self._is_lost
            and self._sizes
            and any(self._find(kind, size) is not None for kind in (_MOOF, _MDAT))
        ):
            return "lost"
        return "whole" if whole and self._is_given() and not self._undescribed else "ragged"

    def _step(self) -> bool:
        """Pass over the next box; False at a fragment before which undescribed media data stand."""
        box = self._box(self._at)
        whole = True
        if box.kind == _MOOV:
            self._read_index(box)
        elif box.kind == _MOOF and self._sizes:
            self._has_index = False
            whole = self._is_given()
            self._read_fragment(self._content(box))
            whole = whole and not self._undescribed
            self._undescribed = 0
        elif box.kind == _MDAT and self._sizes and not self._has_index:
            self._describe(box)
        self._at = box.end
        return whole

    def _is_given(self) -> bool:
        """Whether all samples of the fragment so far were given."""
        return not (self._is_understood and self._expected)

    def _describe(self, box: _Box) -> None:
        """Tell which of the media data the fragments so far describe. Some recorders write a fragment behind
        its data."""
        length = box.end - box.start
        rest = length - self._described
        self._described = max(-rest, 0)
        # Padding is no loss.
        if rest > 0 and (rest == length or any(self._read(min(rest, _PADDING), box.end - rest))):
            self._undescribed += rest

    def _box(self, at: int) -> _Box:
        head = self._read(_LONG_HEAD, at)
        size, kind = int.from_bytes(head[:4], "big"), head[4:_HEAD]
        start = at + _HEAD
        if size == 1:
            size, start = int.from_bytes(head[_HEAD:], "big"), at + _LONG_HEAD
        if not _is_kind(kind):
            raise Broken
        if size == 0:  # to the end of the file
            return _Box(kind, start, 1 << 62)
        if at + size < start:
            raise Broken
        return _Box(kind, start, at + size)

    def _content(self, box: _Box) -> _Content:
        if box.end - box.start > _MAX_MOOF:
            raise Broken
        content = _Content(self._read(box.end - box.start, box.start), box.start)
        if len(content.data) < box.end - box.start:
            raise Broken
        return content

    def _find(self, kind: bytes, before: int) -> int | None:
        """Where the next box of a kind starts; it need not be one."""
        place = find(self._read, kind, self._at + 4, before + _HEAD)
        return None if place is None else place - 4

    def _read_index(self, moov: _Box) -> None:
        """Take what fragments rely on out of the index."""
        self._has_index = False
        for box in self._within(moov, (b"mvex", b"trak", b"mdia", b"minf", b"stbl")):
            content = _Content(self._read(24, box.start), box.start)
            if box.kind == b"trex":
                self._sizes[content.number(4)] = content.number(16)
            elif box.kind in _SIZE_TABLES:
                self._has_index = self._has_index or content.number(8) > 0

    def _within(self, parent: _Box, entered: Container[bytes]) -> Iterator[_Box]:
        """The boxes in one, and in those of some kinds that are in it."""
        at = parent.start
        while at < parent.end:
            box = self._box(at)
            if box.end > parent.end:
                raise Broken
            yield box
            at = box.start if box.kind in entered else box.end

    def _read_fragment(self, moof: _Content) -> None:
        """Enter the samples of a fragment."""
        behind = begin = moof.start - _HEAD
        described = before = 0  # bytes of samples behind the fragment, and in front of it
        count = 0
        expected: list[int] = []
        for kind, start, end in moof.boxes(0, len(moof.data)):
            if kind != b"traf":
                continue
            header, *parts = moof.boxes(start, end) if start < end else [_Box(b"", start, end)]
            flags = moof.number(header.start) & 0xFFFFFF
            track, at = moof.number(header.start + 4), header.start + 8
            if header.kind != b"tfhd" or track not in self._sizes:
                raise Broken
            base = begin if flags & _FROM_MOOF else behind
            if flags & _BASE_OFFSET:
                base, at = moof.number(at, 8), at + 8
            at += 4 * bool(flags & _DESCRIPTION) + 4 * bool(flags & _DURATION)
            size = moof.number(at) if flags & _SIZE else self._sizes[track]
            at += 4 * bool(flags & _SIZE) + 4 * bool(flags & _FLAGS)
            if at != header.end:
                raise Broken
            behind = base
            for part in parts:
                if part.kind == b"trun":
                    run = _Run.read(moof, part, size)
                    count += len(run.lengths)
                    if count > _MAX_ALIKE + len(moof.data):
                        raise Broken
                    behind = behind if run.offset is None else base + run.offset
                    for length in run.lengths:
                        if track == self._track and length:
                            expected.append(behind)
                        described += length if behind >= begin else 0
                        before += length if behind < begin else 0
                        behind += length
        self._described += described
        self._undescribed = max(self._undescribed - before, 0)
        self._expected = deque(expected)
        self._places = set(expected)


class _Run(NamedTuple):
    """A run of samples.

    Attributes:
        offset: of the first one from the base of its fragment; None: right behind the run before.
        lengths: bytes of each sample.
    """

    offset: int | None
    lengths: list[int]

    @classmethod
    def read(cls, moof: _Content, box: _Box, default: int) -> _Run:
        """Read a trun box; `default` is the length of samples that do not state one."""
        flags, count, at = moof.number(box.start) & 0xFFFFFF, moof.number(box.start + 4), box.start + 8
        offset = None
        if flags & _RUN_OFFSET:
            offset, at = int.from_bytes(moof.data[at : at + 4], "big", signed=True), at + 4
        at += 4 * bool(flags & _FIRST_FLAGS)
        step = 4 * sum(bool(flags & field) for field in _SAMPLE_FIELDS)
        if at + count * step != box.end or (not step and count > _MAX_ALIKE):
            raise Broken
        if not flags & _SAMPLE_SIZE:
            return cls(offset, [default] * count)
        at += 4 * bool(flags & _SAMPLE_FIELDS[0])
        return cls(offset, [moof.number(at + step * place) for place in range(count)])


def _is_kind(kind: bytes) -> bool:
    """Whether four bytes can be the kind of a box: printable, or one of QuickTime's."""
    return len(kind) == 4 and all(0x20 <= one <= 0x7E or one == 0xA9 for one in kind)
