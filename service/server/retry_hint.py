"""When a refused caller should come again: after the calls at work, and the callers refused before it."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

_MEMORY_S = 3.0  # calls that ended and refusals count for about so long
_SHORTEST_S, _LONGEST_S = 0.25, 8.0
_LEAST_RATE = 5.0  # calls a second, until more have been seen


class _Decaying:
    """A count whose past fades exponentially."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()
        self._count = 0.0

    @property
    def count(self) -> float:
        """The number of events of the last seconds."""
        now = self._clock()
        self._count *= math.exp((self._at - now) / _MEMORY_S)
        self._at = now
        return self._count

    def add(self) -> None:
        """Count one event."""
        self._count = self.count + 1


class RetryHint:
    """Measures how fast calls end and how many were refused, for the pause that a refusal asks for.

    All who were refused come again. The pause spreads them over the time that the service takes for the calls
    at work and for them, with jitter, so that they do not come again at one moment.

    Args:
        clock: seconds.
        jitter: a random number from 0 to 1.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._ended = _Decaying(clock)
        self._refused = _Decaying(clock)
        self._jitter = jitter

    def ended(self) -> None:
        """A call has ended."""
        self._ended.add()

    def after_refusal(self, at_work: int) -> float:
        """Count a refusal; the seconds after which that caller should come again.

        Args:
            at_work: number of calls at work.
        """
        self._refused.add()
        per_s = max(_LEAST_RATE, self._ended.count / _MEMORY_S)
        queue_s = (at_work + self._refused.count) / per_s
        return min(_LONGEST_S, max(_SHORTEST_S, queue_s * (0.5 + self._jitter())))
