"""CPU work in worker threads, and background tasks of streaming RPCs."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, MutableMapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from service.core.cancellation import stopping_when

P = ParamSpec("P")
T = TypeVar("T")

_got_on_at: MutableMapping[Executor, float] = WeakKeyDictionary()

_left_over: ContextVar[list[Future[Any]] | None] = ContextVar("left_over", default=None)


def given(item: T | Exception) -> T:
    """What was handed over, or raises the error that was handed over in its place.

    The caller should not name it: an error and a frame of the stack that names it would keep each other.
    """
    try:
        if isinstance(item, Exception):
            raise item
        return item
    finally:
        del item


async def run(workers: Executor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run work in a worker thread.

    When the caller is cancelled, by a deadline or a closed connection, work that has not begun never
    begins, and work that has begun stops at its next `checkpoint`.
    """
    left = threading.Event()

    def has_left() -> bool:
        _got_on_at[workers] = time.monotonic()
        return left.is_set()

    def stoppable() -> T:
        has_left()
        with stopping_when(has_left):
            result = work(*args, **kwargs)
        has_left()
        return result

    working = workers.submit(stoppable)
    try:
        return await asyncio.wrap_future(working)
    except asyncio.CancelledError:
        left.set()
        if not working.cancel() and (left_over := _left_over.get()) is not None:
            left_over.append(working)
        raise
    finally:
        del working  # else an error of the work and this frame would keep each other


class LeftOver:
    """Work of `run` in the block whose caller was cancelled while a thread was at it: the thread may be busy
    for as long as a step takes without a checkpoint, which is seconds for encoding a large PNG."""

    def __enter__(self) -> list[Future[Any]]:
        self._before = _left_over.get()
        self._work: list[Future[Any]] = []
        _left_over.set(self._work)
        return self._work

    def __exit__(self, *_: object) -> None:
        _left_over.set(self._before)
        if self._before is not None:
            self._before += self._work


async def done_with(work: list[Future[Any]]) -> None:
    """Wait until the threads are done with it."""
    for one in work:
        with suppress(Exception):
            await asyncio.shield(asyncio.wrap_future(one))


def got_on_at(workers: Executor) -> float:
    """When a thread last began or ended work of `run`, or passed a checkpoint of it, on time.monotonic()'s
    clock."""
    return _got_on_at.get(workers, -math.inf)


async def next_within(events: asyncio.Queue[T], patience_s: float) -> T | None:
    """The next item of a queue; None if there is none in time."""
    if not events.empty():
        return events.get_nowait()
    try:
        async with asyncio.timeout(patience_s):
            return await events.get()
    except TimeoutError:
        return None


async def ended(task: asyncio.Task[None]) -> None:
    """Wait for the end of a task. A cancellation of the waiting task is raised after that end."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled  # as above
    if not task.cancelled():
        task.result()
