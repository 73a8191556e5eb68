"""A caller that speaks just enough HTTP/2 (RFC 9113) to send half a request, or to leave an answer unread."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW_SIZE = 4
_STREAM = 1
_FRAME_BYTES = 16_384
_WINDOW_BYTES = 65_535


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
        self._windows = {0: _WINDOW_BYTES, _STREAM: _WINDOW_BYTES}
        self._more = asyncio.Event()
        self.ended = asyncio.Event()
        self.settled = asyncio.Event()
        self.window = _WINDOW_BYTES
        self.trailers = b""
        self.received = 0
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0))

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
            b"\0" + bytes([len(key)]) + key.encode() + bytes([len(value)]) + value.encode()
            for key, value in headers.items()
        )
        self._writer.write(_frame(_HEADERS, _END_HEADERS, _STREAM, block))

    async def send(self, content: bytes, *, of: int | None = None, end: bool = False) -> None:
        """Send the beginning of a message of `of` bytes, within the windows that the server grants."""
        rest = memoryview(b"\0" + struct.pack(">I", len(content) if of is None else of) + content)
        while rest and not self.ended.is_set():
            size = min(len(rest), _FRAME_BYTES, *self._windows.values())
            if size < 1:
                self._more.clear()
                waiting = [asyncio.ensure_future(event.wait()) for event in (self._more, self.ended)]
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in waiting:
                    one.cancel()
                continue
            self._windows = {stream: window - size for stream, window in self._windows.items()}
            last = end and size == len(rest)
            self._writer.write(_frame(_DATA, _END_STREAM * last, _STREAM, bytes(rest[:size])))
            rest = rest[size:]
        with suppress(ConnectionError):
            await self._writer.drain()

    async def read(self) -> None:
        """Take what the server sends; grants it no further window, so that a large answer stays unread."""
        try:
            while True:
                head = await self._reader.readexactly(9)
                size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream = int.from_bytes(head[5:], "big")
                self._take(kind, flags, stream, await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.set()

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == _WINDOW_UPDATE:
            self._windows[stream] += int.from_bytes(content, "big")
            self._more.set()
        elif kind == _SETTINGS and not flags & _ACK:
            for name, value in struct.iter_unpack(">HI", content):
                if name == _INITIAL_WINDOW_SIZE:
                    self._windows[_STREAM] += value - _WINDOW_BYTES
                    self.window = value
            self._writer.write(_frame(_SETTINGS, _ACK, 0))
            self._more.set()
            self.settled.set()
        elif kind == _PING and not flags & _ACK:
            self._writer.write(_frame(_PING, _ACK, 0, content))
        elif kind == _HEADERS:
            self.trailers = content
            if flags & _END_STREAM:
                self.ended.set()
        elif kind == _DATA:
            self.received += len(content)
        elif kind == _RST_STREAM:
            self.ended.set()


def _frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


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
