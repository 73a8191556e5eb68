"""Work that somebody may have lost interest in: long functions ask now and then whether to go on.

A thread cannot be interrupted from outside. Whoever runs work in one says under which condition it is
to stop, `stopping_when`, and the work asks, `checkpoint`, wherever it has spent some milliseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """Nobody waits for the result any more."""


class _Condition(threading.local):
    holds: Callable[[], bool] | None = None


_condition = _Condition()


@contextmanager
def stopping_when(holds: Callable[[], bool]) -> Iterator[None]:
    """Let `checkpoint` in this thread stop the block once `holds()` is true."""
    before = _condition.holds
    _condition.holds = holds
    try:
        yield
    finally:
        _condition.holds = before


def checkpoint() -> None:
    """Go on, or raise Stopped. Costs less than a microsecond."""
    if _condition.holds is not None and _condition.holds():
        raise Stopped
