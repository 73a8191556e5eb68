"""The tables, as the newest migration leaves them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Date,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator

# By code point, as Python and SQLite order text: paging must not depend on a database's locale.
Name = Text().with_variant(Text(collation="C"), "postgresql")
Document = JSON().with_variant(JSONB(), "postgresql")


class Instant(TypeDecorator[datetime]):
    """A moment with its time zone, UTC; SQLite keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """What came from the database, in UTC."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


metadata = MetaData()

skeletons = Table(
    "skeletons",
    metadata,
    Column("tenant", Name, primary_key=True),
    Column("name", Name, primary_key=True),
    Column("definition", Document, nullable=False),
    Column("etag", Text, nullable=False),
    Column("create_time", Instant, nullable=False),
    Column("update_time", Instant, nullable=False),
)

tenants = Table(
    "tenants",
    metadata,
    Column("name", Name, primary_key=True),
    Column("plan", Text, nullable=False),
    Column("create_time", Instant, nullable=False),
    Column("revision", BigInteger, nullable=False),  # of account_revision, at the last change
    Index("tenants_revision", "revision"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Name, primary_key=True),
    Column("tenant", Name, ForeignKey("tenants.name", ondelete="CASCADE"), nullable=False),
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the key; the key itself is nowhere
    Column("label", Text, nullable=False),
    Column("create_time", Instant, nullable=False),
    Column("expire_time", Instant),
    Column("revoke_time", Instant),
    Column("last_use_time", Instant),  # to the hour
    Column("revision", BigInteger, nullable=False),
    Index("api_keys_tenant", "tenant"),
    Index("api_keys_revision", "revision"),
)

# One row: how gateways find what changed since they looked last.
account_revision = Table(
    "account_revision",
    metadata,
    Column("only", Integer, primary_key=True, autoincrement=False),
    Column("latest", BigInteger, nullable=False),
    Column("latest_removal", BigInteger, nullable=False),  # what is removed leaves no row with a revision
)

quota_months = Table(
    "quota_months",
    metadata,
    Column("tenant", Name, primary_key=True),
    Column("month", Text, primary_key=True),
    Column("taken", BigInteger, nullable=False),  # units that gateways took and did not give back
    Column("epoch", Text, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("tenant", Name, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("rpc", Text, primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("pictures", BigInteger, nullable=False),
    Column("video_ms", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
)

# The last batch of each gateway: one that is written again, because its commit was in doubt, counts once.
usage_batches = Table(
    "usage_batches",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("write_time", Instant, nullable=False),
)
