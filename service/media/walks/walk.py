"""What every walk answers, and the walk of formats that are one row of chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Protocol

from service.media.container_probe import Read

_SEARCHED = 1 << 20  # bytes at a time

JUNK = 1024  # bytes behind the last frame that are no loss in a file that does not state its length

Rest = Literal["whole", "ragged", "lost"]


class Walk(Protocol):
    """Follows the elements of one file, from front to back."""

    def reach(self, position: int) -> bool:
        """Go on to a packet. False where bytes were passed over on the way that may have held frames.

        Args:
            position: of the packet, as FFmpeg states it.
        """

    def jump(self) -> None:
        """The next packet is another one than that behind the last."""

    def rest(self, size: int) -> Rest:
        """What stands behind the last packet: nothing of the track, an incomplete or foreign element, or what
        cannot be read.

        Args:
            size: of the file.
        """


def find(read: Read, pattern: bytes, start: int, end: int) -> int | None:
    """Where a pattern first stands, from `start` on and wholly before `end`; None where it does not."""
    while start < end:
        place = read(min(_SEARCHED, end - start), start).find(pattern)
        if place >= 0:
            return start + place
        start += _SEARCHED - len(pattern) + 1
    return None


class Broken(Exception):
    """Here stands nothing that may stand here."""


@dataclass(frozen=True)
class Chunk:
    """One element.

    Attributes:
        end: where the next one starts.
        has_frame: it holds a frame of the track, or something unknown that may have been one.
    """

    end: int
    has_frame: bool = False


class ChunkWalk(ABC):
    """Walk of a format whose elements follow one another, each with its length.

    Behind an element that cannot be read it goes on at the next packet that FFmpeg finds.

    Args:
        read: the bytes; waits for them.
        start: of the first chunk.
        head: bytes of a chunk before the position that FFmpeg states.
    """

    holds_many = False
    """Whether packets may lie within a chunk, behind its start."""

    def __init__(self, read: Read, start: int, head: int = 0) -> None:
        self._read = read
        self._at: int | None = start  # next chunk; None behind one that cannot be read
        self._head = head
        self._last = -1  # chunk of the last packet
        self._is_missing = False  # something before the chunks since the last packet, by what they say
        self._rest: Rest | None = None

    @abstractmethod
    def chunk(self, start: int) -> Chunk:
        """The chunk that starts there, or Broken. An end of the file within its head is Broken, too."""

    def end(self) -> int | None:
        """Where the frames end by the file's own statement; None where it gives none."""
        return None

    def reach(self, position: int) -> bool:
        """Go on to a packet; see `Walk`."""
        start = position - self._head
        if start <= self._last:  # of the same chunk
            return True
        if self.holds_many and self._at is not None and self._last >= 0 and start < self._at:
            return True
        whole = self._go(start) and not self._is_missing
        self._is_missing = False
        self._last = start
        if self.holds_many and self._at is not None and self._at > start:
            return whole
        try:
            self._at = self.chunk(start).end
        except Broken:
            whole, self._at = False, None
        whole = whole and not self._is_missing
        self._is_missing = False
        return whole

    def jump(self) -> None:
        """The next packet is another one; see `Walk`."""
        self._at, self._last = None, -1

    def rest(self, size: int) -> Rest:
        """What stands behind the last packet; see `Walk`."""
        if self._rest is None:
            self._rest = self._walk_on(size)
        return self._rest

    def _go(self, start: int) -> bool:
        whole = True
        while self._at is not None and self._at < start:
            try:
                chunk = self.chunk(self._at)
            except Broken:
                return False
            self._at = chunk.end
            if self.holds_many and chunk.end > start:
                return whole
            whole = whole and not chunk.has_frame
        return whole and self._at in (None, start)

    def _walk_on(self, size: int) -> Rest:
        whole = True
        at = self._at if self._at is not None else self._last
        if at < 0:  # nothing came since a jump
            return "whole"
        while at < size:
            end = self.end()
            is_behind = end is not None and at >= end
            try:
                chunk = self.chunk(at)
            except Broken:
                end = self.end()  # which the attempt may have found
                if end is not None and at >= end:
                    break
                return "lost" if end is not None or size - at > JUNK else "ragged"
            if chunk.end > size and not is_behind:
                return "lost"
            whole = whole and not chunk.has_frame
            at = chunk.end
        return "whole" if whole and not self._is_missing else "ragged"
