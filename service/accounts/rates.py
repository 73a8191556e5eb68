"""Token buckets: so many a second, and a burst. Paces: events one after another, so many a second."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_LEAST_WAIT_S = 0.001
_ROUNDING_S = 1e-9


class TokenBuckets:
    """A bucket for each name, by the generic cell rate algorithm: one number for each name that was used of
    late, and none for a full bucket.

    Args:
        max_names: that are remembered; beyond, the one that was used longest ago is full again. None: no end.
        clock: seconds that never go back.
    """

    def __init__(self, *, max_names: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_names = max_names
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, name: str, *, per_second: float, burst: int) -> float:
        """Seconds until there is a token; 0 where there is one."""
        return self._wait_s(name, self._clock(), per_second, burst)

    def take(self, name: str, *, per_second: float, burst: int) -> float:
        """Take a token.

        Returns:
            0 where there was one; else the seconds until there is one, and none was taken.
        """
        now = self._clock()
        wait_s = self._wait_s(name, now, per_second, burst)
        if wait_s:
            return wait_s
        self._full_at[name] = max(self._full_at.get(name, now), now) + 1 / per_second
        self._full_at.move_to_end(name)
        if self._max_names is not None and len(self._full_at) > self._max_names:
            self._full_at.popitem(last=False)
        return 0.0

    def forget_full(self) -> None:
        """Forget the buckets that are full again: a new one is as good."""
        now = self._clock()
        for name in [name for name, full_at in self._full_at.items() if full_at <= now]:
            del self._full_at[name]

    def _wait_s(self, name: str, now: float, per_second: float, burst: int) -> float:
        wait_s = self._full_at.get(name, now) - now - (burst - 1) / per_second
        return max(wait_s, _LEAST_WAIT_S) if wait_s > _ROUNDING_S else 0.0

    def __len__(self) -> int:
        return len(self._full_at)


class Pace:
    """Spreads events evenly over time.

    Args:
        per_second: events, at most.
        max_waiting: events that may wait for their time; further ones wait for the least time only.
        clock: seconds that never go back.
    """

    def __init__(
        self, per_second: float, max_waiting: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._gap_s = 1 / per_second
        self._longest_s = max_waiting / per_second
        self._clock = clock
        self._next = 0.0

    def wait_s(self, least_s: float = 0.0) -> float:
        """Seconds until the time of a further event, and not less than `least_s`, which it is where too many
        wait."""
        now = self._clock()
        at = max(now + least_s, self._next)
        if at - now - least_s > self._longest_s:
            return least_s
        self._next = at + self._gap_s
        return at - now
