"""Which items the OpenVINO backend runs at the same time, and on what; without OpenVINO."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from graphs.workers import Workers

LONG_S = 30.0  # ends a test that hangs; nothing waits as long otherwise


@dataclass
class Run:
    """What is known of one item's run; it lasts until it is told to end."""

    begun: Future[bool] = field(default_factory=Future)  # whether it ran alone
    end: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def alone(self) -> bool:
        return self.begun.result(LONG_S)

    def finish(self) -> None:
        self.end.set()
        assert self.ended.wait(LONG_S)


def work(run: Run, alone: bool) -> None:
    run.begun.set_result(alone)
    assert run.end.wait(LONG_S)
    run.ended.set()


@pytest.fixture(name="workers")
def two_workers() -> Iterator[Workers[Run]]:
    workers = Workers(2, work)
    yield workers
    workers.close()


@pytest.fixture(name="begin")
def triton(workers: Workers[Run]) -> Iterator[Callable[..., Future[None]]]:
    """Hands items over as Triton does: from one thread, the next ones when `begin` has returned."""
    with ThreadPoolExecutor(1) as executor:
        yield lambda *runs: executor.submit(workers.begin, runs)


def test_no_items_are_nothing_to_wait_for(begin: Callable[..., Future[None]]) -> None:
    begin().result(LONG_S)


def test_an_item_that_comes_alone_has_all_threads_and_no_neighbour(
    begin: Callable[..., Future[None]],
) -> None:
    first, second, third = Run(), Run(), Run()
    begin(first).result(LONG_S)
    assert first.alone
    later = begin(second, third)
    assert not later.done()
    assert not second.begun.done()
    assert not third.begun.done()
    first.finish()
    later.result(LONG_S)
    assert not second.alone
    assert not third.alone
    second.finish()
    third.finish()


def test_one_that_finds_another_at_work_leaves_room_for_a_third(begin: Callable[..., Future[None]]) -> None:
    first, second, third, fourth = Run(), Run(), Run(), Run()
    begin(first, second).result(LONG_S)
    first.finish()
    begin(third).result(LONG_S)
    assert not third.alone
    second.finish()
    begin(fourth).result(LONG_S)
    assert not fourth.alone
    third.finish()
    fourth.finish()


def test_a_worker_takes_its_next_item_while_the_other_is_still_at_work(
    begin: Callable[..., Future[None]],
) -> None:
    slow, quick, next_one, last = Run(), Run(), Run(), Run()
    begin(slow, quick).result(LONG_S)  # while both run
    assert not slow.alone
    assert not quick.alone
    waiting = begin(next_one, last)
    assert not waiting.done()
    assert not next_one.begun.done()
    quick.finish()
    assert not next_one.alone
    assert not last.begun.done()
    assert not waiting.done()  # so that no more than what runs and one batch has left Triton's queue
    next_one.finish()
    assert not last.alone
    waiting.result(LONG_S)
    slow.finish()
    last.finish()


def test_after_a_pause_an_item_has_all_threads_again(begin: Callable[..., Future[None]]) -> None:
    both = Run(), Run()
    begin(*both).result(LONG_S)
    for run in both:
        run.finish()
    until = time.monotonic() + LONG_S
    while time.monotonic() < until:  # a worker is free a moment after its item has ended
        run = Run()
        begin(run).result(LONG_S)
        run.finish()
        if run.alone:
            return
    pytest.fail("no item ever ran alone again")


def test_a_single_worker_runs_one_item_after_the_other(begin: Callable[..., Future[None]]) -> None:
    workers = Workers(1, work)
    runs = [Run(), Run()]
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(workers.begin, runs)
        assert runs[0].alone
        assert not runs[1].begun.done()
        runs[0].finish()
        assert runs[1].alone
        waiting.result(LONG_S)
        runs[1].finish()
    workers.close()


def test_to_close_waits_for_what_runs() -> None:
    workers, run = Workers(2, work), Run()
    workers.begin([run])
    with ThreadPoolExecutor(1) as executor:
        closing = executor.submit(workers.close)
        assert not closing.done()
        run.finish()
        closing.result(LONG_S)
