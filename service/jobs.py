"""Work that goes on beside the call it is for, and tells what comes of it."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


async def next_within(events: asyncio.Queue[T], patience_s: float) -> T | None:
    """The next thing in a queue; None if there is none in time."""
    if not events.empty():
        return events.get_nowait()
    try:
        async with asyncio.timeout(patience_s):
            return await events.get()
    except TimeoutError:
        return None


async def ended(task: asyncio.Task[None]) -> None:
    """Wait for the end of a task, even while whoever waits is cancelled; that comes after it."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    if not task.cancelled():
        task.result()
