"""A caller that speaks just enough HTTP/2 (RFC 9113) to send half a request, or to leave an answer unread."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from scripts.http2 import (
    ACK,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEAD_BYTES,
    PREFACE,
    Kind,
    Setting,
    frame,
    string,
)

_STREAM = 1


class HalfCaller:
    """One call on a connection of its own.

    Attributes:
        ended: the server has ended the stream or the connection.
        window: bytes of the request that the server takes, as of its settings.
        settled: the server's settings have come.
        trailers: the last header block, as it came.
        received: bytes of the answer.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._windows = {0: DEFAULT_WINDOW, _STREAM: DEFAULT_WINDOW}
        self._more = asyncio.Event()
        self.ended = asyncio.Event()
        self.settled = asyncio.Event()
        self.window = DEFAULT_WINDOW
        self.trailers = b""
        self.received = 0
        writer.write(PREFACE + frame(Kind.SETTINGS, 0, 0))

    def begin(self, method: str) -> None:
        """Send the headers of a call."""
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        block = b"".join(
            b"\0" + string(key.encode()) + string(value.encode()) for key, value in headers.items()
        )
        self._writer.write(frame(Kind.HEADERS, END_HEADERS, _STREAM, block))

    async def send(self, content: bytes, *, of: int | None = None, end: bool = False) -> None:
        """Send the beginning of a message of `of` bytes, within the windows that the server grants."""
        rest = memoryview(b"\0" + struct.pack(">I", len(content) if of is None else of) + content)
        while rest and not self.ended.is_set():
            size = min(len(rest), FRAME_BYTES, *self._windows.values())
            if size < 1:
                self._more.clear()
                waiting = [asyncio.ensure_future(event.wait()) for event in (self._more, self.ended)]
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in waiting:
                    one.cancel()
                continue
            self._windows = {stream: window - size for stream, window in self._windows.items()}
            last = end and size == len(rest)
            self._writer.write(frame(Kind.DATA, END_STREAM * last, _STREAM, bytes(rest[:size])))
            rest = rest[size:]
        with suppress(ConnectionError):
            await self._writer.drain()

    async def read(self) -> None:
        """Take what the server sends; grants it no further window, so that a large answer stays unread."""
        try:
            while True:
                start = await self._reader.readexactly(HEAD_BYTES)
                size, kind, flags = int.from_bytes(start[:3], "big"), start[3], start[4]
                stream = int.from_bytes(start[5:], "big")
                self._take(kind, flags, stream, await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.set()

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == Kind.WINDOW_UPDATE:
            self._windows[stream] += int.from_bytes(content, "big")
            self._more.set()
        elif kind == Kind.SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", content):
                if name == Setting.INITIAL_WINDOW_SIZE:
                    self._windows[_STREAM] += value - DEFAULT_WINDOW
                    self.window = value
            self._writer.write(frame(Kind.SETTINGS, ACK, 0))
            self._more.set()
            self.settled.set()
        elif kind == Kind.PING and not flags & ACK:
            self._writer.write(frame(Kind.PING, ACK, 0, content))
        elif kind == Kind.HEADERS:
            self.trailers = content
            if flags & END_STREAM:
                self.ended.set()
        elif kind == Kind.DATA:
            self.received += len(content)
        elif kind == Kind.RST_STREAM:
            self.ended.set()


@asynccontextmanager
async def half_caller(address: str) -> AsyncIterator[HalfCaller]:
    """A caller connected to host:port."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    caller = HalfCaller(reader, writer)
    reading = asyncio.create_task(caller.read())
    try:
        yield caller
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
