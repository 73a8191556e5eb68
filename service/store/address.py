"""Where the database is: POSEGATE_DATABASE_URL, read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

_POSTGRES = ("postgres", "postgresql", "postgresql+asyncpg")
_SQLITE = ("sqlite", "sqlite+aiosqlite")


class BadDatabaseUrl(Exception):
    """The URL is not one of a database that can be used. The text says why and never holds the URL:
    there may be a password in it."""


@dataclass(frozen=True)
class SqliteAddress:
    """A file.

    Attributes:
        path: of the file, absolute.
        read_only: never written to.
    """

    path: Path
    read_only: bool = False


@dataclass(frozen=True)
class PostgresAddress:
    """A server, in libpq's URL form, options such as sslmode included."""

    dsn: str = field(repr=False)


Address = SqliteAddress | PostgresAddress


def parse(url: str) -> Address:
    """Read a URL: sqlite:///relative/file, sqlite:////absolute/file, postgresql://user@host/name.

    Raises:
        BadDatabaseUrl: it names no database that can be used.
    """
    scheme, _, rest = url.partition("://")
    if scheme in _POSTGRES:
        return PostgresAddress(f"postgresql://{rest}")
    if scheme in _SQLITE:
        return _sqlite(rest)
    raise BadDatabaseUrl("POSEGATE_DATABASE_URL must begin with sqlite:/// or postgresql://.")


def _sqlite(rest: str) -> SqliteAddress:
    parts = urlsplit(f"//{rest}")
    options = parse_qs(parts.query)
    mode = options.pop("mode", ["rwc"])
    if options or mode not in (["rwc"], ["ro"]):
        raise BadDatabaseUrl("POSEGATE_DATABASE_URL of SQLite takes no option but mode=ro.")
    name = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not name or name == ":memory:":
        raise BadDatabaseUrl("POSEGATE_DATABASE_URL of SQLite must name a file: sqlite:///FILE.")
    return SqliteAddress(Path(name).absolute(), read_only=mode == ["ro"])
