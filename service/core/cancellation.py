"""Cooperative cancellation of CPU work in threads.

A thread cannot be interrupted from outside. `stopping_when` sets the condition under which work in this
thread stops, and the work calls `checkpoint` every few milliseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """The work was cancelled; its result is no longer needed."""


class _Condition(threading.local):
    holds: Callable[[], bool] | None = None


_condition = _Condition()


@contextmanager
def stopping_when(holds: Callable[[], bool]) -> Iterator[None]:
    """Make `checkpoint` in this thread raise Stopped within the block once `holds()` is true."""
    before = _condition.holds
    _condition.holds = holds
    try:
        yield
    finally:
        _condition.holds = before


def checkpoint() -> None:
    """Raise Stopped if the work was cancelled. Costs less than a microsecond."""
    if _condition.holds is not None and _condition.holds():
        raise Stopped
