"""Priority scheduler for inference slots: unary first, then round-robin over streams."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import TypeAlias

_QUIET_S = 1.0  # after the last single picture frames get their whole part of the room again

_Queue: TypeAlias = "deque[asyncio.Future[None]]"


class InferenceScheduler:
    """Bounds concurrent inferences.

    Unary calls go first: a caller waits for each of them. They go one of each tenant in
    turn, however many a tenant has waiting, and while several tenants send pictures each has a small
    part of the room only: the queue behind, at Triton, knows no tenants and has to stay short. Frames of
    streams share what is left, one of each stream in turn, however many a stream has waiting; and they
    never take more than their part of the room, which shrinks while single pictures come, so that those
    find a short queue.

    Args:
        at_once: how many are let in, all told.
        streams_at_once: how many of those may be frames of streams.
        beside_single: how many of those while single pictures come; None for no difference.
        beside_tenants: single pictures of one tenant while those of others come; None for no difference.
    """

    def __init__(
        self,
        at_once: int,
        streams_at_once: int,
        beside_single: int | None = None,
        beside_tenants: int | None = None,
    ) -> None:
        self._at_once = at_once
        self._beside_tenants = min(at_once, beside_tenants or at_once)
        self._streams_at_once = min(streams_at_once, at_once)
        self._beside_single = min(self._streams_at_once, beside_single or self._streams_at_once)
        self._single_at = -_QUIET_S
        self._inside = 0
        self._frames_inside = 0
        self._single: dict[str, _Queue] = {}  # by tenant, in round-robin order
        self._single_inside: Counter[str] = Counter()
        self._sent_at: dict[str, float] = {}  # by tenant, the last one at the end
        self._frames: dict[Hashable, _Queue] = {}  # in round-robin order

    @asynccontextmanager
    async def slot(self, stream: Hashable | None = None, *, tenant: str = "") -> AsyncIterator[None]:
        """Wait for a slot, and hold it for the time of the block.

        Args:
            stream: the stream of the frame; None for a unary call.
            tenant: whose single picture it is.
        """
        await self._enter(stream, tenant)
        try:
            yield
        finally:
            self._leave(stream, tenant)

    async def _enter(self, stream: Hashable | None, tenant: str) -> None:
        waiting = asyncio.get_running_loop().create_future()
        if stream is None:
            self._single.setdefault(tenant, deque()).append(waiting)
            self._single_at = time.monotonic()
            self._sent_at.pop(tenant, None)
            self._sent_at[tenant] = self._single_at
        else:
            self._frames.setdefault(stream, deque()).append(waiting)
        self._admit()
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.cancelled():
                self._admit()  # drops it from its queue
            else:
                self._leave(stream, tenant)  # it was let in just as it was cancelled
            raise

    def _leave(self, stream: Hashable | None, tenant: str) -> None:
        self._inside -= 1
        if stream is not None:
            self._frames_inside -= 1
        else:
            self._single_inside[tenant] -= 1
            if not self._single_inside[tenant]:
                del self._single_inside[tenant]
        self._admit()

    def _admit(self) -> None:
        for tenant in [name for name, queue in self._single.items() if not _drop_cancelled(queue)]:
            del self._single[tenant]
        for stream in [name for name, queue in self._frames.items() if not _drop_cancelled(queue)]:
            del self._frames[stream]
        room = self._for_tenant()
        while self._inside < self._at_once:
            tenant_next = next(
                (name for name in self._single if self._single_inside.get(name, 0) < room), None
            )
            if tenant_next is not None:
                waiting = self._single.pop(tenant_next)
                self._let_in(waiting)
                self._single_inside[tenant_next] += 1
                if waiting:
                    self._single[tenant_next] = waiting  # behind all others
            elif self._frames and self._frames_inside < self._for_frames():
                stream = next(iter(self._frames))
                queue = self._frames.pop(stream)
                self._let_in(queue)
                self._frames_inside += 1
                if queue:
                    self._frames[stream] = queue  # behind all others
            else:
                return

    def _for_tenant(self) -> int:
        """How many single pictures one tenant may have inside."""
        while self._sent_at and next(iter(self._sent_at.values())) < time.monotonic() - _QUIET_S:
            del self._sent_at[next(iter(self._sent_at))]
        others = len(self._sent_at.keys() | self._single_inside.keys() | self._single.keys()) > 1
        return self._beside_tenants if others else self._at_once

    def _for_frames(self) -> int:
        busy = time.monotonic() < self._single_at + _QUIET_S
        return self._beside_single if busy else self._streams_at_once

    def _let_in(self, queue: _Queue) -> None:
        queue.popleft().set_result(None)
        self._inside += 1


def _drop_cancelled(queue: _Queue) -> bool:
    """Remove cancelled waiters from the queue; whether any are left."""
    if any(waiting.cancelled() for waiting in queue):
        rest = [waiting for waiting in queue if not waiting.cancelled()]
        queue.clear()
        queue.extend(rest)
    return bool(queue)
