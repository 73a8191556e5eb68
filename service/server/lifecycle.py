"""Life cycle of the gateway: serve until a signal, drain, end the worker threads."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
import structlog
from grpc_health.v1.health import aio as health_aio

from service.pipeline.stream_limiter import StreamLimiter
from service.server.interceptors import RequestInterceptor

_log = structlog.get_logger()

_BEGUN_S = 0.05  # a call that was accepted at the last moment has begun by then
_SETTLE_S = 2.0  # while callers go on sending new ones, as they should not after NOT_SERVING
_SENT_S = 0.5  # an answer that is ready has been sent by then
_GOODBYE_S = 3.0  # streams are ended so long before the grace is over, to send their last message
_CLOSED_S = 8.0  # after the grace everything is closed by then: busy threads are given up before
_SAID_S = 0.5  # a line of the log is written by then
_THREADS_S = 5.0  # longer than cv2 takes for one step on the largest image


async def serve(gateway: AbstractAsyncContextManager[Any], *, exit_after_s: float | None = None) -> None:
    """Run a gateway until SIGTERM or SIGINT, then drain it. `exit_after_s` as for `stop_on_signals`."""
    stop = stop_on_signals(exit_after_s)
    async with gateway:
        await serve_until(stop)


async def serve_until(stop: asyncio.Event) -> None:
    """Wait, while a gateway that is up serves.

    What is loaded by now is taken out of the garbage collector's rounds: looking through 150,000 objects and
    more stops every call for a tenth of a second, each time that calls have left enough behind.
    """
    gc.collect()
    gc.freeze()
    await stop.wait()


def stop_on_signals(exit_after_s: float | None = None) -> asyncio.Event:
    """An event that SIGTERM and SIGINT set.

    Args:
        exit_after_s: end the process so long after the signal, whatever a thread of it does: the interpreter
            itself waits for every thread at its end. None for a process that does more than serve.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if exit_after_s is not None and not stop.is_set():
            _exit_after(exit_after_s)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


def latest_exit_s(drain_delay_s: float, drain_grace_s: float) -> float:
    """Seconds from the signal after which a gateway that drains so long has certainly ended."""
    return drain_delay_s + drain_grace_s + _SENT_S + _CLOSED_S


def _exit_after(seconds: float) -> None:
    def end() -> None:
        # In a thread: the log may be what everything waits for, where nobody reads it.
        said = threading.Thread(target=lambda: _log.error("ended_by_force", after_s=seconds), daemon=True)
        said.start()
        said.join(_SAID_S)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True  # it keeps no process alive that ends in time
    timer.start()


async def drain(
    server: grpc.aio.Server,
    health: health_aio.HealthServicer,
    requests: RequestInterceptor,
    streams: StreamLimiter,
    *,
    delay_s: float,
    grace_s: float,
) -> None:
    """Stop a server without failing calls in flight.

    NOT_SERVING comes first, so that load balancers look elsewhere; after the delay new calls are refused, and
    those in flight have the grace to finish, videos and streams a little less.

    Args:
        server: listens.
        health: its status.
        requests: counts the calls in flight.
        streams: ends videos and streams.
        delay_s: between NOT_SERVING and refusing new calls.
        grace_s: for calls in flight.
    """
    _log.info("draining")
    await health.enter_graceful_shutdown()
    await asyncio.sleep(delay_s)
    if grace_s:
        await _settled(requests)  # those that have arrived, and are in flight to their callers
        # gRPC cancels what comes between here and its last message on a connection, without a reason.
        requests.draining = True
        await _settled(requests)
    streams.drain()
    ending = asyncio.get_running_loop().call_later(max(grace_s - _GOODBYE_S, grace_s / 2), streams.end)
    try:
        await _stop(server, requests, grace_s)
    finally:
        ending.cancel()


async def _settled(requests: RequestInterceptor) -> None:
    """Wait until no further call begins, for a bounded time: gRPC drops calls that have arrived and that a
    busy event loop has not begun when the server stops, and to their callers those are in flight."""
    end = time.monotonic() + _SETTLE_S
    begun = -1
    while requests.begun != begun and time.monotonic() < end:
        begun = requests.begun
        await asyncio.sleep(_BEGUN_S)


async def _stop(server: grpc.aio.Server, requests: RequestInterceptor, grace_s: float) -> None:
    """Refuse new calls; those of the gateway's own services have the grace to finish. A health watch never
    ends on its own, and is given no more time than they need."""
    if not grace_s:
        await server.stop(None)
        return
    stopping = asyncio.create_task(server.stop(grace_s))
    await asyncio.sleep(_BEGUN_S)
    while requests.at_work and not stopping.done():
        idle = asyncio.create_task(requests.idle())
        await asyncio.wait((stopping, idle), return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        await asyncio.sleep(_BEGUN_S)
    await server.stop(min(_SENT_S, grace_s))
    await stopping


async def end_threads(threads: ThreadPoolExecutor) -> None:
    """End the threads of a pool in a bounded time. The calls they worked for are over, and work stops at its
    next checkpoint; the event loop goes on meanwhile."""
    ending = asyncio.create_task(asyncio.to_thread(threads.shutdown, cancel_futures=True))
    done, _ = await asyncio.wait([ending], timeout=_THREADS_S)
    if not done:
        _log.warning("workers_still_busy")
