"""Scenarios of `scripts/chaos`: Triton and gateways end under calls, which all are answered."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

from scripts.chaos_callers import Callers, Load, calling
from scripts.chaos_service import Process, watching
from scripts.chaos_world import Row, World, memory, none_lost

_AT_ONCE = 8
_LONGEST_S = 240.0  # on a busy machine: fewer calls than planned, and the row says how many


async def kill(world: World) -> Row:
    """Triton gets SIGKILL, again and again."""
    times = world.count(5)
    return await _harm_triton(world, "kill", signal.SIGKILL, times, world.count(10_000))


async def stop(world: World) -> Row:
    """Triton gets SIGSTOP: it is there and does not answer."""
    return await _harm_triton(world, "stop", signal.SIGSTOP, 1, world.count(500))


async def stop_model(world: World) -> Row:
    """A model process of Triton gets SIGSTOP: Triton answers for it, and its model does not."""
    return await _harm_triton(world, "stop a model", signal.SIGSTOP, 1, world.count(500), model=True)


async def _harm_triton(
    world: World, name: str, number: signal.Signals, times: int, calls: int, *, model: bool = False
) -> Row:
    """Send a signal to Triton or a process of it, evenly over the calls; none has to survive two outages."""
    away_s = list[float]()
    load = Load(world.up.address, at_once=_AT_ONCE, calls=calls, seconds=_LONGEST_S)
    async with watching(world.up) as watched, calling(load) as callers:
        for round_ in range(times):
            await callers.until(max(callers.answered + 3 * _AT_ONCE, calls * round_ // times))
            triton = await world.up.triton()
            (max(triton.children(), key=_size) if model else triton).send_signal(number)
            broken = time.monotonic()
            await world.up.triton(instead_of=triton.pid)
            await callers.until(callers.answered + 1)
            away_s.append(time.monotonic() - broken)
        outcomes = await callers.end()
    away = " ".join(f"{seconds:.1f}" for seconds in away_s)
    return Row(f"{name} (away {away} s)", outcomes, watched, [none_lost(outcomes), memory(watched)])


async def restart(world: World) -> Row:
    """A gateway stops and starts again on its port."""
    gateway = world.beside()
    await gateway.start()
    try:
        load = Load(
            gateway.address, at_once=_AT_ONCE, calls=world.count(10_000), seconds=_LONGEST_S, timeout_s=30
        )
        async with watching(gateway) as watched, calling(load) as callers:
            await _in_turn(callers, load, [_again(gateway)] * world.count(5))
            outcomes = await callers.end()
    finally:
        gateway.kill()
    return Row("restart", outcomes, watched, [none_lost(outcomes), memory(watched)])


async def roll(world: World) -> Row:
    """Two gateways behind one name are replaced one after the other."""
    gateways = [world.beside(), world.beside()]
    try:
        for one in gateways:
            await one.start()
        address = "ipv4:" + ",".join(one.address for one in gateways)
        load = Load(address, at_once=_AT_ONCE, calls=world.count(5_000), seconds=_LONGEST_S, timeout_s=30)
        async with watching(gateways[0]) as watched, calling(load) as callers:
            await _in_turn(callers, load, [_again(one) for one in gateways] * world.count(2))
            outcomes = await callers.end()
    finally:
        for one in gateways:
            one.kill()
    return Row("roll", outcomes, watched, [none_lost(outcomes), memory(watched)])


async def _in_turn(callers: Callers, load: Load, breaks: list[Callable[[], Awaitable[None]]]) -> None:
    """Break something again and again, evenly over the calls; at least a second apart, as callers need to
    notice that a gateway is back."""
    for number, one in enumerate(breaks):
        await callers.until(max(callers.answered + 3 * _AT_ONCE, load.calls * number // len(breaks)))
        await asyncio.sleep(1)
        await one()
    await callers.until(callers.answered + 3 * _AT_ONCE)


def _again(gateway: Process) -> Callable[[], Awaitable[None]]:
    async def stop_and_start() -> None:
        await gateway.stop()
        await gateway.start()

    return stop_and_start


def _size(process: object) -> int:
    rss: int = process.memory_info().rss  # type: ignore[attr-defined]
    return rss
