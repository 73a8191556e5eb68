"""Custom skeletons of every tenant, kept."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Text, and_, case, cast, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.skeleton.template import Skeleton
from service.errors import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    Unauthenticated,
)
from service.store.database import Database
from service.store.failures import StoreError
from service.store.schema import skeletons as table
from service.store.schema import tenants

_ETAG = re.compile(r"[0-9a-f]{32}")
_ROWS_AT_ONCE = 16
# The definition as text: it is parsed away from the event loop.
_WHOLE = select(
    table.c.name,
    cast(table.c.definition, Text).label("definition"),
    table.c.etag,
    table.c.create_time,
    table.c.update_time,
)


@dataclass(frozen=True)
class KeptSkeleton:
    """A skeleton as it is kept.

    Attributes:
        skeleton: the template.
        etag: another one after every change.
        create_time: when it was made, UTC.
        update_time: when it was last changed, UTC.
    """

    skeleton: Skeleton
    etag: str
    create_time: datetime
    update_time: datetime


class SkeletonFormat(Protocol):
    """Text form of a skeleton, as the database holds it."""

    def load(self, text: str) -> Skeleton:
        """The skeleton in a text; InvalidRequest or ValueError where it holds none."""

    def dump(self, skeleton: Skeleton) -> str:
        """The text that `load` reads."""


class SkeletonStore:
    """Custom skeletons by tenant and name. No tenant sees another's.

    Every method raises Unavailable while the database is away, busy, read-only or full.

    Args:
        database: where they are kept.
        text_format: of the definitions.
        max_skeletons: of one tenant.
        of_tenants: only for those that are in the database; else for any.
    """

    def __init__(
        self,
        database: Database,
        text_format: SkeletonFormat,
        *,
        max_skeletons: int,
        of_tenants: bool = False,
    ) -> None:
        self._database = database
        self._format = text_format
        self._of_tenants = of_tenants
        self._max_skeletons = max_skeletons

    async def get(self, tenant: str, name: str) -> KeptSkeleton | None:
        """The tenant's skeleton of that name."""
        if not _can_be_kept(tenant, name):
            return None
        async with self._database.read() as connection:
            row = (await connection.execute(_WHOLE.where(_key(tenant, name)))).mappings().first()
        return None if row is None else await asyncio.to_thread(self._kept, dict(row))

    async def etag(self, tenant: str, name: str) -> str | None:
        """The etag of the tenant's skeleton of that name, for less than the skeleton."""
        if not _can_be_kept(tenant, name):
            return None
        async with self._database.read() as connection:
            return await _etag(connection, tenant, name)

    async def page(
        self, tenant: str, *, after: str, length: int, max_size: int
    ) -> tuple[Sequence[KeptSkeleton], bool]:
        """The tenant's skeletons by name, and whether there are more.

        Args:
            tenant: the owner.
            after: only names beyond it; empty for all.
            length: at most so many.
            max_size: characters of JSON; none is added to a page that has as many, so one is always there.
        """
        if not _can_be_kept(tenant, after):
            return [], False
        rows: list[Mapping[str, Any]] = []
        size, more = 0, True
        async with self._database.read() as connection:
            while more and len(rows) < length and size < max_size:
                wanted = min(_ROWS_AT_ONCE, length - len(rows))
                statement = (
                    _WHOLE.where(
                        table.c.tenant == tenant, table.c.name > (rows[-1]["name"] if rows else after)
                    )
                    .order_by(table.c.name)
                    .limit(wanted + 1)
                )
                found = (await connection.execute(statement)).mappings().all()
                more = len(found) > wanted
                for number, row in enumerate(found[:wanted]):
                    rows.append(dict(row))
                    size += len(row["definition"])
                    if size >= max_size:
                        more = more or number + 1 < wanted
                        break
        return await asyncio.to_thread(lambda: [self._kept(row) for row in rows]), more

    async def create(self, tenant: str, skeleton: Skeleton, *, at_most: int | None = None) -> KeptSkeleton:
        """Keep a new one, which has been checked.

        Args:
            tenant: the owner.
            skeleton: the template.
            at_most: so many of the tenant's, where that is fewer than of any tenant; None for no difference.

        Raises:
            Unauthenticated: the tenant was deleted.
            AlreadyExists: the tenant has one of that name.
            QuotaExceeded: the tenant has as many as allowed.
        """
        name = skeleton.name
        definition = await asyncio.to_thread(self._format.dump, skeleton)
        now = datetime.now(UTC)
        kept = KeptSkeleton(skeleton, _new_etag(), now, now)
        # The lock makes counting and adding one step, and of two who want a name the second sees the first.
        async with self._database.write(lock=f"skeletons of {tenant}") as connection:
            there = select(tenants.c.name).where(tenants.c.name == tenant)
            if self._of_tenants and await connection.scalar(there) is None:
                raise Unauthenticated("The API key is not valid any more: its tenant was deleted.")
            same_name = func.coalesce(func.sum(case((table.c.name == name, 1), else_=0)), 0)
            taken, count = (
                await connection.execute(select(same_name, func.count()).where(table.c.tenant == tenant))
            ).one()
            if taken:
                raise _taken(name)
            limit = self._max_skeletons if at_most is None else min(at_most, self._max_skeletons)
            if count >= limit:
                raise QuotaExceeded(
                    f"There are {count} custom skeletons, as many as are allowed: delete one first.",
                    reason="TOO_MANY_SKELETONS",
                    metadata={"limit": str(limit), "actual": str(count + 1)},
                )
            row = insert(table).values(
                tenant=tenant,
                name=name,
                definition=definition,
                etag=kept.etag,
                create_time=now,
                update_time=now,
            )
            try:
                await connection.execute(row)
            except IntegrityError as error:
                raise _taken(name) from error
        return kept

    async def update(self, tenant: str, skeleton: Skeleton, *, etag: str = "") -> KeptSkeleton:
        """Replace one as a whole.

        Args:
            tenant: the owner.
            skeleton: what is to be there; it has been checked.
            etag: replace that version only; empty: whatever is there.

        Raises:
            NotFound: the tenant has none of that name.
            Conflict: the etag is not the current one.
        """
        definition = await asyncio.to_thread(self._format.dump, skeleton)
        now, new_etag = datetime.now(UTC), _new_etag()
        statement = (
            update(table)
            .where(_version(tenant, skeleton.name, etag))
            .values(definition=definition, etag=new_etag, update_time=now)
            .returning(table.c.create_time)
        )
        async with self._database.write() as connection:
            created = (await connection.execute(statement)).scalar_one_or_none()
            if created is None:
                raise await _absent(connection, tenant, skeleton.name, etag)
        return KeptSkeleton(skeleton, new_etag, created, now)

    async def delete(self, tenant: str, name: str, *, etag: str = "") -> None:
        """Remove one.

        Args:
            tenant: the owner.
            name: of the skeleton.
            etag: remove that version only; empty: whatever is there.

        Raises:
            NotFound: the tenant has none of that name.
            Conflict: the etag is not the current one.
        """
        if not _can_be_kept(tenant, name):
            raise not_found(name)
        async with self._database.write() as connection:
            if (await connection.execute(delete(table).where(_version(tenant, name, etag)))).rowcount != 1:
                raise await _absent(connection, tenant, name, etag)

    def _kept(self, row: Mapping[str, Any]) -> KeptSkeleton:
        try:
            skeleton = self._format.load(row["definition"])
        except (ValueError, InvalidRequest) as error:
            raise StoreError(f"the definition of skeleton '{row['name']}' is damaged") from error
        return KeptSkeleton(skeleton, row["etag"], row["create_time"], row["update_time"])


