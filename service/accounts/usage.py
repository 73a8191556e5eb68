"""Usage for invoices: counted in memory, written in batches."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Protocol

import structlog

from service.accounts.months import day_of
from service.errors import Unavailable
from service.store.usage import UsageRow

_log = structlog.get_logger()

COUNTED_RPCS = frozenset(
    {
        "DetectPoses",
        "BatchDetectPoses",
        "MeasureAngles",
        "AnalyzeVideo",
        "StreamPoses",
        "RenderPoses",
        "ExportPoses",
    }
)
"""What counts as a call of the month; to look at one's account, models and skeletons does not."""


class UsageSink(Protocol):
    """Where usage is added up; see `service.store.usage.UsageStore`."""

    async def add(self, gateway: str, number: int, rows: Sequence[UsageRow], now: datetime) -> None:
        """Add a batch once, however often it is written."""


class KeyUseSink(Protocol):
    """Where the last use of keys is noted; see `service.store.tenants.TenantStore`."""

    async def used(self, key_ids: Collection[str], hour: datetime) -> Sequence[str]:
        """The ids of those that were never used before."""


@dataclass(slots=True)
class _Counts:
    calls: int = 0
    pictures: int = 0
    video_ms: int = 0
    failures: int = 0


class UsageRecorder:
    """Counts calls, and notes which keys were used.

    A batch that could not be written is written again; what is in memory is lost where the process is killed.

    Args:
        store: where usage is added up.
        keys: where the last use of keys is noted.
        now: UTC.
    """

    def __init__(
        self,
        store: UsageSink,
        keys: KeyUseSink,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._keys = keys
        self._now = now
        self._gateway = secrets.token_hex(8)
        self._number = 0
        self._counts: dict[tuple[str, date, str], _Counts] = {}
        self._unwritten: Sequence[UsageRow] = ()
        self._hour = 0
        self._used: set[str] = set()  # since the last write
        self._noted: set[str] = set()  # in this hour

    def called(
        self, tenant: str, rpc: str, *, calls: int, failures: int, pictures: int = 0, video_ms: int = 0
    ) -> None:
        """Count a call that is over: as one that succeeded, that failed, both (a video that broke off), or
        neither (its caller left)."""
        key = (tenant, day_of(self._now()), rpc)
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = _Counts()
        counts.calls += calls
        counts.failures += failures
        counts.pictures += pictures
        counts.video_ms += video_ms

    def used(self, key_id: str) -> None:
        """Note that a key was accepted."""
        self._used.add(key_id)

    async def write(self) -> None:
        """Write what was counted since the last time; where the database is away it is kept for the next."""
        try:
            await self._write_counts()
            await self._write_uses()
        except Unavailable as error:
            _log.warning("usage_not_written", why=error.reason, rows=len(self._unwritten) + len(self._counts))

    async def _write_counts(self) -> None:
        """Write the batch that is left of a failure, then what was counted until now: calls that end while it
        is written are left to the next time, or writing would not end as long as there are calls."""
        if self._unwritten:
            await self._write_batch()
        if self._counts:
            self._unwritten = [
                UsageRow(tenant, day, rpc, counts.calls, counts.pictures, counts.video_ms, counts.failures)
                for (tenant, day, rpc), counts in self._counts.items()
            ]
            self._counts = {}
            self._number += 1
            await self._write_batch()

    async def _write_batch(self) -> None:
        await self._store.add(self._gateway, self._number, self._unwritten, self._now())
        self._unwritten = ()

    async def _write_uses(self) -> None:
        moment = self._now()
        hour = int(moment.timestamp() // 3600)
        if hour != self._hour:
            self._hour = hour
            self._noted.clear()
        noting = self._used - self._noted
        self._used = set()
        if noting:
            beginning = datetime.fromtimestamp(hour * 3600, UTC)
            try:
                first = await self._keys.used(noting, beginning)
            except Exception:
                self._used |= noting
                raise
            for key_id in first:
                _log.info("key_first_used", key_id=key_id)
            self._noted |= noting
