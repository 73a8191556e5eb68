from __future__ import annotations

from contextlib import ExitStack

import pytest

from service.errors import Overloaded, PosegateError, Unavailable
from service.pipeline.stream_limiter import StreamLimiter
from service.telemetry.call_context import CallContext, Observer, begin


def test_streams_up_to_the_limit_are_admitted_and_a_place_is_free_after_its_block() -> None:
    limiter = StreamLimiter(2, 100)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(limiter.admitted())
        assert limiter.running == 2
        with pytest.raises(Overloaded) as refused:
            held.enter_context(limiter.admitted())
        assert refused.value.reason == "TOO_MANY_STREAMS"
        assert refused.value.metadata == {"limit": "2"}
        assert refused.value.retry_after_s
        assert limiter.running == 2
    assert limiter.running == 0
    with limiter.admitted():
        pass


def test_a_stream_that_fails_frees_its_place() -> None:
    limiter = StreamLimiter(1, 100)
    with pytest.raises(ValueError, match="broken"), limiter.admitted():
        raise ValueError("broken")
    assert limiter.running == 0


def test_an_admitted_stream_is_counted_by_the_observer_and_a_refused_one_is_not() -> None:
    class Counter(Observer):
        count = 0

        def admitted(self) -> None:
            self.count += 1

    counter = Counter()
    begin(CallContext(observer=counter))
    try:
        limiter = StreamLimiter(1, 100)
        with limiter.admitted(), pytest.raises(Overloaded), limiter.admitted():
            raise AssertionError
    finally:
        begin(CallContext())
    assert counter.count == 1


def test_four_calls_for_each_place_may_be_without_a_config() -> None:
    limiter = StreamLimiter(1, 100)
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(limiter.arriving())
        with pytest.raises(Overloaded):
            held.enter_context(limiter.arriving())
        with limiter.admitted():  # calls without a config hold no place
            pass
    with limiter.arriving():
        pass


def test_a_draining_limiter_admits_no_stream_and_lets_those_at_work_go_on() -> None:
    limiter = StreamLimiter(2, 100)
    with limiter.admitted():
        limiter.drain()
        assert not limiter.ending
        with pytest.raises(Unavailable) as refused, limiter.admitted():
            raise AssertionError
        assert (refused.value.reason, refused.value.retry_after_s) == ("DRAINING", 1.0)


def test_ending_drains_too() -> None:
    limiter = StreamLimiter(2, 100)
    limiter.end()
    assert limiter.ending
    with pytest.raises(Unavailable), limiter.admitted():
        raise AssertionError


def test_memory_is_given_back_and_one_stream_alone_may_hold_any_amount() -> None:
    limiter = StreamLimiter(4, 100)
    for _ in range(3):
        with limiter.holding(80), pytest.raises(PosegateError), limiter.holding(21):
            raise AssertionError
        with limiter.holding(80), limiter.holding(20):
            pass
    with limiter.holding(1000):
        pass


def test_a_refused_reservation_names_both_amounts() -> None:
    limiter = StreamLimiter(4, 100)
    with limiter.holding(80), pytest.raises(Overloaded) as refused, limiter.holding(21):
        raise AssertionError
    assert refused.value.reason == "TOO_MUCH_VIDEO_MEMORY"
    assert refused.value.metadata == {"limit_bytes": "100", "actual_bytes": "101"}
