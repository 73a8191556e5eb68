"""Whose turn it is at the model: single pictures before streams, and every stream its share."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import TypeAlias

_QUIET_S = 1.0  # after the last single picture frames get their whole part of the room again

_Queue: TypeAlias = "deque[asyncio.Future[None]]"


class InferenceScheduler:
    """Lets so many in at once.

    Calls for single pictures go first: somebody waits for each of them. Frames of streams share what
    is left, one of each stream in turn, however many a stream has waiting; and they never take more
    than their part of the room, which shrinks while single pictures come, so that those find a short
    queue.

    Args:
        at_once: how many are let in, all told.
        streams_at_once: how many of those may be frames of streams.
        beside_single: how many of those while single pictures come; None for no difference.
    """

    def __init__(self, at_once: int, streams_at_once: int, beside_single: int | None = None) -> None:
        self._at_once = at_once
        self._streams_at_once = min(streams_at_once, at_once)
        self._beside_single = min(self._streams_at_once, beside_single or self._streams_at_once)
        self._single_at = -_QUIET_S
        self._inside = 0
        self._frames_inside = 0
        self._single: _Queue = deque()
        self._frames: dict[Hashable, _Queue] = {}  # in the order of their turns

    @asynccontextmanager
    async def slot(self, stream: Hashable | None = None) -> AsyncIterator[None]:
        """Wait for a turn, and hold it for the time of the block.

        Args:
            stream: whose frame it is; None for a single picture.
        """
        await self._enter(stream)
        try:
            yield
        finally:
            self._leave(stream)

    async def _enter(self, stream: Hashable | None) -> None:
        waiting = asyncio.get_running_loop().create_future()
        queue = self._single if stream is None else self._frames.setdefault(stream, deque())
        queue.append(waiting)
        if stream is None:
            self._single_at = time.monotonic()
        self._admit()
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.cancelled():
                self._admit()  # drops it from its queue
            else:
                self._leave(stream)  # it was let in just as it was cancelled
            raise

    def _leave(self, stream: Hashable | None) -> None:
        self._inside -= 1
        self._frames_inside -= stream is not None
        self._admit()

    def _admit(self) -> None:
        _drop_cancelled(self._single)
        for stream in [name for name, queue in self._frames.items() if not _drop_cancelled(queue)]:
            del self._frames[stream]
        while self._inside < self._at_once:
            if self._single:
                self._let_in(self._single)
            elif self._frames and self._frames_inside < self._for_frames():
                stream = next(iter(self._frames))
                queue = self._frames.pop(stream)
                self._let_in(queue)
                self._frames_inside += 1
                if queue:
                    self._frames[stream] = queue  # behind all others
            else:
                return

    def _for_frames(self) -> int:
        busy = time.monotonic() < self._single_at + _QUIET_S
        return self._beside_single if busy else self._streams_at_once

    def _let_in(self, queue: _Queue) -> None:
        queue.popleft().set_result(None)
        self._inside += 1


def _drop_cancelled(queue: _Queue) -> bool:
    """Take those who left out of the queue; whether anybody is left."""
    if any(waiting.cancelled() for waiting in queue):
        rest = [waiting for waiting in queue if not waiting.cancelled()]
        queue.clear()
        queue.extend(rest)
    return bool(queue)
