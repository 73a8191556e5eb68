"""Tenants and their API keys. Changes run one at a time and are numbered, so that gateways can ask for what
is new since they looked last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, and_, case, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.errors import AlreadyExists, NotFound
from service.store.database import Database
from service.store.schema import account_revision, api_keys, quota_months, skeletons, tenants, usage

_ROWS_AT_ONCE = 500
_LOCK = "accounts"
# What gateways need of a key.
_LIVE = (
    select(
        api_keys.c.key_id,
        api_keys.c.tenant,
        tenants.c.plan,
        api_keys.c.digest,
        api_keys.c.expire_time,
        api_keys.c.revoke_time,
    )
    .join(tenants, tenants.c.name == api_keys.c.tenant)
    .order_by(api_keys.c.key_id)
)


@dataclass(frozen=True)
class Tenant:
    """A tenant.

    Attributes:
        name: also the owner of custom skeletons.
        plan: name of its plan.
        create_time: UTC.
        keys: how many live keys it has.
        skeletons: how many custom skeletons it has.
    """

    name: str
    plan: str
    create_time: datetime
    keys: int = 0
    skeletons: int = 0


@dataclass(frozen=True)
class KeyRecord:
    """A key as it is kept: without its secret.

    Attributes:
        key_id: its public part.
        tenant: the owner.
        label: for people.
        create_time: UTC.
        expire_time: UTC; None for never.
        revoke_time: UTC; None where it was not revoked.
        last_use_time: UTC, to the hour; None where it was never used.
    """

    key_id: str
    tenant: str
    label: str
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    last_use_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyState:
    """What a gateway needs of a key.

    Attributes:
        key_id: its public part.
        tenant: the owner.
        plan: of the tenant.
        digest: SHA-256 of the key, 32 bytes.
        expires: seconds of Unix time; None for never.
        revoked: whether it was revoked.
    """

    key_id: str
    tenant: str
    plan: str
    digest: bytes = field(repr=False)
    expires: float | None
    revoked: bool


@dataclass(frozen=True)
class KeyChanges:
    """Keys that changed, or all keys.

    Attributes:
        revision: of the accounts, now.
        complete: `keys` are all there are; else those that changed.
        keys: revoked ones among them only where not complete.
    """

    revision: int
    complete: bool
    keys: Sequence[KeyState]


class TenantStore:
    """Tenants and keys.

    Every method raises Unavailable while the database is away, busy, read-only or full.

    Args:
        database: where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: str, plan: str, now: datetime) -> Tenant:
        """Add a tenant.

        Raises:
            AlreadyExists: there is one of that name.
        """
        async with self._changing() as (connection, revision):
            if await _exists(connection, name):
                raise AlreadyExists(f"There is a tenant '{name}': choose another name.")
            for table in (quota_months, usage):  # left over from a deleted tenant of that name
                await connection.execute(delete(table).where(table.c.tenant == name))
            await connection.execute(
                insert(tenants).values(name=name, plan=plan, create_time=now, revision=revision)
            )
        return Tenant(name, plan, now)

    async def page(self, *, after: str = "", length: int = _ROWS_AT_ONCE) -> Sequence[Tenant]:
        """Tenants by name, those beyond `after`."""
        statement = _counted().where(tenants.c.name > after).limit(length)
        async with self._database.read() as connection:
            return [_tenant(row) for row in (await connection.execute(statement)).all()]

    async def get(self, name: str) -> Tenant:
        """The tenant of that name.

        Raises:
            NotFound: there is none.
        """
        async with self._database.read() as connection:
            row = (await connection.execute(_counted().where(tenants.c.name == name))).first()
        if row is None:
            raise no_tenant(name)
        return _tenant(row)

    async def set_plan(self, name: str, plan: str) -> None:
        """Give a tenant another plan.

        Raises:
            NotFound: there is none of that name.
        """
        async with self._changing() as (connection, revision):
            statement = update(tenants).where(tenants.c.name == name).values(plan=plan, revision=revision)
            if (await connection.execute(statement)).rowcount != 1:
                raise no_tenant(name)

    async def delete(self, name: str) -> None:
        """Remove a tenant with its keys, skeletons, quotas and usage.

        Raises:
            NotFound: there is none of that name.
        """
        async with self._changing(removes=True, owner=name) as (connection, _):
            locked = select(tenants.c.name).where(tenants.c.name == name).with_for_update()
            if (await connection.execute(locked)).first() is None:
                raise no_tenant(name)
            for table in (api_keys, skeletons, quota_months, usage):
                await connection.execute(delete(table).where(table.c.tenant == name))
            await connection.execute(delete(tenants).where(tenants.c.name == name))

    async def add_key(self, key: KeyRecord, digest: bytes) -> None:
        """Keep a key.

        Raises:
            NotFound: there is no such tenant.
        """
        async with self._changing() as (connection, revision):
            await _add_key(connection, key, digest, revision)

    async def replace_key(
        self, old_id: str, new_id: str, digest: bytes, *, now: datetime, old_expires: datetime
    ) -> KeyRecord:
        """Keep a new key for the tenant of an old one, with its label and its time to live; the old one
        expires then, if not before.

        Raises:
            NotFound: there is no live key of that id.
        """
        async with self._changing() as (connection, revision):
            row = (await connection.execute(_keys().where(api_keys.c.key_id == old_id))).first()
            if row is None or row.revoke_time or (row.expire_time and row.expire_time <= now):
                raise no_key(old_id)
            old = _key(row)
            expires = None if old.expire_time is None else now + (old.expire_time - old.create_time)
            new = KeyRecord(new_id, old.tenant, old.label, now, expires)
            await _add_key(connection, new, digest, revision)
            until = old_expires if old.expire_time is None else min(old.expire_time, old_expires)
            statement = update(api_keys).where(api_keys.c.key_id == old_id)
            await connection.execute(statement.values(expire_time=until, revision=revision))
        return new

    async def revoke_key(self, key_id: str, now: datetime) -> KeyRecord:
        """End a key at once. One that was revoked before stays as it is.

        Raises:
            NotFound: there is no key of that id.
        """
        async with self._changing() as (connection, revision):
            moment = func.coalesce(api_keys.c.revoke_time, now)
            statement = update(api_keys).where(api_keys.c.key_id == key_id)
            await connection.execute(statement.values(revoke_time=moment, revision=revision))
            row = (await connection.execute(_keys().where(api_keys.c.key_id == key_id))).first()
            if row is None:
                raise no_key(key_id)
        return _key(row)

    async def keys(self, tenant: str) -> Sequence[KeyRecord]:
        """A tenant's keys, the oldest first.

        Raises:
            NotFound: there is no such tenant.
        """
        statement = _keys().where(api_keys.c.tenant == tenant)
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
            if not rows and not await _exists(connection, tenant):
                raise no_tenant(tenant)
        return [_key(row) for row in rows]

    async def changes(self, since: int | None) -> KeyChanges | None:
        """What changed since a revision; None where nothing did.

        Args:
            since: the revision that is known; None for everything.
        """
        async with self._database.read() as connection:
            latest, removal = (
                await connection.execute(select(account_revision.c.latest, account_revision.c.latest_removal))
            ).one()
            if since == latest:
                return None
            # Rows may be newer than the number that was read before them: they come again next time.
            if since is None or not removal <= since <= latest:
                return KeyChanges(latest, True, await _all_live(connection))
            changed = or_(api_keys.c.revision > since, tenants.c.revision > since)
            rows = (await connection.execute(_LIVE.where(changed))).all()
        return KeyChanges(latest, False, [_state(row) for row in rows])

    async def used(self, key_ids: Collection[str], hour: datetime) -> Sequence[str]:
        """Note that keys were used in an hour; the ids of those that were never used before."""
        first: list[str] = []
        async with self._database.write() as connection:
            for some in _portions(sorted(key_ids)):
                known = api_keys.c.key_id.in_(some)
                statement = select(api_keys.c.key_id).where(known, api_keys.c.last_use_time.is_(None))
                first += (await connection.execute(statement)).scalars().all()
                earlier = or_(api_keys.c.last_use_time.is_(None), api_keys.c.last_use_time < hour)
                await connection.execute(
                    update(api_keys).where(and_(known, earlier)).values(last_use_time=hour)
                )
        return first

    @asynccontextmanager
    async def _changing(
        self, *, removes: bool = False, owner: str = ""
    ) -> AsyncIterator[tuple[AsyncConnection, int]]:
        """A transaction with the number of its change. They run one after the other, so that no number is
        seen before a smaller one."""
        async with self._database.write(lock=_LOCK) as connection:
            if owner:
                await self._database.lock(connection, f"skeletons of {owner}")
            latest = account_revision.c.latest + 1
            statement = update(account_revision).values(
                latest=latest, latest_removal=latest if removes else account_revision.c.latest_removal
            )
            revision = (await connection.execute(statement.returning(account_revision.c.latest))).scalar_one()
            yield connection, revision


