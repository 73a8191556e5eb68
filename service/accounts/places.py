"""Calls and streams at once, by tenant."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager

from service.core.plan import Plan
from service.errors import PlanDoesNotAllow, RateLimited

_CALL_S, _STREAM_S = 0.25, 2.0  # until a place may be free


class Places:
    """Counts the calls of tenants in and out; one tenant's calls take no place from another's."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()

    def taken(self, tenant: str, plan: Plan, *, streaming: bool) -> AbstractContextManager[None]:
        """Count a call in, until the end of the block.

        Args:
            tenant: of the call.
            plan: says how many at once.
            streaming: a video or a live stream; they are counted apart from unary calls.

        Raises:
            RateLimited: as many are at work as the plan allows.
            PlanDoesNotAllow: the plan allows none.
        """
        counts = self._streams if streaming else self._calls
        at_work = counts.get(tenant, 0)
        limit = plan.streams_at_once if streaming else plan.calls_at_once
        if limit is not None and at_work >= limit:
            raise _refusal(plan, limit, at_work, streaming=streaming)
        counts[tenant] = at_work + 1
        return _Place(counts, tenant)


class _Place:
    """One call that was counted in."""

    __slots__ = ("_counts", "_tenant")

    def __init__(self, counts: Counter[str], tenant: str) -> None:
        self._counts = counts
        self._tenant = tenant

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._counts[self._tenant] -= 1
        if not self._counts[self._tenant]:
            del self._counts[self._tenant]


def _refusal(plan: Plan, limit: int, at_work: int, *, streaming: bool) -> RateLimited | PlanDoesNotAllow:
    name, calls = ("streams_at_once", "streams") if streaming else ("calls_at_once", "calls")
    if limit == 0:
        return PlanDoesNotAllow.of(plan.name, name, limit=0, actual=1)
    return RateLimited(
        f"{at_work} of your {calls} {'is' if at_work == 1 else 'are'} at work, as many as the plan "
        f"'{plan.name}' allows: try again.",
        reason="TOO_MANY_STREAMS" if streaming else "TOO_MANY_IN_FLIGHT",
        metadata={"plan": plan.name, "limit": str(limit), "actual": str(at_work + 1), "limit_name": name},
        retry_after_s=_STREAM_S if streaming else _CALL_S,
    )
