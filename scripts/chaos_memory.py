"""Scenarios of `scripts/chaos`: callers whose requests, frames and answers fill memory."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable

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

    def closed(held: set[int], _: Watched) -> bool:
        # By the gateway: the kernel ends a connection whose window is closed, too, after 20 s.
        told = b"answer_not_taken" in gateway.log.read_bytes()
        return bool(held) and told and not held & _ports(gateway.process, local=False)

    return await _held(
        f"unread ({count} × 8 MB)", gateway, load, answers=1, bound="their connection is ended", ended=closed
    )


async def half_sent(world: World) -> Row:
    """Callers that stop amid their large requests: these are ended, and others are answered."""
    gateway, count = world.beside(POSEGATE_MAX_REQUEST_S=str(_SHORT_S)), world.count(10, 3)
    load = Load(gateway.address, "batch", documented=False, at_once=count, calls=count)

    def freed(_: set[int], watched: Watched) -> bool:
        # By the gateway: the connection, which its keep-alive ends in the end, takes memory with it, too.
        told = any(reason in gateway.log.read_bytes() for reason in (b"REQUEST_TOO_SLOW", b"MEMORY_FULL"))
        return told and watched.rss[-1] - watched.rss[0] < (max(watched.rss) - watched.rss[0]) / 2

    return await _held(
        f"half-sent ({count} × 200 MB)", gateway, load, answers=0, bound="what came is freed", ended=freed
    )


async def _held(
    name: str,
    gateway: Process,
    load: Load,
    *,
    answers: int,
    bound: str,
    ended: Callable[[set[int], Watched], bool],
) -> Row:
    """Callers stop, by SIGSTOP, after so many answers.

    Args:
        name: of the row.
        gateway: that has a short patience; it is started and killed here.
        load: what they send.
        answers: after which they stop; 0: once a quarter of their bytes may be here.
        bound: what has to come true within a minute while they stand still.
        ended: whether it has; by their ports and the gateway's memory.
    """
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
                holds = await _soon(lambda: ended(held, watched))
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
            (bound, holds),
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


async def _soon(holds: Callable[[], bool]) -> bool:
    """Whether something comes true within a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if holds():
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
