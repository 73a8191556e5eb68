"""POSEGATE_DATABASE_URL."""

from pathlib import Path

import pytest

from service.store.address import BadDatabaseUrl, PostgresAddress, SqliteAddress, parse


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


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(parse("postgresql://u:secret@h/n"))
