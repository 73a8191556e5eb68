"""Quotas and leases: exact whatever gateways, clocks and the database do."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.accounts.lease import block_size
from service.accounts.months import first_day, month_of, next_month, reset_time
from service.accounts.quotas import Charge, Quotas
from service.errors import MonthlyQuotaExceeded, RateLimited, Unavailable
from tests.accounts.units import Units

NOVEMBER = datetime(2026, 11, 28, 12, tzinfo=UTC)
GATEWAYS = 3


@dataclass
class World:
    """Some gateways on one database, and time."""

    quota: int
    units: Units = field(default_factory=Units)
    now: datetime = NOVEMBER
    clock: float = 0.0
    gateways: list[Quotas] = field(default_factory=list)
    open: dict[int, list[tuple[str, Charge]]] = field(default_factory=dict)
    succeeded: Counter[str] = field(default_factory=Counter)
    may_be_lost: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.gateways = [self.gateway() for _ in range(GATEWAYS)]
        self.open = {number: [] for number in range(GATEWAYS)}

    def gateway(self) -> Quotas:
        return Quotas(self.units, now=lambda: self.now, clock=lambda: self.clock, wait_s=0)

    async def begin(self, number: int) -> bool:
        month = month_of(self.now)
        try:
            charge = await self.gateways[number].reserve("a", self.quota)
        except (MonthlyQuotaExceeded, RateLimited, Unavailable):
            return False
        self.open[number].append((month, charge))
        return True

    def end(self, number: int, *, ok: bool) -> None:
        if self.open[number]:
            month, charge = self.open[number].pop(0)
            charge.settle(int(ok))
            self.succeeded[month] += ok

    def crash(self, number: int) -> None:
        """It is gone, with what it held; calls at work in it were not answered."""
        held = self.gateways[number]._tenants.get("a")
        if held is not None:
            self.may_be_lost[held.lease.month] += max(1, self.quota // 100)
        self.open[number].clear()
        self.gateways[number] = self.gateway()

    async def stop(self, number: int) -> None:
        while self.open[number]:
            self.end(number, ok=True)
        await self.gateways[number].close()
        self.gateways[number] = self.gateway()

    async def settle(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    def check(self) -> None:
        for count in self.succeeded.values():
            assert count <= self.quota
        spendable = Counter(self.succeeded)
        for gateway in self.gateways:
            for held in gateway._tenants.values():
                spendable[held.lease.month] += held.lease.unspent + held.lease.reserved
        for month, count in spendable.items():
            assert count <= self.units.held.get(("a", month), 0)
        for taken in self.units.held.values():
            assert 0 <= taken <= self.quota


def numbers() -> st.SearchStrategy[int]:
    return st.integers(0, GATEWAYS - 1)


STEPS = st.one_of(
    st.tuples(st.just("calls"), numbers(), st.integers(1, 40), st.booleans()),
    st.tuples(st.just("begin"), numbers()),
    st.tuples(st.just("end"), numbers(), st.booleans()),
    st.tuples(st.just("crash"), numbers()),
    st.tuples(st.just("stop"), numbers()),
    st.tuples(st.just("idle"), numbers()),
    st.tuples(st.just("jump"), st.integers(-40 * 24, 40 * 24)),
    st.tuples(st.just("away"), st.booleans()),
    st.tuples(st.just("doubt"), st.booleans()),
)


async def play(world: World, steps: Sequence[tuple[Any, ...]]) -> None:
    for name, *values in steps:
        world.clock += 0.5
        match name:
            case "calls":
                number, count, ok = values
                await asyncio.gather(*(world.begin(number) for _ in range(count)))
                while world.open[number]:
                    world.end(number, ok=ok)
            case "begin":
                await world.begin(values[0])
            case "end":
                world.end(values[0], ok=values[1])
            case "crash":
                world.crash(values[0])
            case "stop":
                await world.stop(values[0])
            case "idle":
                world.clock += 61
                await world.gateways[values[0]].give_back_idle()
            case "jump":
                world.now = NOVEMBER + timedelta(hours=values[0])
            case "away":
                world.units.away = values[0]
            case "doubt":
                world.units.in_doubt = values[0]
        world.check()
    await world.settle()


@settings(max_examples=100, deadline=None)
@given(quota=st.sampled_from([0, 1, 2, 30, 300, 5400]), steps=st.lists(STEPS, max_size=60))
def test_never_is_one_call_more_allowed_than_the_quota(quota: int, steps: list[tuple[Any, ...]]) -> None:
    with asyncio.Runner() as runner:
        world = World(quota)
        runner.run(play(world, steps))
        world.check()


@settings(max_examples=80, deadline=None)
@given(
    quota=st.sampled_from([1, 30, 300, 5400]),
    steps=st.lists(STEPS.filter(lambda step: step[0] not in ("away", "doubt", "jump")), max_size=60),
)
def test_a_crash_loses_at_most_a_hundredth_of_the_quota(quota: int, steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        world = World(quota)
        await play(world, steps)
        for number in range(GATEWAYS):
            await world.stop(number)
        month = month_of(NOVEMBER)
        lost = world.units.held.get(("a", month), 0) - world.succeeded[month]
        assert 0 <= lost <= world.may_be_lost[month]
        # What was not lost can be used to the last unit.
        world.clock += 10
        while await world.begin(0):
            world.end(0, ok=True)
        assert world.succeeded[month] == quota - lost

    with asyncio.Runner() as runner:
        runner.run(run())


@given(quota=st.integers(0, 10**6), taken=st.integers(0, 10**6))
def test_a_block_is_at_most_a_hundredth_and_never_more_than_remains(quota: int, taken: int) -> None:
    remaining = max(0, quota - taken)
    size = block_size(quota, remaining)
    assert size <= remaining
    assert size <= max(1, quota // 100)
    assert (size > 0) == (remaining > 0)
    assert size <= max(1, remaining // 8)


async def test_in_the_steady_state_a_call_waits_for_no_question() -> None:
    world = World(54_000)
    assert await world.begin(0)
    world.end(0, ok=True)
    asked_on_the_way = 0
    for _ in range(5000):
        before = world.units.questions
        charge = world.gateways[0].reserve("a", world.quota)
        try:
            charge.send(None)  # a coroutine that does not wait is through at once
        except StopIteration as done:
            done.value.settle(1)
        else:
            asked_on_the_way += 1
            charge.close()
        assert world.units.questions == before
        await world.settle()
    assert asked_on_the_way == 0
    assert world.units.questions < 5000 / 200  # half a block of 540 at a time


async def test_away_known_tenants_go_on_until_the_lease_is_used_up() -> None:
    world = World(54_000)
    assert await world.begin(0)
    await world.settle()
    world.units.away = True
    served = 0
    while await world.begin(0):
        world.end(0, ok=True)
        served += 1
    with pytest.raises(Unavailable) as caught:
        await world.gateways[0].reserve("a", world.quota)
    assert 200 < served <= 540
    assert caught.value.reason == "DATABASE_UNAVAILABLE"
    world.units.away = False
    assert await world.begin(0)


async def test_idle_while_the_database_is_away_keeps_the_lease() -> None:
    world = World(54_000)
    assert await world.begin(0)
    world.end(0, ok=False)
    await world.settle()
    world.units.away = True
    world.clock += 100
    await world.gateways[0].give_back_idle()
    assert await world.begin(0)
    world.end(0, ok=False)
    world.units.away = False
    world.clock += 100
    await world.gateways[0].give_back_idle()
    assert world.units.held == {("a", "2026-11"): 0}


async def test_used_up_is_told_with_the_time_of_the_reset_and_looked_at_again() -> None:
    world = World(2)
    for _ in range(2):
        assert await world.begin(0)
        world.end(0, ok=True)
    assert not await world.begin(0)
    with pytest.raises(MonthlyQuotaExceeded) as caught:
        await world.gateways[0].reserve("a", 2)
    assert caught.value.reset_time == datetime(2026, 12, 1, tzinfo=UTC)
    assert caught.value.reason == "QUOTA_EXCEEDED"
    assert caught.value.subject == "tenant:a"
    assert caught.value.retry_after_s is None
    asked = world.units.questions
    assert not await world.begin(0)
    assert world.units.questions == asked
    world.units.held["a", "2026-11"] = 1  # another gateway gave one back
    world.clock += 6
    assert await world.begin(0)


async def test_a_failed_call_leaves_its_unit_to_the_next() -> None:
    world = World(1)
    for _ in range(5):
        assert await world.begin(0)
        world.end(0, ok=False)
    assert await world.begin(0)
    assert not await world.begin(0)


async def test_what_is_left_is_told_exactly_by_a_single_gateway() -> None:
    world = World(300)
    told = []
    for _ in range(300):
        charge = await world.gateways[0].reserve("a", 300)
        told.append(charge.settle(1).remaining)
        await world.settle()
    assert told == list(range(299, -1, -1))
    assert (await world.gateways[0].standing("a", 300)).remaining == 0


async def test_what_was_reserved_in_one_month_is_not_given_back_to_the_next() -> None:
    world = World(1)
    assert await world.begin(0)
    world.now += timedelta(days=10)
    assert await world.begin(0)
    world.end(0, ok=False)  # the one of November
    assert not await world.begin(0)
    world.end(0, ok=True)
    assert dict(world.succeeded) == {"2026-11": 0, "2026-12": 1}


async def test_a_batch_may_count_by_picture() -> None:
    world = World(10)
    charge = await world.gateways[0].reserve("a", 10, 8)
    assert charge.settle(5).remaining == 5
    with pytest.raises(MonthlyQuotaExceeded, match="counts as 6"):
        await world.gateways[0].reserve("a", 10, 6)
    assert (await world.gateways[0].reserve("a", 10, 5)).settle(5).remaining == 0


async def test_another_plan_counts_from_the_next_call_on() -> None:
    world = World(300)
    for _ in range(10):
        (await world.gateways[0].reserve("a", 300)).settle(1)
    with pytest.raises(MonthlyQuotaExceeded):
        await world.gateways[0].reserve("a", 10)
    charge = await world.gateways[0].reserve("a", 5400)
    await world.settle()
    assert charge.settle(1).remaining == 5389
    unlimited = await world.gateways[0].reserve("a", None)
    assert unlimited.settle(1).remaining is None


async def test_calls_beyond_what_may_be_held_wait_for_those_at_work() -> None:
    world = World(300)
    quotas = Quotas(world.units)
    at_work = [await quotas.reserve("a", 300) for _ in range(3)]
    waiting = [asyncio.create_task(quotas.reserve("a", 300)) for _ in range(5)]
    await world.settle()
    assert world.units.held["a", "2026-11"] == 3  # 1 % of the quota, however many wait
    assert not any(call.done() for call in waiting)
    at_work[0].settle(1)
    at_work[1].settle(0)
    await world.settle()
    assert sum(call.done() for call in waiting) == 2
    assert world.units.held["a", "2026-11"] == 4
    for call in waiting:
        (await call).settle(1)
    assert at_work[2].settle(1).remaining == 293
    await quotas.close()
    assert world.units.held["a", "2026-11"] == 7


async def test_a_call_that_waited_in_vain_is_sent_away_to_try_again() -> None:
    world = World(150)
    charge = await world.gateways[0].reserve("a", 150)
    with pytest.raises(RateLimited, match="Calls at work hold 1 of the 150 calls") as caught:
        await world.gateways[0].reserve("a", 150)
    assert (caught.value.reason, caught.value.retry_after_s) == ("TOO_MANY_IN_FLIGHT", 0.25)
    charge.settle(1)
    (await world.gateways[0].reserve("a", 150)).settle(1)


async def test_units_on_their_way_back_and_new_ones_are_not_held_at_once() -> None:
    world = World(300)
    charge = await world.gateways[0].reserve("a", 300)
    charge.settle(0)
    await world.settle()
    world.clock += 61
    returning = asyncio.create_task(world.gateways[0].give_back_idle())
    call = asyncio.create_task(world.gateways[0].reserve("a", 300))
    while not call.done():
        assert world.units.held["a", "2026-11"] <= 3
        await asyncio.sleep(0)
    await returning
    assert world.units.held["a", "2026-11"] <= 3


async def test_callers_that_go_away_while_they_wait_lose_nothing() -> None:
    world = World(300)
    calls = [asyncio.create_task(world.gateways[0].reserve("a", 300)) for _ in range(20)]
    await asyncio.sleep(0)
    for call in calls[1:]:
        call.cancel()
    await asyncio.wait(calls)
    calls[0].result().settle(0)
    await world.settle()
    await world.stop(0)
    assert world.units.held["a", "2026-11"] == 0


@pytest.mark.parametrize(
    ("month", "reset"),
    [("2026-11", (2026, 12, 1)), ("2026-12", (2027, 1, 1)), ("2024-02", (2024, 3, 1))],
)
def test_a_month_ends_with_the_next_one(month: str, reset: tuple[int, int, int]) -> None:
    assert reset_time(month) == datetime(*reset, tzinfo=UTC)
    assert next_month(first_day(month)) == reset_time(month).date()


@pytest.mark.parametrize("month", ["2026", "2026-13", "2026-1", "November", "2026-11-01", "2026-W11"])
def test_what_is_no_month_is_refused(month: str) -> None:
    with pytest.raises(ValueError, match="is not a month"):
        first_day(month)


@pytest.mark.parametrize(
    ("quota", "words"),
    [
        (0, "The plan allows no calls that count: wait"),
        (1, "The 1 call of the month is used up: wait"),
        (2, "The 2 calls of the month are used up: wait"),
    ],
)
async def test_a_used_up_quota_is_put_into_words(quota: int, words: str) -> None:
    world = World(quota)
    for _ in range(quota):
        assert await world.begin(0)
        world.end(0, ok=True)
    with pytest.raises(MonthlyQuotaExceeded) as caught:
        await world.gateways[0].reserve("a", quota)
    assert caught.value.message.startswith(words)
