"""The only wiring of the HTTP door: settings to routes, middleware and a connection to the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp

from service.client import connect
from service.web.body import InFlight
from service.web.detect import DetectCalls
from service.web.door import Door
from service.web.gateway import Gateway
from service.web.infer import InferCalls
from service.web.info import InfoCalls
from service.web.middleware import DoorMiddleware, Places, on_http_exception
from service.web.pages import page_routes
from service.web.pose import PoseCalls
from service.web.settings import WebSettings
from service.web.skeletons import SkeletonCalls
from service.web.stream import StreamCalls
from service.web.videos import VideoCalls

_EXPOSED = (
    "x-request-id",
    "retry-after",
    "etag",
    "location",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
)


class BadGatewayFile(Exception):
    """A PEM file of the connection to the gateway cannot be read."""


def build_app(settings: WebSettings, channel: grpc.aio.Channel) -> ASGIApp:
    """The door as an ASGI application.

    Args:
        settings: in force.
        channel: to the gateway; the caller closes it.
    """
    door = Door(
        settings=settings,
        gateway=Gateway(
            channel,
            request_timeout_s=settings.request_timeout_s,
            stream_timeout_s=settings.video_timeout_s,
            stall_s=settings.gateway_idle_s,
        ),
        in_flight=InFlight(settings.max_in_flight_bytes),
        videos=Places(settings.max_streams, "videos", "TOO_MANY_STREAMS"),
        cameras=Places(settings.max_streams, "camera streams", "TOO_MANY_STREAMS"),
        sockets=Places(settings.max_calls, "WebSockets", "TOO_MANY_IN_FLIGHT"),
    )
    middleware = [
        Middleware(
            DoorMiddleware,
            calls=Places(settings.max_calls, "calls", "TOO_MANY_IN_FLIGHT"),
            send_idle_s=settings.send_idle_s,
            host_allowed=settings.host_allowed,
        )
    ]
    if settings.allowed_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "POST", "PUT", "DELETE"),
            allow_headers=("authorization", "x-api-key", "content-type", "x-request-id", "if-match"),
            expose_headers=_EXPOSED,
        )
        middleware.insert(0, cors)
    return Starlette(
        routes=routes(door), middleware=middleware, exception_handlers={HTTPException: on_http_exception}
    )


def routes(door: Door) -> list[BaseRoute]:
    """Every path of the door."""
    pose, detect, videos, infer = PoseCalls(door), DetectCalls(door), VideoCalls(door), InferCalls(door)
    skeletons, info, stream = SkeletonCalls(door), InfoCalls(door), StreamCalls(door)
    named = "/v1/skeletons/{name:path}"
    return [
        Route("/v1/pose", pose.detect, methods=["POST"]),
        Route("/v1/pose/batch", pose.batch, methods=["POST"]),
        Route("/v1/video/upload", videos.upload, methods=["POST"]),
        Route("/v1/skeletons", skeletons.list, methods=["GET"]),
        Route("/v1/skeletons", skeletons.create, methods=["POST"]),
        Route(f"{named}/render", skeletons.render, methods=["POST"]),
        Route(f"{named}/export", skeletons.export, methods=["POST"]),
        Route(named, skeletons.get, methods=["GET"]),
        Route(named, skeletons.update, methods=["PUT"]),
        Route(named, skeletons.delete, methods=["DELETE"]),
        Route("/v1/models", info.models, methods=["GET"]),
        Route("/v1/info", info.info, methods=["GET"]),
        Route("/v1/account", info.account, methods=["GET"]),
        WebSocketRoute("/v1/stream", stream.stream),
        Route("/detect", detect.detect, methods=["POST"]),
        Route("/infer/video", infer.video, methods=["POST"]),
        Route("/health", info.health, methods=["GET"]),
        Route("/livez", info.livez, methods=["GET"]),
        *page_routes(page=door.settings.page),
    ]


@asynccontextmanager
async def connected(settings: WebSettings) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the gateway that the settings name.

    Raises:
        BadGatewayFile: a PEM file cannot be read.
    """
    # Callers of HTTP see RESOURCE_EXHAUSTED as 429 at once and decide for themselves when to come again.
    channel = connect(
        settings.gateway,
        credentials=_credentials(settings),
        retry_on=("UNAVAILABLE",),
        first_contact_s=1.0,
        retry_uploads=False,  # the bytes of a video are gone once they are sent
    )
    try:
        yield channel
    finally:
        await channel.close()


def _credentials(settings: WebSettings) -> grpc.ChannelCredentials | None:
    ca, cert, key = settings.gateway_ca, settings.gateway_cert, settings.gateway_key
    if not (settings.gateway_tls or ca or cert):
        return None
    return grpc.ssl_channel_credentials(*(_read(file) if file else None for file in (ca, key, cert)))


def _read(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadGatewayFile(f"{file}: {error.strerror}") from error
    if b"-----BEGIN " not in content:
        raise BadGatewayFile(f"{file} is not a PEM file")
    return content
