"""Calls and streams at once, by tenant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import PlanDoesNotAllow, RateLimited

_CALL_S, _STREAM_S = 0.25, 2.0  # until a place may be free


class Places:
    """Counts the calls of tenants in and out; one tenant's calls take no place from another's."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()

    @contextmanager
    def call(self, tenant: str, plan: str, limit: int | None) -> Iterator[None]:
        """Count a unary call in for the time of the block.

        Raises:
            RateLimited: as many are at work as the plan allows.
            PlanDoesNotAllow: the plan allows none.
        """
        with _counted(self._calls, tenant, plan, limit, "calls_at_once", "TOO_MANY_IN_FLIGHT", _CALL_S):
            yield

    @contextmanager
    def stream(self, tenant: str, plan: str, limit: int | None) -> Iterator[None]:
        """Count a video or a live stream in for the time of the block.

        Raises:
            RateLimited: as many are at work as the plan allows.
            PlanDoesNotAllow: the plan allows none.
        """
        with _counted(self._streams, tenant, plan, limit, "streams_at_once", "TOO_MANY_STREAMS", _STREAM_S):
            yield


@contextmanager
def _counted(
    counts: Counter[str],
    tenant: str,
    plan: str,
    limit: int | None,
    name: str,
    reason: str,
    retry_after_s: float,
) -> Iterator[None]:
    at_work = counts.get(tenant, 0)
    if limit is not None and at_work >= limit:
        if limit == 0:
            raise PlanDoesNotAllow.of(plan, name, limit=0, actual=1)
        raise RateLimited(
            f"{at_work} of your calls are at work, as many as the plan '{plan}' allows at once: try again.",
            reason=reason,
            metadata={"plan": plan, "limit": str(limit), "actual": str(at_work + 1), "limit_name": name},
            retry_after_s=retry_after_s,
        )
    counts[tenant] = at_work + 1
    try:
        yield
    finally:
        counts[tenant] -= 1
        if not counts[tenant]:
            del counts[tenant]
