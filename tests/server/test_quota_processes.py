"""Several gateways, each a process, one quota: exact, whatever happens to them."""

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path

import grpc
import pytest

from posegate.v1.account_service_pb2 import GetAccountRequest
from posegate.v1.account_service_pb2_grpc import AccountServiceStub
from service.accounts.months import first_day, next_month
from service.store.quotas import QuotaStore
from service.store.usage import UsageStore
from tests.server.gateways import Process, administration, draw, gateways, month, new_key
from tests.store.conftest import database_url  # noqa: F401 - a fixture
from tests.store.postgres import postgres  # noqa: F401 - a fixture

QUOTA, CLIENTS = 300, 8


async def until_used_up(gateway: Process, key: str) -> Counter[str]:
    """Calls of several clients at once, each until it is refused."""
    told: Counter[str] = Counter()

    async def client() -> None:
        async with gateway.channel() as channel:
            while (answer := await draw(channel, key)) == "OK":
                told[answer] += 1
            told[answer.partition(":")[0]] += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return told


@pytest.fixture
def count(request: pytest.FixtureRequest, database_url: str) -> int:  # noqa: F811
    return 3 if database_url.startswith("postgresql") else 2


async def test_exactly_the_quota_succeeds_however_many_gateways_there_are(
    database_url: str,  # noqa: F811
    count: int,
    tmp_path: Path,
) -> None:
    key = await new_key(database_url)
    async with gateways(count, database_url, tmp_path) as running:
        told = sum(
            await asyncio.gather(*(until_used_up(gateway, key) for gateway in running)), Counter[str]()
        )
    assert told == {"OK": QUOTA, "RESOURCE_EXHAUSTED": count * CLIENTS}
    async with administration(database_url) as (_, database):
        first: date = first_day(month())
        rows = await UsageStore(database).between(first, next_month(first), tenant="acme")
        assert [(row.rpc, row.calls, row.failures) for row in rows] == [
            ("RenderPoses", QUOTA, count * CLIENTS)
        ]
        assert await QuotaStore(database).taken("acme", month()) == QUOTA


async def test_a_gateway_that_is_killed_gives_nothing_away_and_loses_at_most_a_block(
    database_url: str,  # noqa: F811
    count: int,
    tmp_path: Path,
) -> None:
    key = await new_key(database_url)
    async with gateways(count, database_url, tmp_path) as running:
        calls = [asyncio.create_task(until_used_up(gateway, key)) for gateway in running]
        async with administration(database_url) as (_, database):
            store = QuotaStore(database)
            while await store.taken("acme", month()) < QUOTA // 3:  # noqa: ASYNC110 - in other processes
                await asyncio.sleep(0.01)
        running[0].process.send_signal(signal.SIGKILL)
        told = sum(await asyncio.gather(*calls), Counter[str]())
    # What calls at work held is among the block; such a call may have been answered just not received.
    assert QUOTA - QUOTA // 100 <= told["OK"] <= QUOTA


async def test_a_gateway_that_ends_gives_back_what_it_did_not_spend(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/posegate.db"
    key = await new_key(url)
    async with gateways(1, url, tmp_path) as running, running[0].channel() as channel:
        assert [await draw(channel, key) for _ in range(4)] == ["OK"] * 4
    async with administration(url) as (_, database):
        assert await QuotaStore(database).taken("acme", month()) == 4


async def test_what_is_revoked_or_changed_through_the_database_has_its_effect_on_every_gateway(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/posegate.db"
    key = await new_key(url)
    async with gateways(2, url, tmp_path) as running:
        channels = [gateway.channel() for gateway in running]
        assert [await draw(channel, key) for channel in channels] == ["OK", "OK"]
        async with administration(url) as (desk, _):
            await desk.set_plan("acme", "other")
            for channel in channels:
                await until_said(lambda channel=channel: plan(channel, key), "other")  # type: ignore[misc]
            told = [await draw(channels[number % 2], key) for number in range(20)]
            assert told.count("OK") == 5  # 7 a month, of which 2 are used
            another = (await desk.create_key("acme", "", None)).text
            assert "RESOURCE_EXHAUSTED" in await draw(channels[0], another)  # known at once, quota used up
            await desk.revoke_key(key.split("_")[1])
        for channel in channels:
            await until_said(
                lambda channel=channel: draw(channel, key),  # type: ignore[misc]
                "UNAUTHENTICATED: The API key is not valid: check it, or ask for a new one.",
            )
            await channel.close()


async def plan(channel: grpc.aio.Channel, key: str) -> str:
    """The plan of a key, as a gateway knows it; to ask counts no call."""
    stub = AccountServiceStub(channel)
    answer = await stub.GetAccount(GetAccountRequest(), metadata=(("x-api-key", key),), timeout=30)
    return str(answer.plan)


async def until_said(ask: Callable[[], Awaitable[str]], wanted: str) -> None:
    """Wait for another process, which looks at the database twice a second."""
    async with asyncio.timeout(120):
        while await ask() != wanted:  # noqa: ASYNC110 - it is another process's state
            await asyncio.sleep(0.05)


async def test_a_gateway_starts_without_its_database_and_refuses_no_key_for_good(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/none/posegate.db"
    (tmp_path / "none").write_text("a file where a folder should be")
    key = "pg_9sxEH2v3_kF26o4XYl8KU0KdivRtQpYozCkq1V45r8"
    async with gateways(1, url, tmp_path) as running, running[0].channel() as channel:
        assert (await draw(channel, key)).startswith(grpc.StatusCode.UNAVAILABLE.name)
