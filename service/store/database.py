"""Transactions on the database. It is made ready on first use, and again when it was away: the
gateway starts and detects people without it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.settings import Settings
from service.store import migrate
from service.store.address import Address, SqliteAddress, parse
from service.store.engine import connect
from service.store.failures import lacks_schema, translate, why

_log = structlog.get_logger()

_MIGRATION_TIMEOUT_S = 60.0
_RETRY_S = 1.0


class Database:
    """One database and the connections to it.

    Args:
        where: it is.
        connections: at most.
        timeout_s: of one transaction, from waiting for a connection to commit.

    Raises:
        BadDatabaseUrl: its driver is not installed.
    """

    def __init__(self, where: Address, *, connections: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._engine = connect(where, connections=connections, timeout_s=timeout_s)
        self._is_ready = False
        self._preparation: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._retry_at = 0.0

    def start(self) -> None:
        """Start preparing it in the background; transactions wait for the end."""
        self._prepare_again()

    async def close(self) -> None:
        """Close every connection; one to a server that no longer answers is left behind."""
        if self._preparation is not None:
            self._preparation.cancel()
            await asyncio.wait([self._preparation])
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self._engine.reader.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that changes nothing.

        Raises:
            Unavailable: the database is away or busy.
        """
        with self._translated():
            async with asyncio.timeout(self._timeout_s):
                await self._ready()
                async with self._engine.reader.connect() as connection:
                    yield connection

    @asynccontextmanager
    async def write(self, *, lock: str = "") -> AsyncIterator[AsyncConnection]:
        """A transaction that is on disk when the block is left without an error.

        Args:
            lock: no two transactions with the same one run at once, on any gateway.

        Raises:
            Unavailable: the database is away, busy, read-only or full; nothing was changed, unless the
                connection was lost during the commit.
        """
        with self._translated():
            async with asyncio.timeout(self._timeout_s):
                await self._ready()
                async with self._engine.writer.begin() as connection:
                    await self._engine.prepare_write(connection)
                    if lock:
                        await self._engine.lock(connection, lock)
                    yield connection

    async def lock(self, connection: AsyncConnection, what: str) -> None:
        """Wait until no other transaction holds `what`; held until that of `connection` ends."""
        await self._engine.lock(connection, what)

    async def _ready(self) -> None:
        if self._is_ready:
            return
        preparation = self._preparation
        if preparation is None or (preparation.done() and time.monotonic() >= self._retry_at):
            preparation = self._prepare_again()
        # Shielded: a caller who goes away must not stop a migration that others wait for.
        await asyncio.shield(preparation)
        if self._failure is not None:
            raise translate(self._failure) from self._failure

    def _prepare_again(self) -> asyncio.Task[None]:
        self._preparation = asyncio.create_task(self._prepare())
        return self._preparation

    async def _prepare(self) -> None:
        try:
            async with asyncio.timeout(_MIGRATION_TIMEOUT_S):
                async with self._engine.reader.connect() as connection:
                    current = await connection.run_sync(migrate.is_current)
                if not current:
                    await self._migrate()
        except Exception as error:
            self._failure, self._retry_at = error, time.monotonic() + _RETRY_S
            _log.warning("database_not_ready", why=why(error))
        else:
            self._failure, self._is_ready = None, True
            self._engine.keep_existing()
            _log.info("database_ready", dialect=self._engine.reader.dialect.name)

    async def _migrate(self) -> None:
        async with self._engine.writer.begin() as connection:
            await self._engine.prepare_write(connection, timeout_s=_MIGRATION_TIMEOUT_S)
            # Two gateways may start at once: the second one finds the work done.
            await self._engine.lock(connection, "schema")
            await connection.run_sync(migrate.upgrade)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            if lacks_schema(error):
                self._is_ready = False
            _log.warning("database_failed", why=why(error))
            raise translate(error) from error


def database_of(settings: Settings) -> Database:
    """The database that the settings name; nothing is connected yet.

    Raises:
        BadDatabaseUrl: its URL is not one that can be used.
    """
    url = settings.database_url.get_secret_value()
    return Database(
        parse(url) if url else SqliteAddress(settings.home.absolute() / "posegate.db"),
        connections=settings.database_connections,
        timeout_s=settings.database_timeout_s,
    )
