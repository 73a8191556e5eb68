"""Keys to accounts: what a stranger learns, what it costs, and when changes have their effect."""

import asyncio
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.accounts import gate as gates
from service.accounts import keyring
from service.accounts.gate import AccountGate
from service.accounts.keyring import Keyring
from service.accounts.keys import ApiKey, new_key
from service.accounts.plans import load_plans
from service.accounts.quotas import Quotas
from service.accounts.rates import Pace, TokenBuckets
from service.accounts.usage import UsageRecorder
from service.errors import Overloaded, RateLimited, Unauthenticated, Unavailable
from service.store.failures import StoreError
from service.store.tenants import KeyChanges, KeyState
from service.store.usage import UsageRow
from tests.accounts.units import Units
from tests.fakes import until
from tests.virtual_time import now, virtual_time

PEER = "ipv4:192.0.2.1:5000"


@dataclass
class Source:
    """Keys in memory, in the place of the database."""

    states: dict[str, KeyState] = field(default_factory=dict)
    revision: int = 0
    questions: int = 0
    away: bool = False

    def add(self, key: ApiKey, **changes: object) -> None:
        state = KeyState(key.key_id, "acme", "free", key.digest, None, False)
        self.states[key.key_id] = replace(state, **changes)  # type: ignore[arg-type]
        self.revision += 1

    async def changes(self, since: int | None) -> KeyChanges | None:
        self.questions += 1
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("The database is away.", reason="DATABASE_UNAVAILABLE", retry_after_s=1)
        return KeyChanges(self.revision, True, [one for one in self.states.values() if not one.revoked])


@dataclass
class Sink:
    """Usage in memory, in the place of the database."""

    batches: list[tuple[int, Sequence[UsageRow]]] = field(default_factory=list)
    noted: list[set[str]] = field(default_factory=list)
    away: bool = False

    async def add(self, gateway: str, number: int, rows: Sequence[UsageRow], now: datetime) -> None:
        if self.away:
            raise Unavailable("The database is away.", reason="DATABASE_UNAVAILABLE", retry_after_s=1)
        self.batches.append((number, rows))

    async def used(self, key_ids: Collection[str], hour: datetime) -> Sequence[str]:
        self.noted.append(set(key_ids))
        return sorted(key_ids)


def gate(source: Source, sink: Sink | None = None) -> AccountGate:
    sink = sink or Sink()
    return AccountGate(
        Keyring(source, refresh_s=5),
        load_plans(),
        Quotas(Units()),
        UsageRecorder(sink, sink),
        write_s=10,
    )


async def refusal(opened: AccountGate, text: str | None, peer: str = PEER) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        await opened.authenticate(text, peer)
    return caught.value


async def test_a_key_that_was_just_made_is_accepted_at_once_and_later_without_a_question() -> None:
    source = Source()
    opened = gate(source)
    key = new_key()
    source.add(key)
    account = await opened.authenticate(key.text, PEER)
    assert (account.tenant, account.plan.name, account.key_id) == ("acme", "free", key.key_id)
    asked = source.questions
    for _ in range(1000):
        await opened.authenticate(key.text, PEER)
    assert source.questions == asked


async def test_no_key_is_told_apart_from_a_wrong_one() -> None:
    opened = gate(Source())
    for missing in (None, ""):
        error = await refusal(opened, missing)
        assert (error.reason, "x-api-key" in error.message) == ("API_KEY_MISSING", True)


async def test_unknown_expired_and_revoked_are_alike_to_a_stranger_and_not_in_the_log() -> None:
    source = Source()
    opened = gate(source)
    expired, revoked, other = new_key(), new_key(), new_key()
    source.add(expired, expires=time.time() - 1)
    source.add(revoked, revoked=True)
    source.add(other)
    wrong_secret = replace(new_key(), key_id=other.key_id)
    source.states[other.key_id] = replace(source.states[other.key_id], digest=wrong_secret.digest)
    with capture_logs() as logs:
        told = [await refusal(opened, key.text) for key in (new_key(), expired, revoked, other)]
    assert {(error.reason, error.message, str(error.metadata)) for error in told} == {
        ("API_KEY_INVALID", "The API key is not valid: check it, or ask for a new one.", "{}")
    }
    reasons = [entry["why"] for entry in logs if entry["event"] == "key_refused"]
    assert reasons == ["unknown or revoked", "expired", "unknown or revoked", "wrong secret"]
    assert not any(key.text in str(logs) for key in (expired, revoked, other))


async def test_a_mistyped_key_asks_no_database() -> None:
    source = Source()
    opened = gate(source)
    text = new_key().text
    error = await refusal(opened, text[:-1] + ("a" if text[-1] != "a" else "b"))
    assert (error.reason, "mistyped" in error.message) == ("API_KEY_INVALID", True)
    assert source.questions == 0


async def test_a_wrong_secret_takes_the_same_way_as_an_unknown_id() -> None:
    source = Source()
    opened = gate(source)
    key, other = new_key(), new_key()
    source.add(key, digest=other.digest)
    for wrong in (key, new_key()):
        before = source.questions
        await refusal(opened, wrong.text)
        assert source.questions == before + 1


