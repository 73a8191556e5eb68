"""Every test of the store runs on SQLite and on PostgreSQL."""

from pathlib import Path

import pytest

from tests.store.postgres import Postgres
from tests.store.postgres import postgres as postgres  # a fixture


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/posegate.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()
