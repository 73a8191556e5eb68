"""Bounded window of frames in flight: frames are worked on concurrently, results leave in frame order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from service.pipeline.concurrency import given

Frame = TypeVar("Frame")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class InFlight(Generic[Frame, Result]):
    """One frame in flight.

    Attributes:
        frame: what the producer knows of it.
        result: the task that works on it.
    """

    frame: Frame
    result: asyncio.Task[Result]


class OrderedWindow(Generic[Frame, Result]):
    """Frames in flight between one producer and one consumer.

    The producer reserves a place, starts the work on a frame in it, and finishes the window after the last
    frame. The consumer takes the frames in the order in which they were started, and releases the place of
    each when its result has been delivered.

    Args:
        size: places.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._reserved = 0
        self._place_free = asyncio.Event()
        self._started: asyncio.Queue[InFlight[Frame, Result] | Exception | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Result]] = set()

    async def reserve(self) -> None:
        """Wait for a free place and reserve it."""
        while not self.try_reserve():
            self._place_free.clear()
            await self._place_free.wait()

    def try_reserve(self) -> bool:
        """Reserve a place if one is free; whether it was."""
        if self._reserved >= self._size:
            return False
        self._reserved += 1
        return True

    def start(self, frame: Frame, work: Coroutine[Any, Any, Result]) -> None:
        """Start the work on a frame in a reserved place."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        self._started.put_nowait(InFlight(frame, task))

    def _ended(self, task: asyncio.Task[Result]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # known, also of a frame that nothing takes any more

    def finish(self, error: Exception | None = None) -> None:
        """No more frames come; the consumer gets the error, if any, after the frames before it."""
        self._started.put_nowait(error)

    async def next(self) -> InFlight[Frame, Result] | None:
        """The next frame in order; None after the last. Raises the error that the producer finished with."""
        return given(await self._started.get())

    def release(self) -> None:
        """Free the place of the frame taken last."""
        self._reserved -= 1
        self._place_free.set()

    async def cancel(self) -> None:
        """Cancel all work in flight and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
