"""Limits below HTTP: a protocol for uvicorn that ends slow headers and large headers, and sees callers leave.

uvicorn's own protocol waits without end for the headers of a request and takes them at any size; it
notices a caller who leaves only while it reads, and it does not read while a body waits for the
gateway; and it reads the rest of a body that was refused without end.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

GONE = "posegate.gone"
"""Name of the ASGI extension that holds an asyncio.Event: set once the caller has left."""

_LOOK_S = 0.5  # between two looks at a caller whose body is not being read
_LINGER_S = 5.0  # for the rest of a body that was refused: without it many callers never read why


@dataclass(frozen=True)
class ConnectionLimits:
    """What one connection may do.

    Attributes:
        header_timeout_s: to send the headers of a request.
        max_header_bytes: of the headers of a request.
    """

    header_timeout_s: float
    max_header_bytes: int


class _WatchedFlow(FlowControl):
    """Flow control that looks whether the caller is still there while reading is paused."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport)
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    @override
    def pause_reading(self) -> None:
        super().pause_reading()
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    @override
    def resume_reading(self) -> None:
        self.stop()
        super().resume_reading()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._transport.is_closing():
            return
        if _hung_up(self._transport):
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(_LOOK_S, self._look)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the limits of `limits`, which a subclass sets."""

    limits: ConnectionLimits

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _WatchedFlow(transport, self.loop)
        self._gone = asyncio.Event()
        self._in_headers = False
        self._header_bytes = 0
        self._header_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._await_headers()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        if isinstance(self.flow, _WatchedFlow):
            self.flow.stop()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        super().connection_lost(exc)
        self._gone.set()

    @override
    def data_received(self, data: bytes) -> None:
        if self._header_timer is not None:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._header_timer is not None and self._header_bytes > self.limits.max_header_bytes:
            self._refuse_headers()

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {GONE: self._gone}  # type: ignore[dict-item]  # an object, not a dict
        if self._header_timer is None:
            self._await_headers()

    @override
    def on_headers_complete(self) -> None:
        self._headers_came()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.limits.max_header_bytes:
            self._refuse_headers()
            return
        super().on_headers_complete()

    @override
    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        if not self.transport.is_closing():
            super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        unread = self.cycle.more_body
        super().on_response_complete()
        if unread and not self.transport.is_closing():
            self._linger_timer = self.loop.call_later(_LINGER_S, self.transport.close)

    def _await_headers(self) -> None:
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(self.limits.header_timeout_s, self.transport.close)

    def _headers_came(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _refuse_headers(self) -> None:
        self._headers_came()
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        self.transport.close()


def guarded(limits: ConnectionLimits) -> type[GuardedProtocol]:
    """The protocol class with these limits, for uvicorn to make one of for each connection."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits})


def gone_event(scope: Mapping[str, Any]) -> asyncio.Event | None:
    """Set once the caller has left; None on a server without `GuardedProtocol`."""
    event = scope.get("extensions", {}).get(GONE)
    return event if isinstance(event, asyncio.Event) else None


def _hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the other side has closed the connection; what it sent before may still be unread."""
    socket = transport.get_extra_info("socket")
    descriptor: Callable[[], int] | None = getattr(socket, "fileno", None)
    if descriptor is None or descriptor() < 0:
        return False
    poll = select.poll()
    poll.register(descriptor(), select.POLLRDHUP)
    return any(events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
