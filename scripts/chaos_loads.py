"""Scenarios of `scripts/chaos`: as many calls as the service can answer, ten times as many, and for long.

Callers share the CPUs with the service. What they take is in the row, and the peak is measured while another
process takes as much and as often: the ratio is that of the service. Peak and overload are made by prepared
frames (`chaos_frames`), so that the time in which an answer waits for its caller to get a CPU is not the
service's.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from scripts.chaos_callers import Load, Outcomes, outcomes_of, quantile
from scripts.chaos_service import MIB, Watched, watching
from scripts.chaos_world import Row, World, health_below, memory, none_lost

_ROUNDS = 3

_BUSY = """
import sys, time
share, per_s = float(sys.argv[1]), float(sys.argv[2])
while True:
    end = time.process_time() + share / per_s
    while time.process_time() < end:
        pass
    time.sleep((1 - share) / per_s)
"""


async def overload(world: World) -> Row:
    """Ten times as many calls as the service can answer, by callers that never try again.

    Peak and overload take turns, because the speed of a shared machine changes from minute to minute.
    """
    rough = max([await _peak(world), await _peak(world)], key=lambda one: one.goodput)
    load = Load(world.up.address, "photo", frames=True, per_s=10 * rough.goodput, seconds=_seconds(world))
    outcomes, watched, shares = Outcomes(), Watched(), list[float]()
    for _ in range(_ROUNDS):
        async with watching(world.up, watched):
            one = await outcomes_of(load)
        outcomes.add(one)
        async with _busy(one.cpu_s / one.seconds - rough.cpu_s / rough.seconds, load.per_s):
            shares.append(one.goodput / (await _peak(world)).goodput)
    refused_s, share = quantile(outcomes.failed_s, 0.99), statistics.median(shares)
    return Row(
        f"overload 10× ({load.per_s:.0f}/s; callers took {outcomes.cpu_s / outcomes.seconds:.1f} CPUs)",
        outcomes,
        watched,
        [
            (f"goodput ≥ 0.9 of the peak ({', '.join(f'{one:.2f}' for one in shares)})", share >= 0.9),
            (f"refused p99 < 50 ms ({refused_s * 1000:.0f})", refused_s < 0.05),
            ("nothing but refusals", set(outcomes.lost) <= {"RESOURCE_EXHAUSTED"}),
            health_below(watched, 0.1),
            memory(watched),
        ],
    )


async def full(world: World) -> Row:
    """As many calls as the service can answer, at random moments, by the documented client."""
    peak = (await _peak(world)).goodput
    load = Load(world.up.address, "photo", per_s=peak, seconds=_seconds(world))
    async with watching(world.up) as watched:
        outcomes = await outcomes_of(load)
    return Row(
        f"full load 1× ({peak:.0f}/s)",
        outcomes,
        watched,
        [none_lost(outcomes), health_below(watched, 0.1), memory(watched)],
    )


async def burst(world: World) -> Row:
    """150 calls at one moment, by the documented client."""
    load = Load(world.up.address, "photo", at_once=150, calls=150)
    async with watching(world.up) as watched:
        outcomes = await outcomes_of(load)
    return Row(f"burst of {outcomes.sent}", outcomes, watched, [none_lost(outcomes), memory(watched)])


async def soak(world: World) -> Row:
    """Ordinary load for long: memory does not grow."""
    load = Load(world.up.address, "photo", at_once=4, calls=1 << 62, seconds=world.soak_s)
    async with watching(world.up) as watched:
        outcomes = await outcomes_of(load)
    quarter = len(watched.rss) // 4
    early, late = max(watched.rss[: 2 * quarter], default=0), max(watched.rss[-quarter:], default=0)
    return Row(
        "soak",
        outcomes,
        watched,
        [none_lost(outcomes), ("RSS grows < 64 MiB", late - early < 64 * MIB), memory(watched)],
    )


def _seconds(world: World) -> float:
    return max(10.0, 15 * world.scale)


async def _peak(world: World) -> Outcomes:
    """As many answers as the service gives to callers who wait for each."""
    return await outcomes_of(
        Load(
            world.up.address,
            "photo",
            frames=True,
            at_once=16,
            calls=1 << 62,
            seconds=_seconds(world) / 2,
        )
    )


@asynccontextmanager
async def _busy(share: float, per_s: float) -> AsyncIterator[None]:
    """Take this share of a CPU for the time of the block, so many times a second."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _BUSY, str(min(1.0, max(0.0, share))), str(per_s)
    )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
