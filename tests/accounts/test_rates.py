"""Token buckets, places, wrong keys by peer."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.accounts.peers import WrongKeys, address_of
from service.accounts.places import Places
from service.accounts.plans import load_plans
from service.accounts.rates import Pace, TokenBuckets
from service.errors import PlanDoesNotAllow, RateLimited

PLANS = load_plans()
ONE = replace(PLANS["free"], calls_at_once=1, streams_at_once=1)
NONE = replace(ONE, streams_at_once=0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_the_next_one_waits_as_long_as_it_is_told() -> None:
    clock = Clock()
    buckets = TokenBuckets(clock=clock)
    assert [buckets.take("a", per_second=2, burst=5) for _ in range(5)] == [0] * 5
    wait_s = buckets.take("a", per_second=2, burst=5)
    assert wait_s == pytest.approx(0.5)
    assert buckets.take("b", per_second=2, burst=5) == 0  # another's bucket
    clock.now += wait_s - 0.01
    assert buckets.take("a", per_second=2, burst=5) > 0
    clock.now += 0.01
    assert buckets.take("a", per_second=2, burst=5) == 0


@given(
    gaps=st.lists(st.floats(0, 2), min_size=1, max_size=60),
    per_second=st.floats(0.5, 50),
    burst=st.integers(1, 10),
)
def test_in_no_time_more_pass_than_rate_and_burst_allow(
    gaps: list[float], per_second: float, burst: int
) -> None:
    clock = Clock()
    buckets = TokenBuckets(clock=clock)
    passed = []
    for gap in gaps:
        clock.now += gap
        if not buckets.take("a", per_second=per_second, burst=burst):
            passed.append(clock.now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            took_s = passed[last] - passed[first]
            assert last - first + 1 <= burst + took_s * per_second + 1e-6


def test_memory_has_an_end() -> None:
    clock = Clock()
    buckets = TokenBuckets(max_names=100, clock=clock)
    for number in range(1000):
        buckets.take(str(number), per_second=1, burst=1)
    assert len(buckets) == 100
    clock.now += 2
    buckets.forget_full()
    assert len(buckets) == 0


def test_calls_and_streams_of_a_tenant_are_counted_apart_from_each_other_and_from_others() -> None:
    places = Places()
    with (
        places.taken("a", ONE, streaming=False),
        places.taken("a", ONE, streaming=True),
        places.taken("b", ONE, streaming=False),
    ):
        with pytest.raises(RateLimited) as caught, places.taken("a", ONE, streaming=False):
            pass
        assert caught.value.reason == "TOO_MANY_IN_FLIGHT"
        assert caught.value.metadata == {
            "plan": "free",
            "limit": "1",
            "actual": "2",
            "limit_name": "calls_at_once",
        }
        assert caught.value.retry_after_s
        with pytest.raises(RateLimited, match="at work") as caught, places.taken("a", ONE, streaming=True):
            pass
        assert caught.value.reason == "TOO_MANY_STREAMS"
    with places.taken("a", ONE, streaming=False), places.taken("a", PLANS["pro"], streaming=False):
        pass
    assert not places._calls
    with pytest.raises(PlanDoesNotAllow), places.taken("a", NONE, streaming=True):
        pass


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:5000", "192.0.2.1"),
        ("ipv6:[2001:db8:1:2:3::4]:5000", "2001:db8:1:2::"),
        ("ipv6:%5B::1%5D:5000", "::"),
        ("ipv6:[::ffff:192.0.2.1]:1", "192.0.2.1"),
        ("unix:", "unix"),
        ("unix:/run/a:b", "unix"),
        ("ipv4:what", "ipv4"),
        ("", ""),
    ],
)
def test_a_peer_is_its_address(peer: str, address: str) -> None:
    assert address_of(peer) == address


def test_the_port_makes_no_difference_to_wrong_keys() -> None:
    wrong = WrongKeys()
    told = []
    for port in range(20):
        told.append(wrong.too_many(f"ipv4:192.0.2.1:{port}"))
        wrong.add(f"ipv4:192.0.2.1:{port}")
    assert told == [False] * 10 + [True] * 10
    assert not wrong.too_many("ipv4:192.0.2.2:1")


def test_a_pace_spreads_events_and_lets_those_beyond_its_room_pass() -> None:
    moment = 100.0
    pace = Pace(10.0, 3, clock=lambda: moment)
    assert [pace.wait_s() for _ in range(5)] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.0])
    moment += 0.35
    assert pace.wait_s() == pytest.approx(0.05)
    moment += 10
    assert [pace.wait_s(0.05) for _ in range(5)] == pytest.approx([0.05, 0.15, 0.25, 0.35, 0.05])
