"""`posegate up`: the bundled Triton and the gateway, started, watched and stopped as one."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from service.server.app import gateway, stop_on_signals
from service.settings import Settings
from service.triton.process import EmbeddedTriton, EmbeddedTritonError, Launch, Ports

_log = structlog.get_logger()


async def up(settings: Settings) -> None:
    """Run both until SIGTERM or SIGINT: Triton starts first and stops last.

    Raises:
        EmbeddedTritonError: Triton does not start.
        CannotListen: the gateway's address cannot be bound.
    """
    stop = stop_on_signals()
    triton = EmbeddedTriton(_launch(settings))
    if not await _start(triton, stop):
        return
    watcher = asyncio.create_task(triton.watch())
    try:
        async with gateway(settings.model_copy(update={"triton_url": triton.grpc_url})):
            await stop.wait()
    finally:
        watcher.cancel()
        await triton.stop()


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
