"""Scenarios of `scripts/chaos`: as many calls as the service can answer, ten times as many, and for long.

Callers share the CPUs with the service. What they take is in the row, and the peak is measured while another
process takes as much: the ratio is that of the service.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from scripts.chaos_callers import Load, Outcomes, outcomes_of, quantile
from scripts.chaos_service import MIB, watching
from scripts.chaos_world import Row, World, health_below, memory, none_lost

_BUSY = """
import sys, time
share = float(sys.argv[1])
while True:
    end = time.process_time() + 0.01 * share
    while time.process_time() < end:
        pass
    time.sleep(0.01 * max(0.0, 1 - share))
"""


async def overload(world: World) -> Row:
    """Ten times as many calls as the service can answer, by callers that never try again."""
    rough = await _peak(world)
    load = Load(
        world.up.address, "photo", documented=False, per_s=10 * rough.goodput, seconds=_seconds(world)
    )
    async with watching(world.up) as watched:
        outcomes = await outcomes_of(load)
    share = outcomes.cpu_s / outcomes.seconds
    async with _busy(share - rough.cpu_s / rough.seconds):
        peak = (await _peak(world)).goodput
    refused_s = quantile(outcomes.failed_s, 0.99)
    return Row(
        f"overload 10× ({load.per_s:.0f}/s; callers took {share:.1f} CPUs)",
        outcomes,
        watched,
        [
            _of_peak(outcomes, peak),
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


def _of_peak(outcomes: Outcomes, peak: float) -> tuple[str, bool]:
    return f"goodput ≥ 0.9 of the peak ({outcomes.goodput / peak:.2f})", outcomes.goodput >= 0.9 * peak


def _seconds(world: World) -> float:
    return max(10.0, 15 * world.scale)


async def _peak(world: World) -> Outcomes:
    """As many answers as the service gives to callers who wait for each."""
    return await outcomes_of(
        Load(
            world.up.address,
            "photo",
            documented=False,
            at_once=16,
            calls=1 << 62,
            seconds=_seconds(world) / 2,
        )
    )


@asynccontextmanager
async def _busy(share: float) -> AsyncIterator[None]:
    """Take this share of a CPU for the time of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _BUSY, str(min(1.0, max(0.0, share)))
    )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
