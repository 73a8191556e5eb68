from __future__ import annotations

import asyncio
import gc

import pytest

from service.pipeline.ordered_window import OrderedWindow
from tests.virtual_time import settled, virtual_time


async def after(seconds: float, result: str) -> str:
    await asyncio.sleep(seconds)
    return result


async def drained(window: OrderedWindow[int, str]) -> list[tuple[int, str]]:
    found = []
    while (item := await window.next()) is not None:
        found.append((item.frame, await item.result))
        window.release()
    return found


@virtual_time
async def test_a_window_without_frames_ends_at_once() -> None:
    window: OrderedWindow[int, str] = OrderedWindow(2)
    window.finish()
    assert await drained(window) == []


@virtual_time
async def test_results_leave_in_the_order_of_the_frames_whichever_is_done_first() -> None:
    window: OrderedWindow[int, str] = OrderedWindow(3)
    for number, seconds in enumerate([3.0, 1.0, 2.0]):
        await window.reserve()
        window.start(number, after(seconds, f"result {number}"))
    window.finish()
    assert await drained(window) == [(0, "result 0"), (1, "result 1"), (2, "result 2")]


@virtual_time
async def test_no_more_frames_are_in_flight_than_there_are_places() -> None:
    window: OrderedWindow[int, str] = OrderedWindow(2)
    started = 0

    async def produce() -> None:
        nonlocal started
        for number in range(5):
            await window.reserve()
            window.start(number, after(0, ""))
            started += 1
        window.finish()

    producer = asyncio.create_task(produce())
    seen = []
    await settled()
    while (await window.next()) is not None:
        seen.append(started)
        await settled()
        assert started == seen[-1]  # a frame that is done keeps its place until it is delivered
        window.release()
        await settled()
    await producer
    assert seen == [2, 3, 4, 5, 5]


def test_a_place_is_reserved_without_waiting_only_where_one_is_free() -> None:
    window: OrderedWindow[int, str] = OrderedWindow(1)
    assert window.try_reserve()
    assert not window.try_reserve()
    window.release()
    assert window.try_reserve()


@virtual_time
async def test_who_stops_waiting_for_a_place_takes_none() -> None:
    window: OrderedWindow[int, str] = OrderedWindow(1)
    await window.reserve()
    waiting = asyncio.create_task(window.reserve())
    await settled()
    waiting.cancel()
    await settled()
    window.release()
    assert window.try_reserve()


@virtual_time
async def test_an_error_of_the_producer_comes_after_the_frames_before_it() -> None:
    window: OrderedWindow[int, str] = OrderedWindow(2)
    await window.reserve()
    window.start(0, after(5, "whole"))
    window.finish(ValueError("damaged"))
    item = await window.next()
    assert item is not None
    assert await item.result == "whole"
    window.release()
    with pytest.raises(ValueError, match="damaged"):
        await window.next()


@virtual_time
async def test_an_error_of_one_frame_leaves_the_others_alone() -> None:
    async def fail() -> str:
        raise ValueError("bad frame")

    window: OrderedWindow[int, str] = OrderedWindow(2)
    for number, work in enumerate([fail(), after(1, "good")]):
        await window.reserve()
        window.start(number, work)
    first, second = await window.next(), await window.next()
    assert first is not None
    assert second is not None
    with pytest.raises(ValueError, match="bad frame"):
        await first.result
    assert await second.result == "good"


@virtual_time
async def test_cancelling_ends_all_work_before_it_returns() -> None:
    ended = []

    async def slow(number: int) -> str:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)  # a clean-up that takes time
            ended.append(number)
        return ""

    window: OrderedWindow[int, str] = OrderedWindow(2)
    for number in range(2):
        await window.reserve()
        window.start(number, slow(number))
    await settled()
    await window.cancel()
    assert sorted(ended) == [0, 1]


@virtual_time  # on a loop of its own: the collector may find what other tests have left on theirs
async def test_the_error_of_a_frame_that_nothing_takes_any_more_is_no_news() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def fail() -> None:
        raise ValueError("a damaged frame")

    window: OrderedWindow[int, None] = OrderedWindow(2)
    assert window.try_reserve()
    window.start(1, fail())
    for _ in range(5):
        await asyncio.sleep(0)  # it has ended, and was not taken
    await window.cancel()
    del window
    gc.collect()
    assert complaints == []
