"""Priority scheduler for inference slots: unary first, then round-robin over streams."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import TypeAlias

_QUIET_S = 1.0  # without a unary call for so long, frames get all of their slots again

_Queue: TypeAlias = "deque[asyncio.Future[None]]"


class InferenceScheduler:
    """Bounds concurrent inferences: hands out slots in order of priority.

    Unary calls go first: a caller waits for each of them. They are served round-robin over tenants, however
    many calls a tenant has waiting; and while several tenants call, each holds a small part of the slots
    only: Triton's queue behind knows no tenants and has to stay short. Frames of streams share the other
    slots, round-robin over streams, however many frames a stream has waiting. They never hold more than
    their part of the slots, which shrinks while unary calls come, so that those meet a short queue.

    Args:
        at_once: number of slots.
        streams_at_once: slots that frames of streams may hold.
        beside_single: the same while unary calls come; None for no difference.
        beside_tenants: slots that one tenant's unary calls may hold while other tenants call; None for no
            difference.
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
        self._unary_at = -_QUIET_S
        self._held = 0
        self._frames_held = 0
        self._unary: dict[str, _Queue] = {}  # by tenant, in round-robin order
        self._unary_held: Counter[str] = Counter()
        self._sent_at: dict[str, float] = {}  # by tenant, the last one at the end
        self._frames: dict[Hashable, _Queue] = {}  # in round-robin order

    @asynccontextmanager
    async def slot(self, stream: Hashable | None = None, *, tenant: str = "") -> AsyncIterator[None]:
        """Wait for a slot, and hold it for the time of the block.

        Args:
            stream: the stream of the frame; None for a unary call.
            tenant: of the unary call.
        """
        await self._enter(stream, tenant)
        try:
            yield
        finally:
            self._leave(stream, tenant)

    async def _enter(self, stream: Hashable | None, tenant: str) -> None:
        waiting = asyncio.get_running_loop().create_future()
        if stream is None:
            self._unary.setdefault(tenant, deque()).append(waiting)
            self._unary_at = time.monotonic()
            self._sent_at.pop(tenant, None)
            self._sent_at[tenant] = self._unary_at
        else:
            self._frames.setdefault(stream, deque()).append(waiting)
        self._admit()
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.cancelled():
                self._admit()  # drops it from its queue
            else:
                self._leave(stream, tenant)  # it got its slot just as it was cancelled
            raise

    def _leave(self, stream: Hashable | None, tenant: str) -> None:
        self._held -= 1
        if stream is not None:
            self._frames_held -= 1
        else:
            self._unary_held[tenant] -= 1
            if not self._unary_held[tenant]:
                del self._unary_held[tenant]
        self._admit()

    def _admit(self) -> None:
        for tenant in [name for name, queue in self._unary.items() if not _drop_cancelled(queue)]:
            del self._unary[tenant]
        for stream in [name for name, queue in self._frames.items() if not _drop_cancelled(queue)]:
            del self._frames[stream]
        per_tenant = self._slots_per_tenant()
        while self._held < self._at_once:
            tenant_next = next(
                (name for name in self._unary if self._unary_held.get(name, 0) < per_tenant), None
            )
            if tenant_next is not None:
                waiting = self._unary.pop(tenant_next)
                self._grant(waiting)
                self._unary_held[tenant_next] += 1
                if waiting:
                    self._unary[tenant_next] = waiting  # at the end of the round
            elif self._frames and self._frames_held < self._slots_for_frames():
                stream = next(iter(self._frames))
                queue = self._frames.pop(stream)
                self._grant(queue)
                self._frames_held += 1
                if queue:
                    self._frames[stream] = queue  # at the end of the round
            else:
                return

    def _slots_per_tenant(self) -> int:
        """Slots that one tenant's unary calls may hold at present."""
        while self._sent_at and next(iter(self._sent_at.values())) < time.monotonic() - _QUIET_S:
            del self._sent_at[next(iter(self._sent_at))]
        others = len(self._sent_at.keys() | self._unary_held.keys() | self._unary.keys()) > 1
        return self._beside_tenants if others else self._at_once

    def _slots_for_frames(self) -> int:
        """Slots that frames of streams may hold at present."""
        busy = time.monotonic() < self._unary_at + _QUIET_S
        return self._beside_single if busy else self._streams_at_once

    def _grant(self, queue: _Queue) -> None:
        queue.popleft().set_result(None)
        self._held += 1


def _drop_cancelled(queue: _Queue) -> bool:
    """Remove cancelled waiters from the queue, and return whether any are left."""
    if any(waiting.cancelled() for waiting in queue):
        rest = [waiting for waiting in queue if not waiting.cancelled()]
        queue.clear()
        queue.extend(rest)
    return bool(queue)
