"""`posegate up`: the bundled Triton and the gateway, started, watched and stopped as one; with `--web` the
HTTP door too, a process of its own as everywhere."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress

import structlog

from service.cli.web import door
from service.server.app import gateway, stop_on_signals
from service.settings import Settings
from service.triton.launch import Launch, Ports, TritonProcessError
from service.triton.process import TritonProcess

_log = structlog.get_logger()


async def up(settings: Settings, *, web: bool = False) -> None:
    """Run all until SIGTERM or SIGINT: Triton starts first and stops last.

    Args:
        settings: of the gateway and the bundled Triton.
        web: run the HTTP door too.

    Raises:
        TritonProcessError: Triton does not start.
        CannotListen: the gateway's address cannot be bound.
        CannotStartDoor: the HTTP door ends by itself; its own words are in the log.
    """
    stop = stop_on_signals()
    triton = TritonProcess(_launch(settings))
    if not await _start(triton, stop):
        return
    watcher = asyncio.create_task(triton.watch())
    try:
        async with (
            gateway(settings.model_copy(update={"triton_url": triton.grpc_url})),
            door(settings, stop) if web else nullcontext(),
        ):
            await stop.wait()
    finally:
        watcher.cancel()
        await triton.stop()


async def _start(triton: TritonProcess, stop: asyncio.Event) -> bool:
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
            raise TritonProcessError(
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