def no_tenant(name: str) -> NotFound:
    """There is no tenant of that name."""
    return NotFound(f"There is no tenant '{name}'.")


def no_key(key_id: str) -> NotFound:
    """There is no live key of that id."""
    return NotFound(f"There is no live key '{key_id}': give the 8 characters between pg_ and the second _.")


def _counted() -> Any:
    not_over = or_(api_keys.c.expire_time.is_(None), api_keys.c.expire_time > datetime.now(UTC))
    is_live = and_(api_keys.c.key_id.is_not(None), api_keys.c.revoke_time.is_(None), not_over)
    live = func.sum(case((is_live, 1), else_=0))
    owned = (
        select(func.count())
        .select_from(skeletons)
        .where(skeletons.c.tenant == tenants.c.name)
        .scalar_subquery()
    )
    return (
        select(
            tenants.c.name,
            tenants.c.plan,
            tenants.c.create_time,
            func.coalesce(live, 0).label("live_keys"),
            owned.label("skeletons"),
        )
        .outerjoin(api_keys, api_keys.c.tenant == tenants.c.name)
        .group_by(tenants.c.name, tenants.c.plan, tenants.c.create_time)
        .order_by(tenants.c.name)
    )


def _keys() -> Any:
    columns = [api_keys.c[name] for name in KeyRecord.__dataclass_fields__]
    return select(*columns).order_by(api_keys.c.create_time, api_keys.c.key_id)


