"""Monthly quotas: exact over any number of gateways, without a query on the way of a call.

A gateway takes units in blocks (see `lease`), asks for the next block before the last one is used up, and
gives back what is left when a tenant has been idle, and at its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import structlog

from service.accounts.lease import Lease, most_held
from service.accounts.months import month_of, reset_time
from service.errors import MonthlyQuotaExceeded, RateLimited, Unavailable, counted
from service.store.quotas import Grant, Return

_log = structlog.get_logger()

IDLE_S = 60.0
_RECHECK_S = (
    5.0  # a quota that was used up is looked at again: another gateway may have given back, a plan grown
)
_RETRY_S = 1.0  # after a failure, until the next block is asked for ahead of need
_RETURNS_AT_ONCE = 200
_WAIT_S = 10.0  # for calls at work to free units
_FREE_S = 0.25  # until a unit may be free


class UnitStore(Protocol):
    """Where the units of all gateways are counted; see `service.store.quotas.QuotaStore`."""

    async def take(self, tenant: str, month: str, *, quota: int, size: Callable[[int], int]) -> Grant:
        """Take units of a month."""

    async def give_back(self, returns: Iterable[Return]) -> None:
        """Give units back that were not spent."""

    async def taken(self, tenant: str, month: str) -> int:
        """Units that gateways have taken."""

    async def ping(self) -> None:
        """Unavailable where the database is away."""


@dataclass(frozen=True)
class Standing:
    """How far a quota is used.

    Attributes:
        limit: units of the month; None for no limit.
        remaining: units left; None for no limit. What other gateways hold counts as used.
        reset_time: when the next month begins, UTC.
    """

    limit: int | None
    remaining: int | None
    reset_time: datetime


@dataclass(eq=False)
class _Tenant:
    """A tenant's lease and who waits for it."""

    lease: Lease
    used_at: float
    asking: asyncio.Task[None] | None = None
    waiting: list[int] = field(default_factory=list)  # units of each call that waits
    freed: asyncio.Event | None = None  # while calls wait for units of those at work
    empty_until: float = 0.0
    ask_again_at: float = 0.0

    def wake(self) -> None:
        """Wake the calls that wait for units of those at work."""
        if self.freed is not None:
            self.freed.set()
            self.freed = None


@dataclass(eq=False, slots=True)
class Charge:
    """Units set aside for one call. Without a limit there is nothing to set aside.

    Attributes:
        units: set aside.
        month: whose quota they are of, as 2026-11.
        limit: units of that month; None for no limit.
        remaining: units that were left when it was made; None for no limit.
    """

    units: int
    month: str
    limit: int | None = None
    remaining: int | None = None
    _held: _Tenant | None = None
    _generation: int = 0
    _standing: Standing | None = None

    def settle(self, spent: int) -> Standing:
        """End it: `spent` units count, the others are free again. Only the first time has an effect.

        Returns:
            How far the quota was used at that time.
        """
        if self._standing is None:
            self._standing = self._settled(spent)
        return self._standing

    def _settled(self, spent: int) -> Standing:
        if self._held is not None:
            lease = self._held.lease
            lease.settle(self._generation, self.units, spent)
            self._held.wake()
            if self._generation == lease.generation:
                self.remaining = lease.left
        return Standing(self.limit, self.remaining, reset_time(self.month))


