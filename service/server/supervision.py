"""Supervision of background tasks: one that ends is logged and begun again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog

_log = structlog.get_logger()

_PAUSE_S = 1.0


def supervise(
    stack: AsyncExitStack, name: str, run: Callable[[], Awaitable[None]], *, pause_s: float = _PAUSE_S
) -> None:
    """Keep a task at work until the stack is closed, whatever ends it: without one of them revoked keys would
    stay valid, or health would report what was true an hour ago.

    Args:
        stack: its end cancels the task.
        name: of the task, in the log.
        run: the task; it works until it is cancelled.
        pause_s: before it is begun again.
    """
    stack.callback(asyncio.create_task(_keep_up(name, run, pause_s), name=name).cancel)


async def _keep_up(name: str, run: Callable[[], Awaitable[None]], pause_s: float) -> None:
    while True:
        try:
            await run()
            _log.error("background_task_ended", task=name)
        except Exception as error:
            _log.error("background_task_failed", task=name, exc_info=error)
        await asyncio.sleep(pause_s)