async def _add_key(connection: AsyncConnection, key: KeyRecord, digest: bytes, revision: int) -> None:
    if not await _exists(connection, key.tenant):
        raise no_tenant(key.tenant)
    values = {name: getattr(key, name) for name in KeyRecord.__dataclass_fields__}
    await connection.execute(insert(api_keys).values(**values, digest=digest, revision=revision))


async def _exists(connection: AsyncConnection, name: str) -> bool:
    return await connection.scalar(select(tenants.c.name).where(tenants.c.name == name)) is not None


async def _all_live(connection: AsyncConnection) -> Sequence[KeyState]:
    """A portion at a time: the event loop has other things to do."""
    found: list[KeyState] = []
    while True:
        statement = _LIVE.where(api_keys.c.revoke_time.is_(None)).limit(_ROWS_AT_ONCE)
        if found:
            statement = statement.where(api_keys.c.key_id > found[-1].key_id)
        rows = (await connection.execute(statement)).all()
        found += [_state(row) for row in rows]
        if len(rows) < _ROWS_AT_ONCE:
            return found


def _tenant(row: Row[Any]) -> Tenant:
    return Tenant(row.name, row.plan, row.create_time, int(row.live_keys), int(row.skeletons))


def _key(row: Row[Any]) -> KeyRecord:
    return KeyRecord(**{name: getattr(row, name) for name in KeyRecord.__dataclass_fields__})


def _state(row: Any) -> KeyState:
    return KeyState(
        key_id=row.key_id,
        tenant=row.tenant,
        plan=row.plan,
        digest=bytes(row.digest),
        expires=None if row.expire_time is None else row.expire_time.timestamp(),
        revoked=row.revoke_time is not None,
    )


def _portions(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + _ROWS_AT_ONCE] for start in range(0, len(ids), _ROWS_AT_ONCE))
