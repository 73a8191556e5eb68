from __future__ import annotations

import asyncio

import pytest

from service.pipeline.background import EventQueue, background
from tests.virtual_time import now, settled, virtual_time


@virtual_time
async def test_an_event_is_waited_for_only_so_long() -> None:
    events: EventQueue[str] = EventQueue(1)
    assert await events.next_within(2.0) is None
    assert now() == 2.0
    asyncio.get_running_loop().call_later(1.0, lambda: events._events.put_nowait("done"))
    assert await events.next_within(2.0) == "done"
    assert now() == 3.0


@virtual_time
async def test_the_error_that_ended_a_run_is_raised_after_the_events_before_it() -> None:
    events: EventQueue[str] = EventQueue(2)
    await events.put("frame")
    await events.put(ValueError("broken"))
    assert await events.next_within(1.0) == "frame"
    with pytest.raises(ValueError, match="broken"):
        await events.next_within(1.0)


@virtual_time
async def test_a_run_that_is_ahead_of_its_caller_waits() -> None:
    events: EventQueue[int] = EventQueue(2)
    put = 0

    async def run() -> None:
        nonlocal put
        for number in range(5):
            await events.put(number)
            put += 1

    async with background(run()):
        await settled()
        assert put == 2
        assert [await events.next_within(1.0) for _ in range(5)] == [0, 1, 2, 3, 4]


@virtual_time
async def test_leaving_the_block_waits_for_the_clean_up_even_when_it_is_cancelled() -> None:
    cleaned = False

    async def run() -> None:
        nonlocal cleaned
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(5)
            cleaned = True

    async def call() -> None:
        async with background(run()):
            await asyncio.sleep(1000)

    task = asyncio.create_task(call())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(1)
    task.cancel()  # again, in the middle of the clean-up
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned
    assert now() == 6.0