def not_found(name: str) -> NotFound:
    """There is no skeleton of that name."""
    return NotFound(
        f"There is no skeleton '{name}'.", reason="SKELETON_NOT_FOUND", metadata={"skeleton": name}
    )


def _taken(name: str) -> AlreadyExists:
    return AlreadyExists(
        f"There is a skeleton '{name}': choose another name, or update it.",
        reason="SKELETON_EXISTS",
        metadata={"skeleton": name},
    )


async def _absent(connection: AsyncConnection, tenant: str, name: str, etag: str) -> NotFound | Conflict:
    """Why nothing was changed: another version is there, or none."""
    if etag and await _etag(connection, tenant, name) is not None:
        return Conflict(
            f"Skeleton '{name}' was changed meanwhile: get it again, and send its new etag.",
            reason="SKELETON_CHANGED",
            metadata={"skeleton": name},
        )
    return not_found(name)


async def _etag(connection: AsyncConnection, tenant: str, name: str) -> str | None:
    found: str | None = await connection.scalar(select(table.c.etag).where(_key(tenant, name)))
    return found


def _key(tenant: str, name: str) -> ColumnElement[bool]:
    return and_(table.c.tenant == tenant, table.c.name == name)


def _version(tenant: str, name: str, etag: str) -> ColumnElement[bool]:
    if not etag:
        return _key(tenant, name)
    # One that we never gave is never current, and need not be text that the database can hold.
    return and_(_key(tenant, name), table.c.etag == (etag if _ETAG.fullmatch(etag) else ""))


def _new_etag() -> str:
    # Random, not a digest: a skeleton that was deleted and made again is another one.
    return secrets.token_hex(16)


def _can_be_kept(*texts: str) -> bool:
    """Whether it is text that both databases can hold: no NUL, nothing that is not UTF-8."""
    return not any("\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text) for text in texts)
