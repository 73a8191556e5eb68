"""Scenarios of `scripts/chaos`: callers whose requests, frames and answers fill memory."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import psutil

from scripts.chaos_callers import Load, Outcomes, calling
from scripts.chaos_service import MIB, Process, Watched, watching
from scripts.chaos_world import Row, World, answered, health_below, memory, none_lost

_SHORT_S = 5  # in place of the minute after which the gateway ends what does not go on
_GIVEN_BACK_S = 3.0  # freed memory goes back two seconds after the last call


async def unread(world: World) -> Row:
    """Callers that take none of their large answers: their connection ends, and others are answered."""
    gateway, count = world.beside(POSEGATE_UNREAD_S=str(_SHORT_S)), world.count(40, 8)
    load = Load(gateway.address, "noise", documented=False, at_once=count, calls=count)
    return await _held(f"unread ({count} × 8 MB)", gateway, load, answers=1)


async def half_sent(world: World) -> Row:
    """Callers that stop amid their large requests: these are ended, and others are answered."""
    gateway, count = world.beside(POSEGATE_MAX_REQUEST_S=str(_SHORT_S)), world.count(10, 3)
    load = Load(gateway.address, "batch", documented=False, at_once=count, calls=count)
    return await _held(f"half-sent ({count} × 200 MB)", gateway, load, answers=0)


async def _held(name: str, gateway: Process, load: Load, *, answers: int) -> Row:
    """Callers stop, by SIGSTOP, after so many answers; none of theirs is held for long."""
    outcomes = Outcomes()
    await gateway.start()
    try:
        async with watching(gateway) as watched:
            async with calling(load) as callers:
                await callers.until(answers)
                if not answers:
                    await _grown(watched, load.calls * 50 * MIB)
                os.kill(callers.pid, signal.SIGSTOP)
                held = _ports(psutil.Process(callers.pid), local=True) & _ports(gateway.process, local=False)
                await answered(gateway.address, outcomes, 10)
                ended = await _ended(gateway, held, watched)
            await answered(gateway.address, outcomes, 3)
            await asyncio.sleep(_GIVEN_BACK_S)
        after = watched.rss[-1] - watched.rss[0]
    finally:
        gateway.kill()
    return Row(
        name,
        outcomes,
        watched,
        [
            none_lost(outcomes),
            ("what they hold is ended", ended),
            health_below(watched, 1.0),
            (f"RSS after < before + 200 MiB (+{after // MIB})", after < 200 * MIB),
            memory(watched),
        ],
    )


async def large_frames(world: World) -> Row:
    """Three streams of bare frames of 49 megapixels; others are answered."""
    gateway, outcomes = world.beside(), Outcomes()
    load = Load(gateway.address, "frames", documented=False, at_once=3, calls=3, timeout_s=300)
    await gateway.start()
    try:
        async with watching(gateway) as watched, calling(load) as callers:
            await _grown(watched, 50 * MIB)
            await answered(gateway.address, outcomes, 10)
            streams = await callers.end()
    finally:
        gateway.kill()
    return Row(
        "streams of 49 MP (3)",
        outcomes,
        watched,
        [
            none_lost(outcomes),
            ("every stream is answered", streams.answered >= 3 and not streams.lost),
            health_below(watched, 1.0),
            memory(watched),
        ],
    )


async def _grown(watched: Watched, by_bytes: int) -> None:
    """Wait until memory has grown, or does not grow so far."""
    end = time.monotonic() + 10
    while max(watched.rss, default=0) - min(watched.rss, default=0) < by_bytes and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def _ended(gateway: Process, held: set[int], watched: Watched) -> bool:
    """Whether within a minute their connections end, or what came over them is freed."""
    peak = max(watched.rss)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if not held & _ports(gateway.process, local=False) or watched.rss[-1] < peak / 2:
            return True
        await asyncio.sleep(0.1)
    return False


def _ports(process: psutil.Process, *, local: bool) -> set[int]:
    """Of the established connections of a process, at its end or at the other."""
    return {
        (one.laddr if local else one.raddr).port
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_ESTABLISHED
    }