class Quotas:
    """Spends monthly quotas from leases.

    Args:
        store: where the units of all gateways are counted.
        now: UTC.
        clock: seconds that never go back.
        wait_s: for units that calls at work hold, where they hold as much as may be held.
    """

    def __init__(
        self,
        store: UnitStore,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        wait_s: float = _WAIT_S,
    ) -> None:
        self._store = store
        self._now = now
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}
        self._wait_s = wait_s
        self._returning: dict[asyncio.Task[None], Collection[str]] = {}  # with the tenants of each

    async def reserve(self, tenant: str, quota: int | None, units: int = 1) -> Charge:
        """Set units aside for a call.

        Args:
            tenant: owner of the quota.
            quota: units of the month; None for no limit.
            units: of this call.

        Raises:
            MonthlyQuotaExceeded: fewer are left.
            RateLimited: calls at work hold all that this gateway may hold, and none of them ended.
            Unavailable: the lease is used up and the database is away.
        """
        month = month_of(self._now())
        if quota is None:
            return Charge(units, month)
        held = self._held(tenant, month, quota)
        lease = held.lease
        while not lease.reserve(units):
            if self._clock() < held.empty_until:
                raise _used_up(lease, units)
            await self._more(held, units)
            month = month_of(self._now())
            if (
                self._tenants.get(tenant) is not held or lease.month != month
            ):  # given back or turned meanwhile
                held = self._held(tenant, month, quota)
                lease = held.lease
        if lease.runs_low() and held.asking is None and self._clock() >= held.ask_again_at:
            self._begin_asking(held, ahead=True)
        return Charge(units, month, quota, lease.left, held, lease.generation)

    async def standing(self, tenant: str, quota: int | None) -> Standing:
        """How far the quota is used, by the database.

        Raises:
            Unavailable: the database is away.
        """
        month = month_of(self._now())
        if quota is None:
            return Standing(None, None, reset_time(month))
        taken = await self._store.taken(tenant, month)
        held = self._tenants.get(tenant)
        own = held.lease.unspent if held is not None and held.lease.month == month else 0
        return Standing(quota, max(0, min(quota, quota - taken + own)), reset_time(month))

    async def give_back_idle(self) -> None:
        """Give back what tenants hold that have not called for a minute."""
        since = self._clock() - IDLE_S
        idle = [name for name, held in self._tenants.items() if self._is_idle(held, since)]
        if not any(self._tenants[name].lease.unspent for name in idle):
            for name in idle:
                del self._tenants[name]
            return
        try:
            # Units on their way back are lost where the database goes away: they stay where it has gone.
            await self._store.ping()
        except Unavailable:
            return
        # A call may have come in the meantime.
        returning = [
            self._tenants.pop(name).lease
            for name in idle
            if name in self._tenants and self._is_idle(self._tenants[name], since)
        ]
        # A task of its own, which close() waits for: the units are no longer held here.
        await asyncio.shield(self._in_background([_left(lease) for lease in returning]))

    @staticmethod
    def _is_idle(held: _Tenant, since: float) -> bool:
        return held.used_at <= since and not (held.lease.reserved or held.asking or held.waiting)

    async def close(self) -> None:
        """Give back everything: no call is at work any more."""
        asking = [held.asking for held in self._tenants.values() if held.asking is not None]
        if asking or self._returning:
            await asyncio.wait([*asking, *self._returning])
        leases = [held.lease for held in self._tenants.values()]
        self._tenants.clear()
        await self._give_back([_left(lease) for lease in leases])

    def _held(self, tenant: str, month: str, quota: int) -> _Tenant:
        """The tenant's lease of this month and this quota."""
        held = self._tenants.get(tenant)
        if held is None:
            held = self._tenants[tenant] = _Tenant(Lease(tenant, month, quota), self._clock())
        held.used_at = self._clock()
        lease = held.lease
        if lease.month != month or lease.quota != quota:
            old = _left(lease)
            lease.turn(month, quota)
            held.empty_until = held.ask_again_at = 0.0
            held.wake()
            if old.units:
                self._in_background([old])
        return held

    async def _more(self, held: _Tenant, units: int) -> None:
        """Wait until the database was asked for more, which several calls share; or, where calls at work hold
        all that may be held, until one of them ends."""
        held.waiting.append(units)
        try:
            if held.lease.is_full_for(units):
                await self._until_freed(held)
                return
            asking = held.asking or self._begin_asking(held)
            # A caller that goes away must not stop what others wait for.
            await asyncio.shield(asking)
        finally:
            held.waiting.remove(units)

    async def _until_freed(self, held: _Tenant) -> None:
        freed = held.freed = held.freed or asyncio.Event()
        try:
            async with asyncio.timeout(self._wait_s):
                await freed.wait()
        except TimeoutError:
            lease = held.lease
            raise RateLimited(
                f"Calls at work hold {lease.reserved} of the {_calls(lease.quota)} of the month, as many as "
                "one gateway may hold at once: try again.",
                reason="TOO_MANY_IN_FLIGHT",
                metadata={"limit": str(most_held(lease.quota)), "limit_name": "calls_per_month"},
                retry_after_s=_FREE_S,
            ) from None

    def _begin_asking(self, held: _Tenant, *, ahead: bool = False) -> asyncio.Task[None]:
        held.asking = asyncio.create_task(self._ask(held, ahead=ahead))
        # Callers that wait for it raise what it raised; there may be none left.
        held.asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return held.asking

    async def _ask(self, held: _Tenant, *, ahead: bool) -> None:
        lease, generation = held.lease, held.lease.generation
        tenant, month, quota = lease.tenant, lease.month, lease.quota
        try:
            # What is on its way back and what is taken would together be more than may be lost.
            while returning := [task for task, names in self._returning.items() if tenant in names]:
                await asyncio.wait(returning)
            grant = await self._store.take(
                tenant,
                month,
                quota=quota,
                size=lambda remaining: lease.wanted(held.waiting, remaining),
            )
        except Unavailable as error:
            held.ask_again_at = self._clock() + _RETRY_S
            if not ahead or held.waiting:
                raise
            _log.warning("lease_not_renewed", tenant=tenant, why=error.reason)
            return
        finally:
            held.asking = None
        if self._tenants.get(tenant) is not held or lease.generation != generation:
            self._in_background([Return(tenant, month, grant.epoch, grant.units)])
            return
        lease.granted(grant.units, grant.remaining, grant.epoch)
        if not grant.remaining:
            held.empty_until = self._clock() + _RECHECK_S

    def _in_background(self, returns: Sequence[Return]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._give_back(returns))
        self._returning[task] = {one.tenant for one in returns if one.units}
        task.add_done_callback(self._returning.pop)
        return task

    async def _give_back(self, returns: Sequence[Return]) -> None:
        left = [one for one in returns if one.units and one.epoch]
        for start in range(0, len(left), _RETURNS_AT_ONCE):
            some = left[start : start + _RETURNS_AT_ONCE]
            try:
                await self._store.give_back(some)
            except Exception as error:
                # Whether it was committed is not known; to give them back again might give them twice.
                lost = sum(one.units for one in some)
                _log.warning("lease_lost", units=lost, tenants=len(some), why=repr(error))


def _left(lease: Lease) -> Return:
    return Return(lease.tenant, lease.month, lease.epoch, lease.unspent)


def _calls(number: int) -> str:
    return counted(number, "call", "calls")


def _used_up(lease: Lease, units: int) -> MonthlyQuotaExceeded:
    reset = reset_time(lease.month)
    at = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
    quota, are = _calls(lease.quota), "is" if lease.quota == 1 else "are"
    if not lease.quota:
        what = "The plan allows no calls that count"
    elif lease.unspent or units > 1:
        what = f"The call counts as {units}, and {lease.unspent} of the {quota} of the month {are} left"
    else:
        what = f"The {quota} of the month {are} used up"
    return MonthlyQuotaExceeded(
        f"{what}: wait until {at}, or ask for another plan.",
        subject=f"tenant:{lease.tenant}",
        reset_time=reset,
        metadata={"limit": str(lease.quota), "remaining": str(lease.unspent), "reset_time": at},
    )