async def test_a_flood_of_wrong_keys_makes_no_storm_of_questions_and_right_keys_stay_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gates, "_REFUSALS_A_SECOND", 100_000)  # a test is in a hurry
    source = Source()
    opened = gate(source)
    right = new_key()
    source.add(right)
    await opened.authenticate(right.text, PEER)
    before, began = source.questions, time.monotonic()
    text = new_key().text

    async def flood(number: int) -> None:
        for _ in range(10):
            with suppress(Unauthenticated, Overloaded):
                await opened.authenticate(text, f"ipv4:198.51.100.{number % 50}:1")
                raise AssertionError("it was accepted")

    async def normal() -> float:
        waits: list[float] = []
        for _ in range(200):
            started = time.perf_counter()
            await opened.authenticate(right.text, PEER)
            waits.append(time.perf_counter() - started)
            await asyncio.sleep(0)
        return sorted(waits)[100]

    alone = await normal()
    measuring = asyncio.create_task(normal())
    await asyncio.gather(*(flood(number) for number in range(5000)))
    during = await measuring
    took_s = time.monotonic() - began
    assert source.questions - before <= took_s / 0.2 + 2  # of 50,000 wrong keys
    assert opened._wrong >= 1000  # the others were sent away unread
    assert len(opened._wrong_keys._buckets) <= 50
    assert not opened._keyring._waiting
    # Without a pause in between: whatever goes on, it costs no question and no wait.
    assert during < 10 * alone


async def test_a_good_key_among_too_many_unknown_ones_is_not_called_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keyring, "_WAITING", 20)
    source = Source()
    opened = gate(source)
    good = new_key()
    source.add(good)
    await refusal(opened, new_key().text)  # the next question waits for its turn
    source.states.clear()
    others = [asyncio.create_task(refusal(opened, new_key().text)) for _ in range(20)]
    await asyncio.sleep(0)
    fresh = new_key()
    source.add(fresh)
    with pytest.raises(Overloaded) as caught:
        await opened.authenticate(fresh.text, PEER)
    assert caught.value.retry_after_s
    assert (await opened.authenticate(good.text, PEER)).key_id == good.key_id  # known ones do not wait
    await asyncio.gather(*others)
    assert (await opened.authenticate(fresh.text, PEER)).key_id == fresh.key_id


@virtual_time
async def test_after_many_wrong_keys_an_address_waits_and_others_do_not() -> None:
    opened = gate(Source())
    opened._wrong_keys._buckets = TokenBuckets(clock=now)
    opened._refusals = Pace(100, 10, clock=now)
    for _ in range(10):
        await refusal(opened, "pg_wrong")
    assert now() == 0.0
    await refusal(opened, "pg_wrong", "ipv4:198.51.100.7:5000")
    assert now() == 0.0
    await refusal(opened, "pg_wrong")
    assert now() == pytest.approx(0.05)


async def test_changes_have_their_effect_with_the_next_question() -> None:
    source = Source()
    ring = Keyring(source, refresh_s=0.01)
    key = new_key()
    source.add(key)
    keeping = asyncio.create_task(ring.run())

    async def asked_twice() -> None:
        """The second question is asked after the first one was answered."""
        before = source.questions
        await until(lambda: source.questions > before + 1)

    try:
        await asked_twice()
        found = ring.find(key.text)
        assert found is not None
        assert found.plan == "free"
        source.add(key, plan="pro")
        await asked_twice()
        changed = ring.find(key.text)
        assert changed is not None
        assert changed.plan == "pro"
        source.away = True
        await asked_twice()
        assert ring.find(key.text) is not None  # known keys go on
        source.away = False
        source.add(key, revoked=True)
        await asked_twice()
        assert ring.find(key.text) is None
        assert len(ring) == 0
    finally:
        keeping.cancel()


async def test_away_an_unknown_key_is_not_called_wrong() -> None:
    source = Source(away=True)
    opened = gate(source)
    with pytest.raises(Unavailable) as caught:
        await opened.authenticate(new_key().text, PEER)
    assert caught.value.retry_after_s


async def test_a_plan_that_is_in_no_file_is_the_operators_to_mend() -> None:
    source = Source()
    opened = gate(source)
    key = new_key()
    source.add(key, plan="gold")
    with pytest.raises(Unavailable) as caught:
        await opened.authenticate(key.text, PEER)
    assert caught.value.reason == "PLAN_UNKNOWN"


async def test_the_rate_of_a_plan_holds_and_its_hint_is_true() -> None:
    source = Source()
    opened = gate(source)
    now = 1000.0
    opened._rates = TokenBuckets(clock=lambda: now)
    key = new_key()
    source.add(key)
    account = await opened.authenticate(key.text, PEER)
    for _ in range(5):
        with opened.admitted(account, streaming=False):
            pass
    with pytest.raises(RateLimited) as caught, opened.admitted(account, streaming=False):
        pass
    assert caught.value.reason == "RATE_LIMITED"
    assert caught.value.retry_after_s is not None
    now += caught.value.retry_after_s - 0.01
    with pytest.raises(RateLimited), opened.admitted(account, streaming=False):
        pass
    now += 0.01
    with opened.admitted(account, streaming=False):
        pass


