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
        self._decoded: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(
        self, name: str, stream: str | None = None, *, tenant: str = "", large: bool = False
    ) -> None:
        self._go[name] = asyncio.Event()
        self._decoded[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, stream, tenant, large=large))
        await settle()

    async def go(self, name: str) -> None:
        self._go[name].set()
        await settle()

    async def decode(self, name: str) -> None:
        self._decoded[name].set()
        await settle()

    async def _stay(self, name: str, stream: str | None, tenant: str, *, large: bool) -> None:
        slot = await self._scheduler.take(stream, tenant=tenant, large=large)
        try:
            self.inside.append(name)
            if large:
                await self._decoded[name].wait()
                slot.decoded()
            await self._go[name].wait()
        finally:
            slot.leave()


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
    assert callers.inside == ["a0", "b0", "a1", "b1", "a2", "a3"]


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
    for name in ("a0", "b0", "a1", "b1", "a2", "a3"):
        await callers.go(name)
    assert callers.inside == ["a0", "b0", "a1", "b1", "a2", "a3", "a4"]


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
    assert not scheduler._unary.callers
    assert not scheduler._held


async def test_a_caller_alone_has_as_many_large_images_decoded_as_may_be() -> None:
    callers = Callers(InferenceScheduler(16, 4, 1, 2, large_at_once=2))
    for number in range(4):
        await callers.come(f"a{number}", tenant="a", large=True)
    assert callers.inside == ["a0", "a1"]
    await callers.decode("a1")  # the model works on it, and the next one is decoded
    assert callers.inside == ["a0", "a1", "a2"]


async def test_63_large_images_of_a_caller_delay_those_of_another_by_one() -> None:
    callers = Callers(InferenceScheduler(16, 4, 1, 2, large_at_once=2))
    for number in range(63):
        await callers.come(f"a{number}", tenant="a", large=True)
    await callers.come("small", tenant="b")
    assert callers.inside == ["a0", "a1", "small"]  # it waits for none of them
    await callers.come("large", tenant="b", large=True)
    await callers.decode("a0")
    await callers.go("a0")
    assert callers.inside[3:] == []  # beside others one fewer is decoded, which leaves a thread
    await callers.decode("a1")
    await callers.go("a1")
    assert callers.inside[3:] == ["large"]
    await callers.decode("large")
    assert callers.inside[4:] == ["a2"]


async def test_small_images_of_a_caller_pass_its_large_ones() -> None:
    callers = Callers(InferenceScheduler(4, 4, large_at_once=1))
    for number in range(3):
        await callers.come(f"large {number}", large=True)
    for number in range(4):
        await callers.come(f"small {number}")
    assert callers.inside == ["large 0", "small 0", "small 1", "small 2"]


@pytest.mark.parametrize("at_once", [1, 2])
async def test_neither_large_nor_small_images_hold_up_the_others_for_ever(at_once: int) -> None:
    callers = Callers(InferenceScheduler(at_once, at_once, large_at_once=1))
    for number in range(4):
        await callers.come(f"small {number}")
        await callers.come(f"large {number}", large=True)
    for _ in range(3):
        for name in tuple(callers.inside):
            await callers.decode(name)
            await callers.go(name)
    kinds = [name.partition(" ")[0] for name in callers.inside]
    assert kinds[:4] == ["small", "large"] * 2


async def test_large_frames_take_turns_with_large_images_of_unary_calls() -> None:
    callers = Callers(InferenceScheduler(16, 4, large_at_once=1))
    for number in range(3):
        await callers.come(f"a{number}", tenant="a", large=True)
    for number in range(2):
        await callers.come(f"f{number}", "s", large=True)
    for _ in range(4):
        await callers.decode(callers.inside[-1])
    assert callers.inside == ["a0", "f0", "a1", "f1", "a2"]


async def test_a_large_image_that_is_cancelled_gives_its_place_back() -> None:
    callers = Callers(InferenceScheduler(16, 4, large_at_once=1))
    for name in "abc":
        await callers.come(name, large=True)
    for name in "ba":
        callers.tasks[name].cancel()
        await settle()
    assert callers.inside == ["a", "c"]
    await callers.decode("c")
    await callers.go("c")
    await callers.come("d", large=True)
    assert callers.inside == ["a", "c", "d"]
