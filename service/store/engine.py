"""Connections: the differences between SQLite and PostgreSQL, hidden from all other modules."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, event, func, select, text
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from service.store.address import Address, BadDatabaseUrl, PostgresAddress, SqliteAddress

# Of the caller's time limit, what a lock may take: the database then says itself what was the matter.
_LOCK_SHARE = 0.8
_RECYCLE_S = 300
_BEGIN = "posegate_begin"


class PostgresEngine:
    """Connections to a PostgreSQL server.

    Args:
        address: the server.
        connections: at most.
        timeout_s: of one transaction.
    """

    def __init__(self, address: PostgresAddress, connections: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        try:
            self.writer: AsyncEngine = create_async_engine(
                "postgresql+asyncpg://",
                connect_args={
                    "dsn": address.dsn,  # asyncpg reads libpq's options: sslmode, several hosts and so on
                    "timeout": timeout_s,
                    "server_settings": {"application_name": "posegate"},
                },
                isolation_level="READ COMMITTED",
                pool_pre_ping=True,  # a restart of the server must not cost a call per connection
                **_common(connections, timeout_s),
            )
        except ModuleNotFoundError as error:
            raise BadDatabaseUrl("PostgreSQL needs its driver: pip install 'posegate[postgres]'.") from error
        self.reader = self.writer.execution_options(isolation_level="AUTOCOMMIT")  # no BEGIN, no ROLLBACK

    def keep_existing(self) -> None:
        """Nothing to do: a server does not make databases on its own."""

    async def prepare_write(self, connection: AsyncConnection, *, timeout_s: float | None = None) -> None:
        """Limits that hold on the server too: a gateway that vanishes must not leave its locks behind.

        Per transaction, because a pooler between refuses settings of a session.
        """
        seconds = self._timeout_s * _LOCK_SHARE if timeout_s is None else timeout_s
        limit = f"{max(1, round(seconds * 1000))}ms"
        commit = func.current_setting("synchronous_commit")
        names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
        await connection.execute(
            select(
                *(func.set_config(name, limit, True) for name in names),
                # What is acknowledged is on disk, even where the operator prefers speed elsewhere.
                func.set_config("synchronous_commit", func.coalesce(func.nullif(commit, "off"), "on"), True),
            )
        )

    async def lock(self, connection: AsyncConnection, what: str) -> None:
        """Wait until no other transaction holds `what`; held until this one ends."""
        digest = hashlib.sha256(f"posegate {what}".encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        await connection.execute(select(func.pg_advisory_xact_lock(key)))


class _SqliteConnection(sqlite3.Connection):
    """Closes itself: no caller owns it when the caller is cancelled while it is opened."""

    def close(self) -> None:
        """Roll back first: a transaction whose caller went away in the middle of a query would stay open,
        with its lock, until the query's cursor is collected as garbage."""
        with suppress(sqlite3.Error):
            self.rollback()
        super().close()

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # it could not be opened at all
            self.close()


class SqliteEngine:
    """Connections to an SQLite file.

    Args:
        address: the file.
        connections: at most; each has a thread.
        timeout_s: of one transaction.
    """

    def __init__(self, address: SqliteAddress, connections: int, timeout_s: float) -> None:
        self._path = address.path
        self._read_only = address.read_only
        self._busy_ms = max(1, round(timeout_s * _LOCK_SHARE * 1000))
        self._create = not address.read_only
        self.reader: AsyncEngine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(address.path)), **_common(connections, timeout_s)
        )
        self.writer = self.reader.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        event.listen(self.reader.sync_engine, "do_connect", self._on_do_connect)
        event.listen(self.reader.sync_engine, "connect", self._on_connect)
        event.listen(self.reader.sync_engine, "checkout", self._on_checkout)
        event.listen(self.reader.sync_engine, "begin", _on_begin)

    def keep_existing(self) -> None:
        """From now on a file that is missing is an error: a new, empty one would hide that the volume
        is gone, and take what the old one would be missing later."""
        self._create = False

    async def prepare_write(self, connection: AsyncConnection, *, timeout_s: float | None = None) -> None:
        """Nothing to do: BEGIN IMMEDIATE has waited for every other writer."""

    async def lock(self, connection: AsyncConnection, what: str) -> None:
        """Nothing to do: there is one writer at a time."""

    def _on_do_connect(
        self, dialect: Any, record: Any, arguments: list[Any], options: dict[str, Any]
    ) -> None:
        mode = "ro" if self._read_only else "rwc" if self._create else "rw"
        if self._create:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        arguments[:] = [f"file:{quote(str(self._path))}?mode={mode}"]
        # isolation_level None: Python's sqlite3 begins no transactions of its own, `_on_begin` does.
        options.update(uri=True, isolation_level=None, timeout=self._busy_ms / 1000)
        options.update(factory=_SqliteConnection, check_same_thread=False)

    def _on_connect(self, connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous=FULL")  # what is acknowledged is on disk
        if not self._read_only:
            cursor.execute("PRAGMA journal_mode")
            if cursor.fetchone() != ("wal",):
                self._switch_to_wal(cursor)
        cursor.close()
        record.info["file"] = _identity(self._path)

    def _switch_to_wal(self, cursor: Any) -> None:
        """Readers and the writer then wait not for each other. The file remembers it."""
        cursor.execute("PRAGMA busy_timeout=0")
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # Another gateway is at it, or at work: a new file is busy with that when several start at
            # once. Nothing depends on it, and the next connection finds it done or does it.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        cursor.execute(f"PRAGMA busy_timeout={self._busy_ms}")

    def _on_checkout(self, connection: Any, record: Any, proxy: Any) -> None:
        """Refuse a connection to a file that is no longer there under its name: SQLite would go on
        writing to it, and all that would be lost."""
        if record.info.get("file") != _identity(self._path):
            raise DisconnectionError("the database file was moved or removed")


Engine = PostgresEngine | SqliteEngine


def connect(address: Address, *, connections: int, timeout_s: float) -> Engine:
    """An engine for the address; nothing is connected yet.

    Raises:
        BadDatabaseUrl: the driver is not installed.
    """
    if isinstance(address, PostgresAddress):
        return PostgresEngine(address, connections, timeout_s)
    return SqliteEngine(address, connections, timeout_s)


def _common(connections: int, timeout_s: float) -> dict[str, Any]:
    return {
        "pool_size": connections,
        "max_overflow": 0,
        "pool_timeout": timeout_s * _LOCK_SHARE,
        "pool_recycle": _RECYCLE_S,
        "hide_parameters": True,  # skeletons and names are the tenants', not the log's
        "json_serializer": str,  # what is kept as JSON is written by its store, away from the event loop
    }


def _on_begin(connection: Connection) -> None:
    begin = connection.get_execution_options().get(_BEGIN)
    if begin is not None:  # each statement that only reads is a transaction of its own
        connection.execute(text(begin))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
