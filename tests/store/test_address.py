"""POSEGATE_DATABASE_URL."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.errors import Unavailable
from service.store.address import BadDatabaseUrl, PostgresAddress, SqliteAddress, parse
from service.store.database import Database


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("sqlite:////data/a.db", SqliteAddress(Path("/data/a.db"))),
        ("sqlite:///a.db", SqliteAddress(Path.cwd() / "a.db")),
        ("sqlite+aiosqlite:////a%20b.db?mode=ro", SqliteAddress(Path("/a b.db"), read_only=True)),
        ("postgres://u:p@h:5/n?sslmode=require", PostgresAddress("postgresql://u:p@h:5/n?sslmode=require")),
        ("postgresql+asyncpg://h/n", PostgresAddress("postgresql://h/n")),
    ],
)
def test_it_is_read(url: str, address: SqliteAddress | PostgresAddress) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    "url",
    ["", "mysql://secret@h/n", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///a?cache=shared",
     "sqlite://secret@host/a"],
)  # fmt: skip
def test_anything_else_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(BadDatabaseUrl) as caught:
        parse(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("character", ["?", "#", "/", "@", ":", "%", " ", "[", "]"])
@pytest.mark.parametrize("where", ["sec{}ret", "secret{}", "{}secret"])
@pytest.mark.parametrize("rest", ["host/name", "host:5432/name", "host/name?sslmode=require", "host"])
def test_a_password_that_tears_the_url_is_refused_at_the_start(character: str, where: str, rest: str) -> None:
    with pytest.raises(BadDatabaseUrl) as caught:
        parse(f"postgresql://user:{where.format(character)}@{rest}")
    assert "%3F" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "rest",
    ["h/n", "u@h/n", "u:%3F%23%2F@h/n", "u:p@a:1,b:2/n", "u:p@[::1]:5/n", "/n?host=/run", "u:p$&+,;=!*@h/n"],
)
def test_what_is_in_order_passes(rest: str) -> None:
    assert parse(f"postgresql://{rest}") == PostgresAddress(f"postgresql://{rest}")


async def test_no_log_line_of_a_failing_start_holds_the_password() -> None:
    url = "postgresql://sekret:sek%3Fret@127.0.0.1:9/sekret"
    database = Database(parse(url), connections=1, timeout_s=30)
    with capture_logs() as lines:
        database.start()
        with pytest.raises(Unavailable):
            async with database.read():
                pass
    await database.close()
    assert [line["event"] for line in lines] == ["database_not_ready"]
    assert "sek" not in str(lines)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(parse("postgresql://u:secret@h/n"))
