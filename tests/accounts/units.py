"""A database of quotas in memory, which can be away, and whose commits can be in doubt."""

import asyncio
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from service.errors import Unavailable
from service.store.quotas import Grant, Return


@dataclass
class Units:
    """Units that were taken, by tenant and month.

    Attributes:
        held: units that gateways took, by tenant and month.
        away: nothing can be asked.
        in_doubt: what is written is written, and the writer is told that the database is away.
        questions: how often `take` was called.
    """

    held: dict[tuple[str, str], int] = field(default_factory=dict)
    epochs: dict[tuple[str, str], str] = field(default_factory=dict)
    away: bool = False
    in_doubt: bool = False
    questions: int = 0

    async def take(self, tenant: str, month: str, *, quota: int, size: Callable[[int], int]) -> Grant:
        self.questions += 1
        await asyncio.sleep(0)
        self._reach()
        key = (tenant, month)
        remaining = max(0, quota - self.held.get(key, 0))
        units = max(0, min(remaining, size(remaining)))
        self.held[key] = self.held.get(key, 0) + units
        epoch = self.epochs.setdefault(key, secrets.token_hex(4))
        self._doubt()
        await asyncio.sleep(0)
        return Grant(units, remaining - units, epoch)

    async def give_back(self, returns: Iterable[Return]) -> None:
        await asyncio.sleep(0)
        self._reach()
        for one in returns:
            key = (one.tenant, one.month)
            if self.epochs.get(key) == one.epoch:
                self.held[key] -= one.units
        self._doubt()

    async def taken(self, tenant: str, month: str) -> int:
        self._reach()
        return self.held.get((tenant, month), 0)

    async def ping(self) -> None:
        self._reach()

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("The database is away: try again.", reason="DATABASE_UNAVAILABLE")

    def _doubt(self) -> None:
        if self.in_doubt:
            raise Unavailable("The database is away: try again.", reason="DATABASE_UNAVAILABLE")
