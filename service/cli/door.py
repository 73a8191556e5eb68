"""The HTTP door as a child process of `posegate up --web`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.settings import Settings

_STOP_S = 30.0
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - looked up only


class CannotStartDoor(Exception):
    """The HTTP door does not start, or ended by itself."""


@asynccontextmanager
async def door(settings: Settings, stop: asyncio.Event) -> AsyncIterator[None]:
    """The HTTP door for the time of the block. Its own end sets `stop`.

    Args:
        settings: of the gateway that it calls.
        stop: set when everything is to stop.

    Raises:
        CannotStartDoor: it ended by itself; its own words are in the log.
    """
    environment = dict(os.environ)
    environment.setdefault("POSEGATE_WEB_GATEWAY", _gateway_for_the_door(settings))
    if settings.tls_cert is not None:
        # One machine, one certificate: the door trusts the very file that the gateway shows.
        environment.setdefault("POSEGATE_WEB_GATEWAY_CA", str(settings.tls_cert))
    door = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service",
        "web",
        env=environment,
        stderr=sys.stderr,  # its log, and not the words of a library
    )
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
                async with asyncio.timeout(_STOP_S):
                    await asyncio.shield(ending)
            except TimeoutError:
                door.kill()
                await ending


def _gateway_for_the_door(settings: Settings) -> str:
    """The gateway's address as the door on the same machine reaches it."""
    host, colon, port = settings.listen.rpartition(":")
    if settings.listen.startswith("unix:"):
        return settings.listen
    return f"{_ANY_HOST.get(host, host)}{colon}{port}"
