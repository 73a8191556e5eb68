"""Worker threads of one video."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class RunThreads:
    """Blocking calls of one run. A cancelled caller does not stop a thread that is inside FFmpeg, so the run
    has to wait for `idle` before it frees what its threads work on.

    Args:
        executor: the threads.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._busy: set[asyncio.Future[Any]] = set()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call; it counts as busy until it returns, even if the caller is cancelled."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(*args, **kwargs))
        self._busy.add(future)
        future.add_done_callback(self._busy.discard)
        try:
            return await asyncio.shield(future)
        finally:
            del future  # else an error of the work and this frame would keep each other

    async def idle(self) -> None:
        """Wait until no call is left in a thread."""
        await asyncio.gather(*self._busy, return_exceptions=True)
