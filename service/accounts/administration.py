"""The use case of operators: tenants and keys are made, changed and removed.

It works on the database; no call over the network comes here. Every change leaves a line in the log, and no
key does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from service.accounts.keys import new_key
from service.core.plan import is_tenant_name
from service.errors import InvalidRequest, Violation
from service.store.tenants import KeyRecord, Tenant, TenantStore

_log = structlog.get_logger()

_MAX_LABEL = 100


@dataclass(frozen=True)
class NewKey:
    """A key that was made: the only time that its text is seen.

    Attributes:
        record: what is kept.
        text: the key.
    """

    record: KeyRecord
    text: str = field(repr=False)


class Administration:
    """Changes tenants and keys.

    Args:
        store: where they are kept.
        plans: names of those there are.
        operator: who makes the changes, for the log.
        now: UTC.
    """

    def __init__(
        self,
        store: TenantStore,
        plans: Collection[str],
        *,
        operator: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._plans = plans
        self._operator = operator
        self._now = now

    async def create_tenant(self, name: str, plan: str) -> Tenant:
        """Add a tenant.

        Raises:
            InvalidRequest: name or plan cannot be used.
            AlreadyExists: there is one of that name.
            Unavailable: the database is away.
        """
        if not is_tenant_name(name):
            raise _wrong(
                "name", "must be 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first and last"
            )
        self._check(plan)
        tenant = await self._store.create(name, plan, self._now())
        _log.info("tenant_created", tenant=name, plan=plan, operator=self._operator)
        return tenant

    async def set_plan(self, name: str, plan: str) -> None:
        """Give a tenant another plan.

        Raises:
            InvalidRequest: there is no such plan.
            NotFound: there is no such tenant.
            Unavailable: the database is away.
        """
        self._check(plan)
        await self._store.set_plan(name, plan)
        _log.info("tenant_plan_set", tenant=name, plan=plan, operator=self._operator)

    async def delete_tenant(self, name: str) -> None:
        """Remove a tenant with all that is its own.

        Raises:
            NotFound: there is no such tenant.
            Unavailable: the database is away.
        """
        await self._store.delete(name)
        _log.info("tenant_deleted", tenant=name, operator=self._operator)

    async def create_key(self, tenant: str, label: str, lifetime: timedelta | None) -> NewKey:
        """Make a key.

        Args:
            tenant: the owner.
            label: for people.
            lifetime: until it expires; None for never.

        Raises:
            InvalidRequest: the label or the time cannot be used.
            NotFound: there is no such tenant.
            Unavailable: the database is away.
        """
        if len(label) > _MAX_LABEL or not label.isprintable():
            raise _wrong("label", f"must be at most {_MAX_LABEL} printable characters")
        if lifetime is not None and lifetime <= timedelta():
            raise _wrong("expires", "must be more than 0, or the key would never be good")
        now = self._now()
        key = new_key()
        record = KeyRecord(key.key_id, tenant, label, now, _after(now, lifetime, "expires"))
        await self._store.add_key(record, key.digest)
        _log.info("key_created", tenant=tenant, key_id=key.key_id, label=label, operator=self._operator)
        return NewKey(record, key.text)

    async def rotate_key(self, key_id: str, overlap: timedelta) -> NewKey:
        """Make a key that takes the place of another one; the old one stays good for a while.

        Args:
            key_id: of the old one.
            overlap: how long it stays good.

        Raises:
            InvalidRequest: the time cannot be used.
            NotFound: there is no live key of that id.
            Unavailable: the database is away.
        """
        now = self._now()
        until = _after(now, overlap, "overlap") or now
        key = new_key()
        record = await self._store.replace_key(key_id, key.key_id, key.digest, now=now, old_expires=until)
        _log.info(
            "key_rotated",
            tenant=record.tenant,
            key_id=key_id,
            new_key_id=key.key_id,
            old_until=until.isoformat(),
            operator=self._operator,
        )
        return NewKey(record, key.text)

    async def revoke_key(self, key_id: str) -> KeyRecord:
        """End a key at once.

        Raises:
            NotFound: there is no key of that id.
            Unavailable: the database is away.
        """
        record = await self._store.revoke_key(key_id, self._now())
        _log.info("key_revoked", tenant=record.tenant, key_id=key_id, operator=self._operator)
        return record

    def _check(self, plan: str) -> None:
        if plan not in self._plans:
            raise _wrong("plan", f"must be one of {', '.join(self._plans)}, not '{plan}'")


def _after(now: datetime, time: timedelta | None, name: str) -> datetime | None:
    if time is None:
        return None
    try:
        return now + time
    except OverflowError:
        raise _wrong(name, "is too far away") from None


def _wrong(name: str, description: str) -> InvalidRequest:
    return InvalidRequest(f"{name} {description}.", violations=[Violation(name, description)])
