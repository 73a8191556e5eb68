"""Where the database is: POSEGATE_DATABASE_URL, read once."""

from __future__ import annotations

import re
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
        _check_postgres(rest)
        return PostgresAddress(f"postgresql://{rest}")
    if scheme in _SQLITE:
        return _sqlite(rest)
    raise BadDatabaseUrl("POSEGATE_DATABASE_URL must begin with sqlite:/// or postgresql://.")


def _check_postgres(rest: str) -> None:
    """Refuse a URL that a password has torn: read on, a part of it would be a host, a name or an option, and
    would come back in the driver's errors."""
    torn = BadDatabaseUrl(
        "POSEGATE_DATABASE_URL of PostgreSQL is not USER:PASSWORD@HOST/NAME: in user and password, write"
        " ? # / @ : % and spaces as %3F %23 %2F %40 %3A %25 and %20."
    )
    try:
        parts = urlsplit(f"//{rest}")
    except ValueError:
        raise torn from None
    account, _, hosts = parts.netloc.rpartition("@")
    ports = [port for _, colon, port in (_host_port(host) for host in hosts.split(",")) if colon]
    in_order = (
        not parts.fragment
        and not rest.endswith("#")
        and "@" not in account + parts.path + parts.query
        and account.count(":") <= 1
        and not re.search(r"%(?![0-9A-Fa-f]{2})|\s", rest)
        and all(port.isascii() and port.isdecimal() and 0 < int(port) < 65536 for port in ports)
    )
    if not in_order:
        raise torn


def _host_port(host: str) -> tuple[str, str, str]:
    if host.startswith("["):
        name, _, rest = host.partition("]")
        return name, rest[:1], rest[1:]
    return host.partition(":")


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
