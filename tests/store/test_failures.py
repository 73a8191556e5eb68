"""A database that is locked, read-only, full or gone: Unavailable, and well again afterwards."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from service.errors import Unavailable
from service.store.cache import SkeletonCache
from service.store.skeletons import SkeletonStore
from tests.store.postgres import Postgres
from tests.store.test_skeletons import PATIENT_S, STICK, names, opened, stick

T = TypeVar("T")

WRITER = """
import asyncio, sys
import structlog
from service.core.skeleton.template import Keypoint, Skeleton
from service.skeletons import format as skeleton_format
from service.store.address import parse
from service.store.database import Database
from service.store.skeletons import SkeletonStore

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    database = Database(parse(sys.argv[1]), connections=2, timeout_s=60)
    store = SkeletonStore(database, skeleton_format, max_skeletons=10**6)
    number = 0
    while True:
        await store.create("default", Skeleton(f"s{number:06}", "", (Keypoint("point"),)))
        print(f"s{number:06}", flush=True)  # from here on it is acknowledged
        number += 1

asyncio.run(main())
"""


def refusal(caught: pytest.ExceptionInfo[Unavailable]) -> str:
    assert caught.value.retry_after_s
    return caught.value.reason


async def when_free(call: Callable[[], Awaitable[T]]) -> T:
    """The answer of a database that was busy a moment ago, asked as its hint says; one that waits no longer
    than half a second may call a loaded machine busy too."""
    async with asyncio.timeout(PATIENT_S):
        while True:
            try:
                return await call()
            except Unavailable as error:
                if error.reason != "DATABASE_BUSY":
                    raise
                await asyncio.sleep(error.retry_after_s or 1.0)


def acknowledged_until_killed(url: str, kill: signal.Signals = signal.SIGKILL) -> list[str]:
    """Names that a gateway acknowledged before it was killed in the middle of its work."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        seen = [process.stdout.readline().strip() for _ in range(30)]
        process.send_signal(kill)
        seen += [line.strip() for line in process.stdout if line.endswith("\n")]
    return seen


async def test_nothing_acknowledged_is_lost_when_the_gateway_is_killed(database_url: str) -> None:
    acknowledged = await asyncio.to_thread(acknowledged_until_killed, database_url)
    assert len(acknowledged) >= 30
    async with opened(database_url) as store:
        kept = await names(store)
        assert kept[: len(acknowledged)] == acknowledged
        assert len(kept) <= len(acknowledged) + 1  # the one that was under way
        await store.create("default", STICK)


async def test_nothing_acknowledged_is_lost_when_the_database_server_is_killed(postgres: Postgres) -> None:
    url = await asyncio.to_thread(postgres.new_database)
    async with opened(url) as store:
        acknowledged = []
        for number in range(30):
            await store.create("default", stick(f"s{number:02}"))
            acknowledged.append(f"s{number:02}")
        await asyncio.to_thread(postgres.stop, with_signal=signal.SIGQUIT)
        try:
            with pytest.raises(Unavailable) as caught:
                await store.get("default", "s00")
            assert refusal(caught) == "DATABASE_UNAVAILABLE"
        finally:
            await asyncio.to_thread(postgres.start)
        assert await names(store) == acknowledged
        await store.create("default", STICK)


