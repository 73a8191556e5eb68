"""`posegate web`: uvicorn with the limits of the door."""

from __future__ import annotations

import socket

import structlog
import uvicorn

from service.web.app import build_app, connected
from service.web.connection import ConnectionLimits, guarded
from service.web.settings import WebSettings

_log = structlog.get_logger()


class CannotListen(Exception):
    """The door's address cannot be bound."""


async def serve(settings: WebSettings) -> None:
    """Answer until SIGTERM or SIGINT; calls in flight get their time.

    Raises:
        CannotListen: the address cannot be bound.
        BadGatewayFile: a PEM file of the connection to the gateway cannot be read.
    """
    async with connected(settings) as channel:
        server = uvicorn.Server(config(settings, build_app(settings, channel)))
        listener = listen(settings)
        host, port = listener.getsockname()[:2]
        _log.info("serving_http", address=f"http://{host}:{port}", gateway=settings.gateway)
        with listener:
            await server.serve(sockets=[listener])


def config(settings: WebSettings, app: object) -> uvicorn.Config:
    """uvicorn's own settings."""
    limits = ConnectionLimits(settings.header_timeout_s, settings.max_header_bytes)
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # an ASGI application, which uvicorn's types name differently
        http=guarded(limits),
        ws="websockets-sansio",
        ws_max_size=settings.max_body_bytes,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]  # seconds of any kind
        timeout_graceful_shutdown=round(settings.drain_grace_s),
    )


def listen(settings: WebSettings) -> socket.socket:
    """A socket bound to the door's address; port 0 takes a free one.

    Raises:
        CannotListen: it cannot be bound.
    """
    host, port = settings.listen_host, settings.listen_port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        raise CannotListen(f"cannot listen on {settings.listen}: {error.strerror or error}") from error
    return listener
