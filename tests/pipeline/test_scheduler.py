from __future__ import annotations

import asyncio

import pytest

from service.pipeline.scheduler import InferenceScheduler


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Callers:
    """Callers who note when they are let in, and stay until they are told to go."""

    def __init__(self, turns: InferenceScheduler) -> None:
        self._scheduler = turns
        self.inside: list[str] = []
        self._go: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, stream: str | None = None, *, tenant: str = "") -> None:
        self._go[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, stream, tenant))
        await settle()

    async def go(self, name: str) -> None:
        self._go[name].set()
        await settle()

    async def _stay(self, name: str, stream: str | None, tenant: str) -> None:
        async with self._scheduler.slot(stream, tenant=tenant):
            self.inside.append(name)
            await self._go[name].wait()


async def test_so_many_are_let_in_and_the_next_when_one_goes() -> None:
    callers = Callers(InferenceScheduler(2, 2))
    for name in "abc":
        await callers.come(name)
    assert callers.inside == ["a", "b"]
    await callers.go("a")
    assert callers.inside == ["a", "b", "c"]


async def test_a_unary_call_goes_before_frames_that_wait_longer() -> None:
    callers = Callers(InferenceScheduler(1, 1))
    await callers.come("first", "s")
    await callers.come("frame", "s")
    await callers.come("picture")
    await callers.go("first")
    assert callers.inside == ["first", "picture"]


async def test_frames_leave_slots_for_unary_calls() -> None:
    callers = Callers(InferenceScheduler(3, 1))
    for number in range(3):
        await callers.come(f"f{number}", "s")
    await callers.come("picture")
    assert callers.inside == ["f0", "picture"]


async def test_streams_take_turns_however_many_frames_one_has_waiting() -> None:
    callers = Callers(InferenceScheduler(1, 1))
    for number in range(4):
        await callers.come(f"a{number}", "a")
    for number in range(2):
        await callers.come(f"b{number}", "b")
    for _ in range(5):
        await callers.go(callers.inside[-1])
    assert callers.inside == ["a0", "a1", "b0", "a2", "b1", "a3"]


@pytest.mark.parametrize("stream", [None, "s"])
async def test_who_leaves_while_waiting_leaves_no_trace(stream: str | None) -> None:
    callers = Callers(InferenceScheduler(1, 1))
    await callers.come("a", stream)
    await callers.come("b", stream)
    await callers.come("c", stream)
    callers.tasks["b"].cancel()
    await settle()
    await callers.go("a")
    assert callers.inside == ["a", "c"]
    await callers.go("c")
    await callers.come("d", stream)
    assert callers.inside[-1] == "d"


async def test_a_waiter_cancelled_just_as_it_gets_its_slot_passes_it_on() -> None:
    turns = InferenceScheduler(1, 1)
    callers = Callers(turns)
    await callers.come("a")
    await callers.come("b")
    await callers.come("c")
    callers._go["a"].set()
    await asyncio.sleep(0)  # a has left, and b was let in but has not run yet
    callers.tasks["b"].cancel()
    await settle()
    assert "c" in callers.inside


async def test_frames_hold_fewer_slots_while_unary_calls_come() -> None:
    callers = Callers(InferenceScheduler(4, 3, 1))
    for number in range(3):
        await callers.come(f"f{number}", "s")
    assert callers.inside == ["f0", "f1", "f2"]
    await callers.come("picture")
    for name in ("f0", "f1", "f2"):
        await callers.come(f"next {name}", "s")
        await callers.go(name)
    assert callers.inside == ["f0", "f1", "f2", "picture", "next f0"]


async def test_tenants_take_turns_however_many_one_of_them_has_waiting() -> None:
    callers = Callers(InferenceScheduler(1, 1))
    for number in range(5):
        await callers.come(f"a{number}", tenant="a")
    await callers.come("b0", tenant="b")
    await callers.come("b1", tenant="b")
    for name in ("a0", "a1", "b0", "a2", "b1", "a3"):
        await callers.go(name)
    assert callers.inside == ["a0", "a1", "b0", "a2", "b1", "a3", "a4"]


async def test_beside_others_a_tenant_has_a_small_part_of_the_room() -> None:
    callers = Callers(InferenceScheduler(8, 8, None, 2))
    for number in range(6):
        await callers.come(f"a{number}", tenant="a")
    assert callers.inside == [f"a{number}" for number in range(6)]  # alone it has all of it
    await callers.come("b0", tenant="b")
    await callers.come("b1", tenant="b")
    await callers.come("b2", tenant="b")
    assert callers.inside[6:] == ["b0", "b1"]
    await callers.come("a6", tenant="a")
    for number in range(4):
        await callers.go(f"a{number}")
    assert callers.inside[6:] == ["b0", "b1"]
    await callers.go("a4")
    assert callers.inside[6:] == ["b0", "b1", "a6"]
    await callers.go("b0")
    assert callers.inside[6:] == ["b0", "b1", "a6", "b2"]


async def test_a_tenant_that_leaves_before_its_turn_is_forgotten() -> None:
    scheduler = InferenceScheduler(1, 1, None, 1)
    callers = Callers(scheduler)
    await callers.come("a", tenant="a")
    await callers.come("b", tenant="b")
    callers.tasks["b"].cancel()
    await settle()
    await callers.go("a")
    assert not scheduler._unary
    assert not scheduler._unary_held
