"""CPU work in threads, which ends when the caller has left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

from service.core.stopping import stopping_when

P = ParamSpec("P")
T = TypeVar("T")


async def run(workers: Executor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run work in a worker thread.

    When the caller is cancelled, by his deadline or because he hung up, what has not begun never
    begins, and what has begun stops at its next `checkpoint`.
    """
    left = threading.Event()

    def stoppable() -> T:
        with stopping_when(left.is_set):
            return work(*args, **kwargs)

    try:
        return await asyncio.get_running_loop().run_in_executor(workers, stoppable)
    except asyncio.CancelledError:
        left.set()
        raise
