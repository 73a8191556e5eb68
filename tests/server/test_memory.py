"""The memory guard: refuses work near its limit, sheds, and gives freed memory back."""

import asyncio
import mmap
import os
from dataclasses import dataclass, field

import pytest

from service.errors import Overloaded
from service.server import memory
from service.server.memory import MemoryGuard, resident_bytes
from tests.fakes import until

LIMIT = 1000 << 20


@dataclass
class Machine:
    """Processes by number, and what they hold."""

    held: dict[int, int] = field(default_factory=lambda: {os.getpid(): 100 << 20})
    working: int = 0
    released: int = 0
    shed: int = 0

    def guard(self) -> MemoryGuard:
        guard = MemoryGuard(
            LIMIT,
            lambda: self.working,
            lambda: [pid for pid in self.held if pid != os.getpid()],
            lambda pid: self.held[pid],
        )
        guard.when_full(self._shed)
        return guard

    def _shed(self) -> None:
        self.shed += 1

    def release(self) -> bool:
        self.released += 1
        return True


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(memory, "release_freed_memory", machine.release)
    return machine


async def test_near_the_limit_work_is_refused_until_there_is_room_again(machine: Machine) -> None:
    guard = machine.guard()
    for used, full in ((849, False), (851, True), (810, True), (790, False), (849, False)):
        machine.held[os.getpid()] = used << 20
        await guard.look()
        assert guard.full is full
        if full:
            with pytest.raises(Overloaded) as refused:
                guard.check()
            assert refused.value.reason == "MEMORY_FULL"
            assert refused.value.retry_after_s is not None
        else:
            guard.check()
    assert machine.shed == 2  # at every look while it is full


async def test_decoder_processes_count_too(machine: Machine) -> None:
    machine.held |= {2: 400 << 20, 3: 400 << 20}
    guard = machine.guard()
    await guard.look()
    assert guard.used_bytes() == 900 << 20
    assert guard.full


async def test_freed_memory_goes_back_before_anything_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.held[os.getpid()] = 900 << 20

    def release() -> bool:
        machine.held[os.getpid()] = 200 << 20
        return True

    monkeypatch.setattr(memory, "release_freed_memory", release)
    guard = machine.guard()
    await guard.look()
    guard.check()
    assert machine.shed == 0


async def test_freed_memory_goes_back_after_work_and_ever_more_rarely_where_it_does_not(
    machine: Machine,
) -> None:
    guard = machine.guard()
    for _ in range(50):
        await guard.look()
    assert machine.released == 0  # nothing has happened yet
    machine.working = 1
    await guard.look()
    machine.working, machine.held[os.getpid()] = 0, 300 << 20
    released = []
    for _ in range(2000):
        await guard.look()
        released.append(machine.released)
    assert [released.index(count) for count in range(1, 6)] == [19, 39, 79, 159, 319]
    assert machine.released == 8  # in 200 s
    machine.held[os.getpid()] = 110 << 20
    for _ in range(1000):
        await guard.look()
    assert machine.released == 8


def test_the_memory_of_this_process_is_measured() -> None:
    before = resident_bytes(os.getpid())
    size = 64 << 20
    # Pages of its own: memory that earlier tests freed may be resident still.
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        for page in range(0, size, mmap.PAGESIZE):
            held[page] = 1
        assert resident_bytes(os.getpid()) - before > 0.9 * size
    assert resident_bytes(2**22 + 1) == 0


async def test_a_look_that_fails_does_not_end_the_guard(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_LOOK_S", 0.001)
    guard, looks = machine.guard(), 0

    def fail() -> None:
        nonlocal looks
        looks += 1
        raise RuntimeError("Cannot change state of expiring Timeout")

    guard.when_full(fail)
    machine.held[os.getpid()] = 900 << 20
    running = asyncio.create_task(guard.run())
    await until(lambda: looks > 0)
    machine.held[os.getpid()] = 1 << 20
    await until(lambda: not guard.full)
    running.cancel()
