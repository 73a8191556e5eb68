"""Units of monthly quotas that gateways have taken: one row a tenant and month."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import and_, case, func, insert, select, text, update

from service.errors import NotFound
from service.store.database import Database
from service.store.schema import quota_months as table
from service.store.schema import tenants


@dataclass(frozen=True)
class Grant:
    """Units that a gateway took.

    Attributes:
        units: it may spend; 0 where there are none.
        remaining: units of the month that no gateway has taken after that.
        epoch: of the row; another one where the tenant was deleted and made again.
    """

    units: int
    remaining: int
    epoch: str


@dataclass(frozen=True)
class Return:
    """Units that a gateway did not spend."""

    tenant: str
    month: str
    epoch: str
    units: int


class QuotaStore:
    """Takes units from monthly quotas, and gives them back.

    Every method raises Unavailable while the database is away, busy, read-only or full. A unit is lost, and
    never given twice, where a connection is lost during a commit.

    Args:
        database: where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, tenant: str, month: str, *, quota: int, size: Callable[[int], int]) -> Grant:
        """Take units of a month.

        Args:
            tenant: owner of the quota.
            month: as 2026-11.
            quota: units of the whole month.
            size: of the remaining units, how many to take; never more than remain are.

        Raises:
            NotFound: there is no such tenant.
        """
        key = and_(table.c.tenant == tenant, table.c.month == month)
        async with self._database.write(lock=f"quota of {tenant}") as connection:
            row = (await connection.execute(select(table.c.taken, table.c.epoch).where(key))).first()
            taken, epoch = (0, secrets.token_hex(8)) if row is None else (row.taken, row.epoch)
            remaining = max(0, quota - taken)
            units = max(0, min(remaining, size(remaining)))
            if row is None:
                # Locked, so that the tenant is not deleted until the row is there to be deleted with it.
                found = select(tenants.c.name).where(tenants.c.name == tenant)
                found = found.with_for_update(read=True, key_share=True)
                if (await connection.execute(found)).first() is None:
                    raise NotFound(f"There is no tenant '{tenant}'.")
                await connection.execute(
                    insert(table).values(tenant=tenant, month=month, taken=units, epoch=epoch)
                )
            elif units:
                await connection.execute(update(table).where(key).values(taken=taken + units))
        return Grant(units, remaining - units, epoch)

    async def give_back(self, returns: Iterable[Return]) -> None:
        """Give units back that were not spent, all in one transaction."""
        statement = update(table).where(
            table.c.tenant == text(":of_tenant"),
            table.c.month == text(":of_month"),
            table.c.epoch == text(":of_epoch"),
        )
        rest = table.c.taken - text(":units")
        statement = statement.values(taken=case((rest > 0, rest), else_=0))
        rows = [
            {"of_tenant": one.tenant, "of_month": one.month, "of_epoch": one.epoch, "units": one.units}
            for one in sorted(
                returns, key=lambda one: (one.tenant, one.month)
            )  # no two gateways lock crosswise
        ]
        if not rows:
            return
        async with self._database.write() as connection:
            await connection.execute(statement, rows)

    async def taken(self, tenant: str, month: str) -> int:
        """Units of the month that gateways have taken, spent or not."""
        statement = select(func.coalesce(func.max(table.c.taken), 0)).where(
            table.c.tenant == tenant, table.c.month == month
        )
        async with self._database.read() as connection:
            found: int = (await connection.execute(statement)).scalar_one()
        return found

    async def ping(self) -> None:
        """Ask the database for nothing."""
        async with self._database.read() as connection:
            await connection.execute(select(1))
