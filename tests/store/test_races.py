"""Several gateways, each a process of its own, on one database from its first moment."""

import asyncio
import subprocess
import sys

from tests.store.test_skeletons import names, opened

GATEWAYS = 3
NAMES = 10

GATEWAY = """
import asyncio, sys
import structlog
from service.core.skeleton.template import Keypoint, Skeleton
from service.errors import AlreadyExists
from service.skeletons import format as skeleton_format
from service.store.address import parse
from service.store.database import Database
from service.store.skeletons import SkeletonStore

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    database = Database(parse(sys.argv[1]), connections=4, timeout_s=20)
    store = SkeletonStore(database, skeleton_format, max_skeletons=1000)

    async def create(name):
        try:
            await store.create("default", Skeleton(name, "", (Keypoint("point"),)))
        except AlreadyExists:
            return
        print(name, flush=True)

    print("ready", flush=True)
    sys.stdin.readline()  # all begin at once, and find no table yet
    for number in range(int(sys.argv[2])):
        await asyncio.gather(*(create(f"s{number}") for _ in range(4)))
    await database.close()

asyncio.run(main())
"""


def race(url: str) -> list[str]:
    """The names that were acknowledged, by whichever gateway."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", GATEWAY, url, str(NAMES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(GATEWAYS)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate(timeout=300)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * GATEWAYS
    finally:
        for process in processes:
            process.kill()
    return "".join(told).split()


async def test_of_processes_that_want_the_same_names_exactly_one_gets_each(database_url: str) -> None:
    won = await asyncio.to_thread(race, database_url)
    assert sorted(won) == sorted(f"s{number}" for number in range(NAMES))
    async with opened(database_url) as store:
        assert await names(store) == sorted(won)
