"""Usage by tenant, day and RPC: added up in batches, read for invoices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from service.store.database import Database
from service.store.schema import tenants, usage, usage_batches

_ROWS_AT_ONCE = 500
_FORGET = timedelta(days=7)  # a gateway that has not written for so long is gone
_COUNTS = ("calls", "pictures", "video_ms", "failures")


@dataclass(frozen=True)
class UsageRow:
    """What a tenant did with one RPC on one day.

    Attributes:
        tenant: its name.
        day: UTC.
        rpc: name of the method.
        calls: that succeeded.
        pictures: that were answered in them; frames of videos and streams are not among them.
        video_ms: milliseconds of video and of live streams that were analysed.
        failures: calls that failed or were refused after the key was accepted.
    """

    tenant: str
    day: date
    rpc: str
    calls: int
    pictures: int
    video_ms: int
    failures: int


class UsageStore:
    """Adds usage up.

    Every method raises Unavailable while the database is away, busy, read-only or full.

    Args:
        database: where it is kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, gateway: str, number: int, rows: Sequence[UsageRow], now: datetime) -> None:
        """Add a batch. The same batch may be written again where it is not known whether it was committed:
        it counts once. What belongs to a tenant that is gone is dropped.

        Args:
            gateway: a name of the process that no other one has.
            number: of its batch, one higher each time.
            rows: one for each tenant, day and RPC.
            now: UTC.
        """
        ordered = sorted(rows, key=lambda row: (row.tenant, row.day, row.rpc))  # no two lock crosswise
        async with self._database.write(lock="usage") as connection:
            latest = await connection.scalar(
                select(usage_batches.c.number).where(usage_batches.c.gateway == gateway)
            )
            if latest is not None and latest >= number:
                return
            await _upsert(
                connection,
                usage_batches,
                [{"gateway": gateway, "number": number, "write_time": now}],
                replaced=("number", "write_time"),
            )
            await connection.execute(delete(usage_batches).where(usage_batches.c.write_time < now - _FORGET))
            for start in range(0, len(ordered), _ROWS_AT_ONCE):
                some = ordered[start : start + _ROWS_AT_ONCE]
                names = {row.tenant for row in some}
                # Locked, so that a tenant is not deleted until its rows are there to be deleted with it.
                there = select(tenants.c.name).where(tenants.c.name.in_(names)).order_by(tenants.c.name)
                there = there.with_for_update(read=True, key_share=True)
                known = set((await connection.execute(there)).scalars())
                values = [_values(row) for row in some if row.tenant in known]
                if values:
                    await _upsert(connection, usage, values, added=_COUNTS)

    async def between(self, first: date, end: date, *, tenant: str = "") -> Sequence[UsageRow]:
        """Usage of days, by tenant, day and RPC.

        Args:
            first: the first day.
            end: the day after the last one.
            tenant: only this one's; empty for all.
        """
        statement = select(usage).where(usage.c.day >= first, usage.c.day < end)
        if tenant:
            statement = statement.where(usage.c.tenant == tenant)
        async with self._database.read() as connection:
            rows = await connection.execute(statement.order_by(usage.c.tenant, usage.c.day, usage.c.rpc))
            return [UsageRow(**row) for row in rows.mappings()]


def _values(row: UsageRow) -> Mapping[str, Any]:
    return {name: getattr(row, name) for name in UsageRow.__dataclass_fields__}


async def _upsert(
    connection: AsyncConnection,
    table: Any,
    values: Sequence[Mapping[str, Any]],
    *,
    added: Sequence[str] = (),
    replaced: Sequence[str] = (),
) -> None:
    """Insert rows, or add to and replace columns of those that are there."""
    dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).values(list(values))
    changes = {name: table.c[name] + statement.excluded[name] for name in added}
    changes |= {name: statement.excluded[name] for name in replaced}
    keys = list(table.primary_key.columns)
    await connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes))