async def test_a_locked_file_is_busy_and_readers_go_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/posegate.db"
    async with opened(url) as store, opened(url, timeout_s=0.5) as hasty:
        await store.create("default", STICK)
        other = sqlite3.connect(tmp_path / "posegate.db", isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            with pytest.raises(Unavailable) as caught:
                await hasty.create("default", stick("late"))
            assert refusal(caught) == "DATABASE_BUSY"
            assert time.monotonic() - started < 0.6 * PATIENT_S
            assert await names(store) == ["stick"]
        finally:
            other.close()
        await when_free(lambda: hasty.create("default", stick("late")))


async def test_a_caller_who_does_not_wait_for_a_lock_leaves_none_behind(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/posegate.db") as store:
        await store.create("default", STICK)
        other = sqlite3.connect(tmp_path / "posegate.db", isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            calls = [asyncio.create_task(store.create("default", stick(f"s{n}"))) for n in range(6)]
            await asyncio.sleep(0.1)
            for call in calls:
                call.cancel()
            await asyncio.sleep(0)
        finally:
            other.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        await store.create("default", stick("next"))
        assert await names(store) == ["next", "stick"]


async def test_a_caller_who_leaves_in_the_middle_of_a_transaction_leaves_no_lock_behind(
    database_url: str,
) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        await one.create("default", STICK)
        await two.create("default", stick("two"))
        for number in range(40):
            call = asyncio.create_task(one.update("default", STICK, etag="0" * 32))
            await asyncio.sleep(number % 20 * 0.0005)
            call.cancel()
            await asyncio.wait([call])
            await two.update("default", stick("two"))


async def test_a_server_that_hangs_is_busy_and_does_not_hold_up_the_end(postgres: Postgres) -> None:
    url = await asyncio.to_thread(postgres.new_database)
    assert postgres.process is not None
    server = psutil.Process(postgres.process.pid)
    async with opened(url) as store:
        await store.create("default", STICK)
        store._database._timeout_s = 1.0  # no sooner: its connection stands, however slow the machine is
        stopped = [server, *server.children(recursive=True)]
        try:
            for process in stopped:
                process.suspend()
            started = time.monotonic()
            with pytest.raises(Unavailable) as caught:
                await store.get("default", "stick")
            assert refusal(caught) == "DATABASE_BUSY"
            await store._database.close()
            assert time.monotonic() - started < 0.6 * PATIENT_S
        finally:
            for process in reversed(stopped):
                process.resume()


async def test_a_row_that_another_transaction_holds_is_busy(postgres: Postgres) -> None:
    url = await asyncio.to_thread(postgres.new_database)
    async with opened(url, timeout_s=0.5) as one, opened(url) as two:
        await two.create("default", STICK)
        async with two._database.write() as connection:
            await connection.exec_driver_sql("LOCK TABLE skeletons IN EXCLUSIVE MODE")
            with pytest.raises(Unavailable) as caught:
                await one.update("default", STICK)
        assert refusal(caught) == "DATABASE_BUSY"
        await when_free(lambda: one.update("default", STICK))


async def test_a_read_only_database_can_still_be_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/posegate.db"
    async with opened(url) as store:
        await store.create("default", STICK)
    async with opened(f"{url}?mode=ro") as store:
        assert await names(store) == ["stick"]
        with pytest.raises(Unavailable) as caught:
            await store.create("default", stick("more"))
        assert refusal(caught) == "DATABASE_READ_ONLY"


async def test_a_read_only_server_can_still_be_read(postgres: Postgres) -> None:
    url = await asyncio.to_thread(postgres.new_database)
    async with opened(url) as store:
        await store.create("default", STICK)
    name = url.partition("@/")[2].partition("?")[0]
    change = f"ALTER DATABASE {name} SET default_transaction_read_only = on"
    await asyncio.to_thread(postgres.run_sql, "postgres", change)
    async with opened(url) as store:
        assert await names(store) == ["stick"]
        with pytest.raises(Unavailable) as caught:
            await store.create("default", stick("more"))
        assert refusal(caught) == "DATABASE_READ_ONLY"


async def fill(store: SkeletonStore, most_pages: int) -> None:
    """Add until there is no room."""
    for number in range(200):
        async with store._database.read() as connection:  # the limit is the connection's own
            await connection.exec_driver_sql(f"PRAGMA max_page_count={most_pages}")
        await store.create("default", stick(f"s{number}" + "x" * 100))


async def test_a_full_database_loses_nothing(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/posegate.db") as store:
        await store.create("default", STICK)
        async with store._database.write() as connection:
            pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
        with pytest.raises(Unavailable) as caught:
            await fill(store, pages)
        assert refusal(caught) == "DATABASE_FULL"
        assert "stick" in await names(store)


async def test_a_folder_that_is_gone_is_unavailable_and_no_new_file_takes_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    async with opened(f"sqlite:///{folder}/posegate.db") as store:
        await store.create("default", STICK)
        aside = tmp_path / "aside"
        folder.rename(aside)
        with pytest.raises(Unavailable) as caught:
            await store.create("default", stick("lost"))
        assert refusal(caught) == "DATABASE_UNAVAILABLE"
        assert not folder.exists()
        shutil.move(aside, folder)
        await store.create("default", stick("found"))
        assert await names(store) == ["found", "stick"]


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "posegate.db").write_bytes(os.urandom(8192))
    async with opened(f"sqlite:///{tmp_path}/posegate.db") as store:
        with pytest.raises(Unavailable) as caught:
            await store.get("default", "stick")
        assert refusal(caught) == "DATABASE_UNAVAILABLE"


async def test_a_schema_of_a_later_version_is_left_alone(database_url: str) -> None:
    async with opened(database_url) as store:
        await store.create("default", STICK)
        async with store._database.write() as connection:
            await connection.exec_driver_sql("UPDATE posegate_schema SET version_num = 'from_the_future'")
    async with opened(database_url) as store:
        with pytest.raises(Unavailable) as caught:
            await store.create("default", stick("more"))
        assert refusal(caught) == "DATABASE_TOO_NEW"


async def test_a_file_that_another_gateway_is_switching_to_wal_can_be_used(tmp_path: Path) -> None:
    """Two that start at once both find the mode of a new file; SQLite lets only one of them change it."""
    url = f"sqlite:///{tmp_path}/posegate.db"
    async with opened(url) as store:
        await store.create("default", STICK)
    other = sqlite3.connect(tmp_path / "posegate.db", isolation_level=None)
    try:
        other.execute("PRAGMA journal_mode=DELETE")
        other.execute("BEGIN IMMEDIATE")
        async with opened(url) as store:
            assert await names(store) == ["stick"]
    finally:
        other.close()


async def test_a_file_that_another_has_for_himself_is_busy(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/posegate.db"
    async with opened(url) as store:
        await store.create("default", STICK)
    other = sqlite3.connect(tmp_path / "posegate.db", isolation_level=None)
    try:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        async with opened(url, timeout_s=0.5) as store:
            with pytest.raises(Unavailable) as caught:
                await store.get("default", "stick")
            assert refusal(caught) == "DATABASE_BUSY"
            other.close()
            assert await when_free(lambda: names(store)) == ["stick"]
    finally:
        other.close()


async def test_tables_that_are_gone_are_made_again(postgres: Postgres) -> None:
    """The server stays, its content does not: a failover to an empty one, a database set up anew."""
    url = await asyncio.to_thread(postgres.new_database)
    async with opened(url) as store:
        await store.create("default", STICK)
        async with store._database.write() as connection:
            for statement in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"):
                await connection.exec_driver_sql(statement)
        with pytest.raises(Unavailable) as caught:
            await store.get("default", "stick")
        assert refusal(caught) == "DATABASE_UNAVAILABLE"
        await store.create("default", STICK)


async def test_a_removed_file_takes_nothing_more(tmp_path: Path) -> None:
    """An open SQLite connection would go on writing to a file that no longer has a name."""
    async with opened(f"sqlite:///{tmp_path}/posegate.db") as store:
        await store.create("default", STICK)
        for suffix in ("", "-wal", "-shm"):
            await asyncio.to_thread((tmp_path / f"posegate.db{suffix}").unlink)
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                await store.create("default", stick("lost"))
            assert refusal(caught) == "DATABASE_UNAVAILABLE"
        assert not (tmp_path / "posegate.db").exists()


async def test_the_cache_goes_on_with_what_it_knows_while_the_database_is_away(tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    async with opened(f"sqlite:///{folder}/posegate.db") as store:
        cache = SkeletonCache(store)
        await store.create("default", STICK)
        assert await cache.get("default", "stick") == STICK
        folder.rename(tmp_path / "aside")
        for _ in range(3):
            assert await cache.get("default", "stick") == STICK
        with pytest.raises(Unavailable):
            await cache.get("default", "never asked for")
        with pytest.raises(Unavailable):
            await cache.get("other", "stick")
