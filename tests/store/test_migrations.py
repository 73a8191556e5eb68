"""The schema is what the migrations make, once."""

import asyncio
from datetime import UTC, datetime

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from service.skeletons import format as skeleton_format
from service.store.address import parse
from service.store.database import Database
from service.store.migrate import VERSION_TABLE, _config, is_current, upgrade
from service.store.schema import metadata, skeletons
from service.store.tenants import TenantStore
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


def only(connection: Connection, revision: str) -> None:
    """The schema as it was at a revision."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


async def test_a_database_with_skeletons_of_the_first_version_is_brought_forward(database_url: str) -> None:
    old = Database(parse(database_url), connections=2, timeout_s=60)
    async with old._engine.writer.begin() as connection:
        await old._engine.prepare_write(connection)
        await connection.run_sync(only, "0001")
        now = datetime(2026, 11, 1, tzinfo=UTC)
        values = {"tenant": "default", "etag": "0" * 32, "create_time": now, "update_time": now}
        definition = skeleton_format.dump(STICK)
        await connection.execute(skeletons.insert().values(name="stick", definition=definition, **values))
    await old.close()
    async with opened(database_url) as store:
        kept = await store.get("default", "stick")
        assert kept is not None
        assert kept.skeleton == STICK
        async with store._database.read() as connection:
            assert await connection.run_sync(is_current)
            assert await connection.run_sync(differences) == []
        tenants = TenantStore(store._database)
        await tenants.create("default", "pro", now)  # takes over what was there before accounts
        assert (await tenants.get("default")).skeletons == 1


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