async def test_a_call_that_finds_no_place_does_not_count_towards_the_rate() -> None:
    source = Source()
    opened = gate(source)
    opened._rates = TokenBuckets(clock=lambda: 1000.0)
    key = new_key()
    source.add(key)
    account = await opened.authenticate(key.text, PEER)
    with opened.admitted(account, streaming=False), opened.admitted(account, streaming=False):
        for _ in range(20):
            with pytest.raises(RateLimited) as caught, opened.admitted(account, streaming=False):
                pass
            assert caught.value.reason == "TOO_MANY_IN_FLIGHT"
    for _ in range(3):  # of a burst of five
        with opened.admitted(account, streaming=False):
            pass
    for _ in range(3):  # and what the rate refuses takes no place
        with pytest.raises(RateLimited) as caught, opened.admitted(account, streaming=False):
            pass
        assert caught.value.reason == "RATE_LIMITED"
        assert caught.value.metadata["limit_name"] == "calls_per_second"


async def test_usage_is_kept_while_the_database_is_away_and_written_as_one_batch() -> None:
    sink = Sink(away=True)
    usage = UsageRecorder(sink, sink, now=lambda: datetime(2026, 11, 28, 12, 30, tzinfo=UTC))
    usage.called("acme", "DetectPoses", calls=1, failures=0, pictures=1)
    await usage.write()
    usage.called("acme", "DetectPoses", calls=0, failures=1)
    sink.away = False
    await usage.write()
    rows = [(number, [(row.calls, row.failures) for row in rows]) for number, rows in sink.batches]
    assert rows == [(1, [(1, 0)]), (2, [(0, 1)])]
    await usage.write()
    assert len(sink.batches) == 2


async def test_writing_ends_while_calls_go_on() -> None:
    class Busy(Sink):
        async def add(self, *batch: Any) -> None:
            await asyncio.sleep(0)
            usage.called("acme", "DetectPoses", calls=1, failures=0)  # ends while the batch is written
            await super().add(*batch)

    sink = Busy()
    usage = UsageRecorder(sink, sink)
    usage.called("acme", "DetectPoses", calls=1, failures=0)
    usage.used("key1")
    for _ in range(2):
        async with asyncio.timeout(120):
            await usage.write()
    assert [(number, rows[0].calls) for number, rows in sink.batches] == [(1, 1), (2, 1)]
    assert sink.noted == [{"key1"}]


async def test_the_use_of_a_key_is_noted_once_an_hour() -> None:
    sink = Sink()
    now = [datetime(2026, 11, 28, 12, 30, tzinfo=UTC)]
    usage = UsageRecorder(sink, sink, now=lambda: now[0])
    with capture_logs() as logs:
        for hour in (12, 12, 13):
            now[0] = now[0].replace(hour=hour)
            usage.used("key1")
            await usage.write()
    assert sink.noted == [{"key1"}, {"key1"}]
    assert {entry["key_id"] for entry in logs if entry["event"] == "key_first_used"} == {"key1"}


async def test_the_loops_go_on_after_an_error_that_no_one_expected() -> None:
    class Broken(Source):
        broken = True

        async def changes(self, since: int | None) -> KeyChanges | None:
            if self.broken:
                raise StoreError("no such column")
            return await Source.changes(self, since)

        async def add(self, *batch: object) -> None:  # type: ignore[override]
            if self.broken:
                raise StoreError("no such column")
            self.written += 1

        written = 0

    store = Broken()
    opened = AccountGate(
        Keyring(store, refresh_s=0.01),
        load_plans(),
        Quotas(Units()),
        UsageRecorder(store, Sink()),
        write_s=0.01,
    )
    key = new_key()
    store.states[key.key_id] = KeyState(key.key_id, "acme", "free", key.digest, None, False)
    opened.usage.called("acme", "DetectPoses", calls=1, failures=0)
    with capture_logs() as logs:
        running = asyncio.create_task(opened.run())
        failed = {"keys_not_refreshed", "usage_not_written"}
        await until(lambda: failed <= {entry["event"] for entry in logs})
        store.broken = False
        await until(lambda: bool(store.written and len(opened._keyring)))
    assert not running.done()
    running.cancel()
    assert failed <= {entry["event"] for entry in logs if entry["log_level"] == "error"}
    assert opened._keyring.find(key.text) is not None
    assert store.written == 1


async def test_a_new_key_of_a_slowed_address_is_accepted_and_away_it_is_not_called_wrong() -> None:
    source = Source()
    opened = gate(source)
    for _ in range(12):
        await refusal(opened, "pg_wrong")
    key = new_key()
    source.add(key)
    assert (await opened.authenticate(key.text, PEER)).key_id == key.key_id
    source.away = True
    with pytest.raises(Unavailable):
        await opened.authenticate(new_key().text, PEER)
