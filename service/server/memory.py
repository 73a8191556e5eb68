"""Memory guard: holds the memory of the gateway and its decoder processes under one number."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterable

import structlog

from service.errors import Overloaded
from service.media.malloc import release_freed_memory

_log = structlog.get_logger()

_LOOK_S = 0.1
_FULL, _ROOM = 0.85, 0.8  # of the limit: above the first one new work is refused, until below the second one
_IDLE_LOOKS = 20  # without work, after which freed memory goes back
_LONGEST_LOOKS = 600  # between two times that it does
_WORTH_BYTES = 32 << 20  # more memory than at rest that is worth giving back
_RETRY_AFTER_S = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


class MemoryGuard:
    """Watches resident memory. Used on one event loop.

    What limits by number and size allow at once never comes near the limit in ordinary use; this is for what
    they cannot see, such as requests that are half here and answers that are not taken.

    Args:
        limit_bytes: of all processes together.
        at_work: number of calls in progress.
        processes: numbers of the decoder processes.
        resident: bytes of a process by its number; 0 for one that has ended.
    """

    def __init__(
        self,
        limit_bytes: int,
        at_work: Callable[[], int],
        processes: Callable[[], Iterable[int]],
        resident: Callable[[int], int] | None = None,
    ) -> None:
        self._limit = limit_bytes
        self._at_work = at_work
        self._processes = processes
        self._resident = resident or resident_bytes
        self._rest: int | None = None  # least that was resident without work
        self._idle = 0  # looks in a row without work
        self._give_back_at = _IDLE_LOOKS
        self._shedding: list[Callable[[], None]] = []
        self.full = False

    def when_full(self, shed: Callable[[], None]) -> None:
        """Call `shed` at every look while memory is full; it should give some back."""
        self._shedding.append(shed)

    def check(self) -> None:
        """Raise Overloaded while there is no memory for new work."""
        if self.full:
            raise Overloaded(
                "The service has no memory left for more work: try again.",
                reason="MEMORY_FULL",
                metadata={"limit_bytes": str(self._limit)},
                retry_after_s=_RETRY_AFTER_S,
            )

    async def run(self) -> None:
        """Look all the time; until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.look()
            except Exception:  # the guard must go on after any error: while memory is full, all is refused
                _log.exception("memory_look_failed")

    async def look(self) -> None:
        """Look once, and act on it."""
        used = self.used_bytes()
        full = used > (_ROOM if self.full else _FULL) * self._limit
        if full:
            # Freed memory that the allocator keeps is no reason to refuse anything.
            await asyncio.to_thread(release_freed_memory)
            used = self.used_bytes()
            full = used > (_ROOM if self.full else _FULL) * self._limit
        if full != self.full:
            self.full = full
            _log.warning("memory_full" if full else "memory_free", used_bytes=used, limit_bytes=self._limit)
        if full:
            for shed in self._shedding:
                shed()
        await self._give_back(used)

    async def _give_back(self, used: int) -> None:
        """After work, return what was freed; again after longer and longer times, because connections free
        what they have read only when their callers close them."""
        if self._at_work():
            self._idle, self._give_back_at = 0, _IDLE_LOOKS
            return
        if self._rest is None:
            self._rest = used
        self._idle += 1
        if self._idle < self._give_back_at or used <= self._rest + _WORTH_BYTES:
            return
        self._give_back_at = self._idle + min(self._idle, _LONGEST_LOOKS)
        gc.collect()  # what refers to itself: while nothing is done, nothing else has it collected
        await asyncio.to_thread(release_freed_memory)
        self._rest = min(self._rest, self.used_bytes())

    def used_bytes(self) -> int:
        """Resident memory of all processes."""
        return self._resident(os.getpid()) + sum(map(self._resident, self._processes()))


def resident_bytes(pid: int) -> int:
    """Resident memory of a process without pages of files; 0 where there is no such process."""
    # Without a file object, which costs five times as much: this is read many times a second.
    try:
        file = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fields = os.read(file, 256).split()
    except OSError:  # it has ended since
        return 0
    finally:
        os.close(file)
    return (int(fields[1]) - int(fields[2])) * _PAGE
