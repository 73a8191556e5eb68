import asyncio

import pytest

from service.pipeline.rotation import FairPlaces


class Calls:
    """Calls that note when they get a place, and hold it until they are ended."""

    def __init__(self, places: FairPlaces) -> None:
        self._places = places
        self.at_work: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, *names: str) -> None:
        for name in names:
            self.tasks[name] = asyncio.create_task(self._hold(name))
        await settle()

    async def end(self, name: str) -> None:
        self.tasks[name].cancel()
        await settle()

    async def _hold(self, name: str) -> None:
        async with self._places.place(name[0]):
            self.at_work.append(name)
            await asyncio.Event().wait()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_caller_never_has_all_places() -> None:
    calls = Calls(FairPlaces(3))
    await calls.begin("a1", "a2", "a3", "a4", "b1")
    assert calls.at_work == ["a1", "a2", "b1"]
    await calls.end("a1")
    assert calls.at_work == ["a1", "a2", "b1", "a3"]


async def test_a_single_place_is_given_in_rotation() -> None:
    calls = Calls(FairPlaces(1))
    await calls.begin("a1", "a2", "a3", "b1", "c1", "b2")
    for _ in range(5):
        await calls.end(calls.at_work[-1])
    assert calls.at_work == ["a1", "b1", "c1", "a2", "b2", "a3"]


@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "just as it gets its place"])
async def test_a_cancelled_call_leaves_no_trace(late: bool) -> None:
    calls = Calls(FairPlaces(1))
    await calls.begin("a1", "b1", "c1")
    if late:
        calls.tasks["a1"].cancel()
        await asyncio.sleep(0)
    await calls.end("b1")
    await calls.end("a1")
    assert calls.at_work == ["a1", "c1"]
    await calls.end("c1")
    await calls.begin("a2")
    assert calls.at_work == ["a1", "c1", "a2"]
