"""The schema is what the migrations make, once."""

import asyncio

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from service.store.migrate import VERSION_TABLE, is_current, upgrade
from service.store.schema import metadata
from tests.store.postgres import Postgres
from tests.store.test_skeletons import STICK, names, opened, stick


def differences(connection: Connection) -> list[object]:
    options = {"version_table": VERSION_TABLE, "compare_type": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


async def test_the_migrations_make_the_tables_that_the_code_expects(database_url: str) -> None:
    async with opened(database_url) as store, store._database.read() as connection:
        assert await connection.run_sync(is_current)
        assert await connection.run_sync(differences) == []


async def test_to_migrate_again_changes_nothing(database_url: str) -> None:
    async with opened(database_url) as store:
        await store.create("default", STICK)
        async with store._database.write() as connection:
            await connection.run_sync(upgrade)
        assert await names(store) == ["stick"]


async def test_names_are_ordered_by_code_point_whatever_the_locale(database_url: str) -> None:
    spellings = ["a", "B", "b", "_", "Z", "é", "z", "骨", "🕺", "0"]
    async with opened(database_url) as store:
        for name in spellings:
            await store.create("default", stick(name))
        assert await names(store) == sorted(spellings)


async def test_a_servers_locale_does_not_order_names(postgres: Postgres) -> None:
    url = await asyncio.to_thread(postgres.new_database)
    async with opened(url) as store, store._database.read() as connection:
        question = "SELECT collation_name FROM information_schema.columns WHERE table_name = 'skeletons'"
        found = await connection.exec_driver_sql(f"{question} AND column_name IN ('tenant', 'name')")
        assert found.scalars().all() == ["C", "C"]
