"""The background run behind a streaming RPC, and the queue through which its events reach the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from service.pipeline.concurrency import ended, given, next_within

Event = TypeVar("Event")


class EventQueue(Generic[Event]):
    """Bounded queue of events: a run that is ahead of its caller waits.

    Args:
        size: events kept at most.
    """

    def __init__(self, size: int) -> None:
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue(size)

    async def put(self, event: Event | Exception) -> None:
        """Append an event, or the error that ends the run; waits for room."""
        await self._events.put(event)

    async def next_within(self, seconds: float) -> Event | None:
        """The next event; None if there is none in time. Raises the error that ended the run."""
        event = next_within(self._events, seconds)
        return given(await event)


@asynccontextmanager
async def background(run: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Execute a run beside the block; leaving the block cancels it and waits for the end of its clean-up."""
    task = asyncio.create_task(run)
    try:
        yield
    finally:
        task.cancel()
        await ended(task)
