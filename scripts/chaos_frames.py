"""A caller of unary methods that writes prepared HTTP/2 frames, and has the kernel say when answers came.

Callers stand for programs on other machines. A gRPC client on the machine of a service that has no CPU to
spare takes CPU time from it, and an answer that lies in the client's socket until the client gets a CPU looks
like a slow answer. This caller writes bytes that were made beforehand. A call of it begins before its first
frame is written, and ends at the kernel's time stamp of the segment that brought the end of its answer (the
last segment, where several were read at once).

It obeys what a gRPC client obeys: windows of streams and of the connection, the sizes and numbers that the
server allows, pings. It parses no message and tries nothing again that the server has seen.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Self

import grpc

from scripts.http2 import (
    ACK,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEAD_BYTES,
    LARGEST_WINDOW,
    PREFACE,
    Kind,
    Setting,
    frame,
    head,
    integer,
    string,
    value_of,
)

_FRAMES_AT_ONCE = 4  # what is written cannot be taken back when its call is refused
_READ_BYTES = 1 << 18
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python has no name for it
_TIMESTAMP = struct.Struct("qq")

_REFUSED_STREAM = 7  # the server has seen nothing of the call, and gRPC begins it anew
_RESETS = {8: "CANCELLED", 11: "RESOURCE_EXHAUSTED"}  # as gRPC reads them
_CODES = {str(code.value[0]).encode(): code.name for code in grpc.StatusCode}


class ConnectionLost(Exception):
    """The server ended the connection."""


@dataclass(eq=False)
class _Call:
    """One call, from its first frame to its last.

    Attributes:
        ended: the name of its code, and when it ended, seconds of the system's clock.
        window: bytes that the server still takes.
        sent: bytes of the request that were written.
        held: waits for a larger window.
    """

    ended: asyncio.Future[tuple[str, float]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    window: int = 0
    sent: int = 0
    held: bool = False


class FrameCaller:
    """One connection, on which all calls send the same request.

    Args:
        address: host:port of the server.
        method: such as "/posegate.v1.PoseService/DetectPoses".
        message: the serialised request.
        timeout_s: deadline of every call, as the server is told.
    """

    def __init__(self, address: str, method: str, message: bytes, timeout_s: float) -> None:
        self._address = address
        self._headers = _request_headers(address, method, timeout_s)
        self._body = struct.pack(">BI", 0, len(message)) + message
        self._waiting: deque[_Call] = deque()  # for a place among the streams
        self._calls: dict[int, _Call] = {}
        self._sending: deque[tuple[int, _Call]] = deque()  # one frame each in turn, as gRPC does it
        self._next_stream = 1
        self._max_streams = 1 << 31
        self._window = self._stream_window = DEFAULT_WINDOW
        self._control = bytearray()  # goes before all requests
        self._unsent = memoryview(b"")
        self._received = bytearray()
        self._block, self._is_last_block = bytearray(), False
        self._lost: Exception | None = None
        self._ready = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket()

    async def __aenter__(self) -> Self:
        host, _, port = self._address.rpartition(":")
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        await self._loop.sock_connect(self._socket, (host, int(port)))
        settings = {
            Setting.HEADER_TABLE_SIZE: 0,  # headers of answers are plain
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: LARGEST_WINDOW,  # more than all answers have
        }
        content = b"".join(struct.pack(">HI", *one) for one in settings.items())
        self._control += PREFACE + frame(Kind.SETTINGS, 0, 0, content)
        self._control += frame(Kind.WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - DEFAULT_WINDOW))
        self._loop.add_reader(self._socket, self._read)
        self._write()
        await self._ready.wait()  # as gRPC does: the number of streams is known then
        return self

    async def __aexit__(self, *_: object) -> None:
        self._lose(ConnectionLost("the connection was closed"))
        self._socket.close()

    async def call(self) -> tuple[str, float]:
        """Make a call; the name of its code, and its seconds.

        Raises:
            ConnectionLost: there is no connection any more.
        """
        if self._lost is not None:
            raise self._lost
        one, begun = _Call(), time.time()
        self._waiting.append(one)
        self._write()
        code, at = await one.ended
        return code, at - begun

    def _write(self) -> None:
        """Write what may be written now; the rest follows when the server has room for it."""
        try:
            while self._unsent or self._gather():
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            self._loop.remove_writer(self._socket)
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._write)
        except OSError as error:
            self._lose(ConnectionLost(str(error)))

    def _gather(self) -> bool:
        """Gather the next frames, within the windows; whether there are any."""
        while self._waiting and len(self._calls) < self._max_streams:
            one = self._waiting.popleft()
            one.window = self._stream_window
            self._control += frame(Kind.HEADERS, END_HEADERS, self._next_stream, self._headers)
            self._calls[self._next_stream] = one
            self._sending.append((self._next_stream, one))
            self._next_stream += 2
        parts, count = [bytes(self._control)], 0
        self._control.clear()
        while self._sending and self._window > 0 and count < _FRAMES_AT_ONCE:
            stream, one = self._sending.popleft()
            if stream not in self._calls:  # it has ended
                continue
            if one.window <= 0:
                one.held = True
                continue
            size = min(FRAME_BYTES, one.window, self._window, len(self._body) - one.sent)
            is_last = one.sent + size == len(self._body)
            parts.append(head(Kind.DATA, END_STREAM if is_last else 0, stream, size))
            parts.append(self._body[one.sent : one.sent + size])
            one.sent += size
            one.window -= size
            self._window -= size
            count += 1
            if not is_last:
                self._sending.append((stream, one))
        self._unsent = memoryview(b"".join(parts))
        return bool(self._unsent)

    def _read(self) -> None:
        try:
            content, stamps, _, _ = self._socket.recvmsg(_READ_BYTES, socket.CMSG_SPACE(_TIMESTAMP.size))
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(ConnectionLost(str(error)))
            return
        if not content:
            self._lose(ConnectionLost("the server closed the connection"))
            return
        at = time.time()
        for level, kind, stamp in stamps:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIMESTAMP.unpack(stamp)
                at = seconds + nanoseconds / 1e9
        self._received += content
        begin = 0
        while (end := begin + HEAD_BYTES) <= len(self._received):
            end += int.from_bytes(self._received[begin : begin + 3], "big")
            if end > len(self._received):
                break
            kind, flags, stream = struct.unpack_from(">BBI", self._received, begin + 3)
            self._take(kind, flags, stream, bytes(self._received[begin + HEAD_BYTES : end]), at)
            begin = end
        del self._received[:begin]
        self._write()

    def _take(self, kind: int, flags: int, stream: int, content: bytes, at: float) -> None:
        match kind:
            case Kind.HEADERS | Kind.CONTINUATION:
                self._block += content
                self._is_last_block |= kind == Kind.HEADERS and bool(flags & END_STREAM)
                if flags & END_HEADERS:
                    if self._is_last_block:
                        self._end(
                            stream, _CODES.get(value_of(bytes(self._block), b"grpc-status"), "UNKNOWN"), at
                        )
                    self._block.clear()
                    self._is_last_block = False
            case Kind.RST_STREAM if int.from_bytes(content, "big") == _REFUSED_STREAM:
                if (one := self._calls.pop(stream, None)) is not None:
                    self._waiting.append(_Call(one.ended))
            case Kind.RST_STREAM:
                self._end(stream, _RESETS.get(int.from_bytes(content, "big"), "INTERNAL"), at)
            case Kind.WINDOW_UPDATE:
                more = int.from_bytes(content, "big")
                if not stream:
                    self._window += more
                elif stream in self._calls:
                    self._widen(stream, more)
            case Kind.SETTINGS if not flags & ACK:
                self._set(dict(struct.iter_unpack(">HI", content)))
                self._control += frame(Kind.SETTINGS, ACK, 0, b"")
            case Kind.PING if not flags & ACK:
                self._control += frame(Kind.PING, ACK, 0, content)
            case Kind.GOAWAY:
                self._lose(ConnectionLost("the server ends the connection"))

    def _set(self, settings: dict[int, int]) -> None:
        self._max_streams = settings.get(Setting.MAX_CONCURRENT_STREAMS, self._max_streams)
        window = settings.get(Setting.INITIAL_WINDOW_SIZE, self._stream_window)
        for stream in self._calls:
            self._widen(stream, window - self._stream_window)
        self._stream_window = window
        self._ready.set()

    def _widen(self, stream: int, more: int) -> None:
        one = self._calls[stream]
        one.window += more
        if one.held and one.window > 0:
            one.held = False
            self._sending.append((stream, one))

    def _end(self, stream: int, code: str, at: float) -> None:
        one = self._calls.pop(stream, None)
        if one is not None and not one.ended.done():
            one.ended.set_result((code, at))

    def _lose(self, error: ConnectionLost) -> None:
        self._lost = self._lost or error
        self._ready.set()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        for one in (*self._calls.values(), *self._waiting):
            if not one.ended.done():
                one.ended.set_exception(error)
        self._calls.clear()
        self._waiting.clear()
        self._sending.clear()


def _request_headers(address: str, method: str, timeout_s: float) -> bytes:
    post, http = b"\x83", b"\x86"  # :method and :scheme, both whole fields of the static table
    authority, path, content_type = (integer(index, 4, 0) for index in (1, 4, 31))  # their names in it
    return b"".join(
        (
            post + http,
            path + string(method.encode()),
            authority + string(address.encode()),
            content_type + string(b"application/grpc"),
            b"\0" + string(b"te") + string(b"trailers"),
            b"\0" + string(b"grpc-timeout") + string(f"{round(timeout_s * 1000)}m".encode()),
        )
    )
