"""Waiting with a limit: for the caller's next message, and for a model that is unavailable for a moment."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from service.errors import Overloaded, Unavailable

T = TypeVar("T")

_RETRY_AFTER_S = 1.0  # where the error gives no hint


async def item_within(items: AsyncIterator[T], seconds: float, late: Callable[[], Exception]) -> T | None:
    """The next item of an iterator; None after the last. Raises `late()` if there is none in time."""
    try:
        async with asyncio.timeout(seconds):
            return await anext(items, None)
    except TimeoutError:
        raise late() from None


async def retry_unavailable(
    call: Callable[[], Awaitable[T]],
    patience_s: float,
    clock: Callable[[], float] = time.monotonic,
    *,
    longest_pause_s: float = math.inf,
    overloaded: bool = True,
) -> T:
    """Call until it succeeds, pausing as long as each error asks for.

    Args:
        call: the call; only Unavailable, and Overloaded, are tried again.
        patience_s: from the first error on; an error whose pause would end later, or does, passes through.
        clock: seconds.
        longest_pause_s: of one pause, whatever the error asks for.
        overloaded: whether Overloaded is tried again too.
    """
    give_up_at: float | None = None
    while True:
        try:
            return await call()
        except (Overloaded, Unavailable) as refusal:
            if isinstance(refusal, Overloaded) and not overloaded:
                raise
            now, pause_s = clock(), min(refusal.retry_after_s or _RETRY_AFTER_S, longest_pause_s)
            give_up_at = now + patience_s if give_up_at is None else give_up_at
            if now + pause_s >= give_up_at:
                raise
            error = refusal.with_traceback(None)  # whose frames have the image: not over the pause
        try:
            await asyncio.sleep(pause_s)
            if clock() >= give_up_at:  # the machine stood still: one more call would end without a reason
                raise error
        finally:
            del error  # else it and this frame would keep each other, and with them the image
