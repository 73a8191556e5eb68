"""Reading of requests: their size and bounds are checked on the bytes, then they are parsed.

A request of many elements is checked in a thread, one after another: to check a million takes a second, for
which nothing else would be answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from service.errors import InvalidRequest, Overloaded, PosegateError
from service.server.bounds import TooManyElements, out_of_bounds
from service.server.message_limits import max_request_bytes, request_type_of

_AT_ONCE = 20_000  # elements that are checked on the event loop, in some 20 ms
_IN_THREAD = 32  # requests of more at once, read or waiting for it; of a second each at most
_RETRY_AFTER_S = 1.0

Deserializer = Callable[[bytes], Any]

_bytes_read: ContextVar[int] = ContextVar("bytes_read", default=0)


def bytes_read() -> int:
    """Size of the message that this task was given last, 0 before. The message itself would be serialised to
    tell, for which nothing is answered: 0.3 s for 200 MB."""
    return _bytes_read.get()


class RequestReader:
    """Reads requests.

    Args:
        max_message_bytes: of one request; requests without images or chunks have smaller limits.
        received: told the bytes of every request.
        thread: checks requests of many elements; of one thread, because such work shares the interpreter.
    """

    def __init__(self, max_message_bytes: int, received: Callable[[int], None], thread: Executor) -> None:
        self._max_message_bytes = max_message_bytes
        self._received = received
        self._thread = thread
        self._in_thread = 0

    def deserializer(self, method: str, deserialize: Deserializer | None) -> Deserializer | None:
        """The deserializer of a method behind the checks; what it returns is for `read`.

        An error becomes the result, because grpc sends the text of anything that a deserializer raises to the
        caller.
        """
        if deserialize is None:
            return None
        request_type = request_type_of(method)
        limit = max_request_bytes(request_type, self._max_message_bytes)

        def read(content: bytes) -> Any:
            self._received(len(content))
            _bytes_read.set(len(content))
            try:
                _check_size(content, limit)
                if request_type is not None:
                    try:
                        _check_bounds(content, request_type, at_once=_AT_ONCE)
                    except TooManyElements:
                        return _Unread(content, request_type, deserialize)
                return deserialize(content)
            except (DecodeError, InvalidRequest) as error:
                return error

        return read

    async def read(self, read: Any) -> Any:
        """What a deserializer of this reader made: the request, or, of a stream, all requests.

        Raises:
            PosegateError: a request is too large, beyond its bounds, or could not be read or received, or too
                many are being read; of a stream when that request is asked for.
        """
        if hasattr(read, "__anext__"):
            return _Requests(read, self)
        try:
            if isinstance(read, _Unread):
                read = await self._read_in_thread(read)
            if isinstance(read, PosegateError):
                raise read
            if isinstance(read, DecodeError):
                raise InvalidRequest(
                    "The bytes sent are not the message that this call takes: use stubs generated from the "
                    "protos.",
                    reason="MESSAGE_UNREADABLE",
                ) from read
            return read
        finally:
            del read  # else the error and this frame would keep each other

    async def _read_in_thread(self, unread: _Unread) -> Any:
        if self._in_thread >= _IN_THREAD:
            raise Overloaded(
                f"As many requests of many elements are being read as are allowed, {_IN_THREAD}: try again.",
                reason="TOO_MANY_IN_FLIGHT",
                metadata={"limit": str(_IN_THREAD)},
                retry_after_s=_RETRY_AFTER_S,
            )
        self._in_thread += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, unread.read)
        finally:
            self._in_thread -= 1


class _Requests:
    """A stream of requests; raises at the first one that could not be read."""

    def __init__(self, requests: AsyncIterator[Any], reader: RequestReader) -> None:
        self._requests = requests
        self._reader = reader

    def __aiter__(self) -> _Requests:
        return self

    async def aclose(self) -> None:
        """Take no more of them."""
        await cast("AsyncGenerator[Any]", aiter(self._requests)).aclose()

    async def __anext__(self) -> Any:
        return await self._reader.read(await anext(self._requests))


@dataclass(frozen=True)
class _Unread:
    """A request of more elements than are checked on the event loop."""

    content: bytes
    request_type: Descriptor
    deserialize: Deserializer

    def read(self) -> Any:
        """The request, or the error that it is refused with."""
        try:
            _check_bounds(self.content, self.request_type)
            return self.deserialize(self.content)
        except (DecodeError, InvalidRequest) as error:
            return error.with_traceback(None)  # whose frames would keep the bytes


def _check_size(content: bytes, limit: int) -> None:
    if len(content) > limit:
        raise InvalidRequest(
            f"The request has {len(content)} bytes, at most {limit} are allowed for this call: send less at "
            "once.",
            reason="MESSAGE_TOO_LARGE",
            metadata={"limit_bytes": str(limit), "actual_bytes": str(len(content))},
        )


def _check_bounds(content: bytes, request_type: Descriptor, at_once: int | None = None) -> None:
    violations = out_of_bounds(content, request_type, at_once)
    if violations:
        problems = "; ".join(f"{one.field} {one.description}" for one in violations)
        raise InvalidRequest(f"The request is invalid: {problems}.", violations=violations)
