"""Priority scheduler for inference slots: unary first, then round-robin over streams."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from typing import NamedTuple

from service.pipeline.rotation import Rotation

_QUIET_S = 1.0  # without a unary call for so long, frames get all of their slots again


class _Caller(NamedTuple):
    """A tenant with unary calls, or a stream with frames."""

    name: Hashable
    is_stream: bool


class Slot:
    """A slot that is held, until `leave`.

    Args:
        leave: gives it back, as a large one or not.
        decoded: tells that a large image is decoded.
        large: it counts as large.
    """

    def __init__(self, leave: Callable[..., None], decoded: Callable[[], None], *, large: bool) -> None:
        self._leave = leave
        self._decoded = decoded
        self._large = large

    def decoded(self) -> None:
        """Tell that a large image is decoded: the next one may then be. Once more it does nothing."""
        if self._large:
            self._large = False
            self._decoded()

    def leave(self) -> None:
        """Give the slot back; once."""
        self._leave(large=self._large)


class InferenceScheduler:
    """Bounds concurrent inferences: hands out slots in order of priority.

    Unary calls go first: a caller waits for each of them. They are served round-robin over tenants, however
    many calls a tenant has waiting; and while several tenants call, each holds a small part of the slots
    only: Triton's queue behind knows no tenants and has to stay short. Frames of streams share the other
    slots, round-robin over streams, however many frames a stream has waiting. They never hold more than
    their part of the slots, which shrinks while unary calls come, so that those meet a short queue.

    Large images take a worker thread for long. Only so many are decoded at once, one fewer while there are
    several callers: a thread is then left for the images of the others. They are served round-robin over
    tenants and streams together, in alternation with ordinary images: neither holds up the other, however
    many come.

    Args:
        at_once: number of slots.
        streams_at_once: slots that frames of streams may hold.
        beside_single: the same while unary calls come; None for no difference.
        beside_tenants: slots that one tenant's unary calls may hold while other tenants call; None for no
            difference.
        large_at_once: large images that are decoded at once; None for as many as there are slots.
    """

    def __init__(
        self,
        at_once: int,
        streams_at_once: int,
        beside_single: int | None = None,
        beside_tenants: int | None = None,
        large_at_once: int | None = None,
    ) -> None:
        self._at_once = at_once
        self._beside_tenants = min(at_once, beside_tenants or at_once)
        self._streams_at_once = min(streams_at_once, at_once)
        self._beside_single = min(self._streams_at_once, beside_single or self._streams_at_once)
        self._large_at_once = min(at_once, large_at_once or at_once)
        self._unary_at = -_QUIET_S
        self._sent_at: dict[_Caller, float] = {}  # of unary calls by tenant, the last one at the end
        self._unary: Rotation[_Caller] = Rotation()
        self._frames: Rotation[_Caller] = Rotation()
        self._large: Rotation[_Caller] = Rotation()
        self._large_first = False
        self._held: Counter[_Caller] = Counter()  # slots by caller
        self._frames_held = 0
        self._large_held = 0

    async def take(self, stream: Hashable | None = None, *, tenant: str = "", large: bool = False) -> Slot:
        """Wait for a slot, to be given back by its `leave`.

        Args:
            stream: the stream of the frame; None for a unary call.
            tenant: of the unary call.
            large: it counts as large.
        """
        caller = _Caller(tenant if stream is None else stream, is_stream=stream is not None)
        if not caller.is_stream:
            self._unary_at = time.monotonic()
            self._sent_at.pop(caller, None)
            self._sent_at[caller] = self._unary_at
        rotation = self._large if large else self._frames if caller.is_stream else self._unary
        await rotation.wait(caller, self._admit, partial(self._leave, caller, large=large))
        return Slot(partial(self._leave, caller), self._decoded, large=large)

    def _decoded(self) -> None:
        self._large_held -= 1
        self._admit()

    def _leave(self, caller: _Caller, *, large: bool) -> None:
        self._large_held -= large
        self._frames_held -= caller.is_stream
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        self._admit()

    def _admit(self) -> None:
        waiting = (self._unary, self._frames, self._large)
        if not any(waiting):
            return  # what follows takes longer than all the rest of a slot
        for rotation in waiting:
            rotation.drop_cancelled()
        callers = self._recent().union(self._held, *(rotation.callers for rotation in waiting))
        tenants = sum(not caller.is_stream for caller in callers)
        per_tenant = self._beside_tenants if tenants > 1 else self._at_once
        larges = max(1, self._large_at_once - 1) if len(callers) > 1 else self._large_at_once
        frames = self._slots_for_frames()

        def allowed(caller: _Caller) -> bool:
            return self._frames_held < frames if caller.is_stream else self._held[caller] < per_tenant

        while self._held.total() < self._at_once:
            large = self._large.first(allowed) if self._large_held < larges else None
            ordinary = self._unary.first(allowed) or self._frames.first(allowed)
            if large is not None and (self._large_first or ordinary is None):
                self._grant(self._large, large)
                self._large_held += 1
                self._large_first = False
            elif ordinary is not None:
                self._grant(self._frames if ordinary.is_stream else self._unary, ordinary)
                self._large_first = True
            else:
                return

    def _grant(self, rotation: Rotation[_Caller], caller: _Caller) -> None:
        rotation.take(caller)
        self._held[caller] += 1
        self._frames_held += caller.is_stream

    def _recent(self) -> set[_Caller]:
        """Tenants that sent a unary call a moment ago."""
        while self._sent_at and next(iter(self._sent_at.values())) < time.monotonic() - _QUIET_S:
            del self._sent_at[next(iter(self._sent_at))]
        return set(self._sent_at)

    def _slots_for_frames(self) -> int:
        """Slots that frames of streams may hold at present."""
        busy = time.monotonic() < self._unary_at + _QUIET_S
        return self._beside_single if busy else self._streams_at_once
