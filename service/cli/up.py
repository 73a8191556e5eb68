"""`posegate up`: the bundled Triton and the gateway, started, watched and stopped as one; with `--web` the
HTTP door too, a process of its own as everywhere."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress

import structlog

from service.server.app import gateway, stop_on_signals
from service.settings import Settings
from service.triton.process import EmbeddedTriton, EmbeddedTritonError, Launch, Ports

_log = structlog.get_logger()


_DOOR_STOP_S = 30.0


class CannotStartDoor(Exception):
    """The HTTP door does not start, or ended by itself."""


async def up(settings: Settings, *, web: bool = False) -> None:
    """Run all until SIGTERM or SIGINT: Triton starts first and stops last.

    Args:
        settings: of the gateway and the bundled Triton.
        web: run the HTTP door too.

    Raises:
        EmbeddedTritonError: Triton does not start.
        CannotListen: the gateway's address cannot be bound.
        CannotStartDoor: the HTTP door ends by itself; its own words are in the log.
    """
    stop = stop_on_signals()
    triton = EmbeddedTriton(_launch(settings))
    if not await _start(triton, stop):
        return
    watcher = asyncio.create_task(triton.watch())
    try:
        async with gateway(settings.model_copy(update={"triton_url": triton.grpc_url})):
            async with _door(settings, stop) if web else nullcontext():
                await stop.wait()
    finally:
        watcher.cancel()
        await triton.stop()


@asynccontextmanager
async def _door(settings: Settings, stop: asyncio.Event) -> AsyncIterator[None]:
    """The HTTP door as a child process. It ends first, and its end is the end of all."""
    environment = dict(os.environ)
    environment.setdefault("POSEGATE_WEB_GATEWAY", _gateway_for_the_door(settings))
    if settings.tls_cert is not None:
        # One machine, one certificate: the door trusts the very file that the gateway shows.
        environment.setdefault("POSEGATE_WEB_GATEWAY_CA", str(settings.tls_cert))
    door = await asyncio.create_subprocess_exec(sys.executable, "-m", "service", "web", env=environment)
    ending = asyncio.create_task(door.wait())
    ending.add_done_callback(lambda _: stop.set())
    try:
        yield
        if ending.done():
            raise CannotStartDoor(f"the HTTP door ended by itself, with exit code {ending.result()}")
    finally:
        if not ending.done():
            door.terminate()
            try:
                async with asyncio.timeout(_DOOR_STOP_S):
                    await asyncio.shield(ending)
            except TimeoutError:
                door.kill()
                await ending


def _gateway_for_the_door(settings: Settings) -> str:
    """The gateway's address as the door on the same machine reaches it."""
    host, colon, port = settings.listen.rpartition(":")
    if settings.listen.startswith("unix:"):
        return settings.listen
    return f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }{colon}{port}"  # noqa: S104 - compared only


async def _start(triton: EmbeddedTriton, stop: asyncio.Event) -> bool:
    """Whether it started; a signal in the meantime ends the start."""
    starting = asyncio.create_task(triton.start())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if starting.done():
        starting.result()
        return True
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    return False


def _launch(settings: Settings) -> Launch:
    port = 0
    if "triton_url" in settings.model_fields_set:
        host, _, digits = settings.triton_url.rpartition(":")
        if host not in ("127.0.0.1", "localhost") or not digits.isdecimal():
            raise EmbeddedTritonError(
                f"POSEGATE_TRITON_URL is {settings.triton_url}, but the bundled Triton runs on this host: "
                "give 127.0.0.1:PORT, or use `posegate serve` for a Triton elsewhere"
            )
        port = int(digits)
    return Launch(
        runtime=settings.home / "triton",
        model_repository=settings.model_repository,
        backends=settings.model_repository.resolve().parent / "backends",
        cache=settings.home / "cache",
        ports=Ports(grpc=port),
        log_file=settings.home / "triton.log",
    )
