"""Translates errors of the database drivers into domain errors, here only, by the databases' own codes."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import DBAPIError, DisconnectionError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.errors import Unavailable
from service.store.migrate import SchemaTooNew

_SOON_S: Final = 1.0
_LATER_S: Final = 2.0  # waits for an operator; longer, and gRPC's own retries would outlast their callers


class StoreError(Exception):
    """The database refused in a way that no caller can mend: a mistake of ours. Its text is for the log."""


@dataclass(frozen=True)
class _Failure:
    reason: str
    message: str
    retry_after_s: float


GONE = _Failure("DATABASE_UNAVAILABLE", "The database is away: try again.", _SOON_S)
BUSY = _Failure("DATABASE_BUSY", "The database is busy: try again.", _SOON_S)
READ_ONLY = _Failure("DATABASE_READ_ONLY", "The database is read-only now: nothing can be changed.", _LATER_S)
FULL = _Failure("DATABASE_FULL", "The database is full: nothing can be added.", _LATER_S)
TOO_NEW = _Failure("DATABASE_TOO_NEW", "The database belongs to a later version of the service.", _LATER_S)

_SQLITE = {
    sqlite3.SQLITE_BUSY: BUSY,
    sqlite3.SQLITE_LOCKED: BUSY,
    sqlite3.SQLITE_INTERRUPT: BUSY,
    sqlite3.SQLITE_PROTOCOL: BUSY,
    sqlite3.SQLITE_SCHEMA: BUSY,
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_AUTH: GONE,
    sqlite3.SQLITE_CANTOPEN: GONE,
    sqlite3.SQLITE_CORRUPT: GONE,
    sqlite3.SQLITE_IOERR: GONE,
    sqlite3.SQLITE_NOMEM: GONE,
    sqlite3.SQLITE_NOTADB: GONE,
    sqlite3.SQLITE_PERM: GONE,
}

# By SQLSTATE; where a whole class means one thing, by its first two characters.
_POSTGRES = {
    "0A000": BUSY,  # a cached plan from before a migration; the driver plans anew next time
    "25006": READ_ONLY,  # read_only_sql_transaction: a standby
    "25P03": BUSY,  # idle_in_transaction_session_timeout
    "42501": GONE,  # insufficient_privilege
    "53100": FULL,  # disk_full
    "55P03": BUSY,  # lock_not_available
    "57014": BUSY,  # query_canceled: statement_timeout
    "08": GONE,
    "28": GONE,
    "3D": GONE,
    "40": BUSY,
    "53": BUSY,
    "57": GONE,
    "58": GONE,
    "XX": GONE,
}

_CLOSED = (DisconnectionError, InvalidRequestError)  # ResourceClosedError is one of the latter


def lacks_schema(error: Exception) -> bool:
    """Whether our tables are not there: the database was set up anew behind our back."""
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    if isinstance(error.orig, sqlite3.Error):
        return "no such table" in str(error.orig)
    return getattr(error.orig, "sqlstate", None) in ("42P01", "3F000")


def translate(error: Exception) -> Exception:
    """An error of the database as Unavailable, or as StoreError where only we are to blame."""
    failure = _failure(error)
    if failure is None:
        return StoreError(why(error))
    return Unavailable(failure.message, reason=failure.reason, retry_after_s=failure.retry_after_s)


def why(error: Exception) -> str:
    """The error for the log: the database's own words, without statement and values. Of an error of the
    connection only its kind: the text of a driver may hold what was in the URL."""
    orig = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    kind = type(orig).__name__
    if isinstance(orig, OSError):
        number = orig.errno or 0  # negative for names that do not resolve
        return f"{kind}: {os.strerror(number)}" if number > 0 else kind
    if _failure(error) is GONE and not isinstance(orig, sqlite3.Error):
        state = getattr(orig, "sqlstate", None)
        return f"{kind}: SQLSTATE {state}" if isinstance(state, str) else kind
    return f"{type(orig).__name__}: {orig}".strip().partition("\n")[0]


def _failure(error: Exception) -> _Failure | None:
    if isinstance(error, SchemaTooNew):
        return TOO_NEW
    if isinstance(error, (TimeoutError, PoolTimeout)):
        return BUSY
    if isinstance(error, DBAPIError):
        return GONE if lacks_schema(error) else _of_driver(error)
    # No connection at all, or one that went away between two statements.
    return GONE if isinstance(error, (OSError, *_CLOSED)) else None


def _of_driver(error: DBAPIError) -> _Failure | None:
    orig = error.orig
    if isinstance(orig, sqlite3.Error):
        code = getattr(orig, "sqlite_errorcode", None)  # absent where Python itself objects
        if code is None:
            return GONE if error.connection_invalidated else None
        return _SQLITE.get(code & 0xFF)  # the rest of an extended code says where it happened
    state = getattr(orig, "sqlstate", None)
    if state is None:
        return GONE  # the driver itself: connection lost, settings that it does not take
    return _POSTGRES.get(state) or _POSTGRES.get(state[:2])
