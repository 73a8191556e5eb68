"""Rotation: waiting calls, served in turn over their callers however many calls one of them has waiting."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from functools import partial
from typing import Generic, TypeVar

Caller = TypeVar("Caller", bound=Hashable)


class Rotation(Generic[Caller]):
    """Waiting calls by caller. Used on one event loop.

    The caller that was served last comes last, behind those that come after that too: the first call of a
    caller waits for what is at work, and not for another call of the only one that was there before.
    """

    def __init__(self) -> None:
        self._last: Caller | None = None  # served
        self._queues: dict[Caller, deque[asyncio.Future[None]]] = {}  # in the order of their turns

    def __bool__(self) -> bool:
        """Whether a call waits, or was cancelled since `drop_cancelled`."""
        return bool(self._queues)

    @property
    def callers(self) -> set[Caller]:
        """Callers with a call that waits, or that was cancelled since `drop_cancelled`."""
        return set(self._queues)

    def add(self, caller: Caller) -> asyncio.Future[None]:
        """A call that waits from now on, behind the others of its caller."""
        waiting = asyncio.get_running_loop().create_future()
        if caller not in self._queues:
            self._queues[caller] = deque()
            if self._last in self._queues:
                self._queues[self._last] = self._queues.pop(self._last)
        self._queues[caller].append(waiting)
        return waiting

    async def wait(self, caller: Caller, admit: Callable[[], None], leave: Callable[[], None]) -> None:
        """Wait until `take` lets the call go on.

        Args:
            caller: of the call.
            admit: lets calls go on where there is room.
            leave: gives back what a call got that was cancelled at the same moment.
        """
        waiting = self.add(caller)
        admit()
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.cancelled():
                admit()  # drops it from its queue
            else:
                leave()
            raise

    def drop_cancelled(self) -> None:
        """Remove the calls that wait no longer."""
        for caller, queue in tuple(self._queues.items()):
            if any(waiting.cancelled() for waiting in queue):
                rest = deque(waiting for waiting in queue if not waiting.cancelled())
                if rest:
                    self._queues[caller] = rest
                else:
                    del self._queues[caller]

    def first(self, allowed: Callable[[Caller], bool]) -> Caller | None:
        """The caller whose turn it is, among those that are allowed; None without one."""
        return next((caller for caller in self._queues if allowed(caller)), None)

    def take(self, caller: Caller) -> None:
        """Let the caller's oldest call go on, and put the caller at the end of the round."""
        self._last = caller
        queue = self._queues.pop(caller)
        queue.popleft().set_result(None)
        if queue:
            self._queues[caller] = queue


class FairPlaces:
    """A number of places, given in rotation over callers. One caller never has all of them, so that the
    first call of another finds one free.

    Args:
        count: number of places; where it is 1, a single caller may have it.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._each = max(1, count - 1)
        self._held: Counter[Hashable] = Counter()
        self._waiting: Rotation[Hashable] = Rotation()

    @asynccontextmanager
    async def place(self, caller: Hashable) -> AsyncIterator[None]:
        """Wait for a place, and hold it for the time of the block."""
        leave = partial(self._leave, caller)
        await self._waiting.wait(caller, self._admit, leave)
        try:
            yield
        finally:
            leave()

    def _leave(self, caller: Hashable) -> None:
        self._free += 1
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        self._admit()

    def _admit(self) -> None:
        self._waiting.drop_cancelled()
        while self._free:
            caller = self._waiting.first(lambda caller: self._held[caller] < self._each)
            if caller is None:
                return
            self._waiting.take(caller)
            self._free -= 1
            self._held[caller] += 1
