"""What every call goes through: a request id, admission, errors to status codes, one log line.

Order on the server: `RequestInterceptor` outside, `AdmissionInterceptor` inside, so that a refusal
is mapped and logged like any other error. Health and reflection pass both untouched: a busy
service must not look dead to its probes.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, cast

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from service.errors import AnswerTooLarge, DeadlineExceeded, InvalidRequest, Overloaded, PosegateError
from service.servicers.responses.error_status import code_of, internal_error, to_status
from service.telemetry.call_context import CallContext, Observer, begin, current
from service.telemetry.tracing import Tracing

_log = structlog.get_logger()

REQUEST_ID = "x-request-id"
_OURS = "/posegate.v1."
_SAFE_ID = re.compile(r"[\x21-\x7e]{1,128}")

# As text: the classes are generic in their stubs only.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


class RequestInterceptor(grpc.aio.ServerInterceptor):
    """Outermost. Nothing that goes wrong inside reaches a caller except as a status of the contract.

    Args:
        timeout_s: deadline of a unary call whose caller set none.
        max_answer_bytes: of one answer; None for gRPC's own limit, and its own words.
        observer: is told of every call.
        tracing: makes a span of every call.
    """

    def __init__(
        self,
        timeout_s: float,
        max_answer_bytes: int | None = None,
        observer: Observer | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._observer = observer or Observer()
        self._tracing = tracing or Tracing()
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no call of our own services is at work."""
        await self._idle.wait()

    @property
    def at_work(self) -> int:
        """How many calls of our own services are at work."""
        return self._calls

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        self._calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    @contextmanager
    def _told(
        self, details: grpc.HandlerCallDetails, context: Context, request_id: str, *, streaming: bool = False
    ) -> Iterator[_Outcome]:
        """One log line, one span and one count per call, with whatever the servicer bound to the log
        context on the way."""
        rpc = details.method.rpartition("/")[2]
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id, rpc=rpc, peer=context.peer())
        span = self._tracing.call(
            details.method, details.invocation_metadata or (), request_id, streaming=streaming
        )
        if span.trace_id:
            structlog.contextvars.bind_contextvars(trace_id=span.trace_id)
        call = CallContext(
            request_id=request_id,
            deadline=self._deadline(context, streaming=streaming),
            observer=self._observer,
            span=span,
            streaming=streaming,
        )
        begin(call)
        outcome = _Outcome()
        started = time.perf_counter()
        try:
            yield outcome
        except (asyncio.CancelledError, GeneratorExit):
            # gRPC cancels what is too late, and is now and then quicker than the timeout in here.
            late = context.time_remaining() == 0
            outcome.code, outcome.reason = ("DEADLINE_EXCEEDED",) * 2 if late else ("CANCELLED", "")
            raise
        finally:
            seconds = time.perf_counter() - started
            facts = call.facts()
            _log.info("call", wall_ms=round(seconds * 1e3, 2), **outcome.said(), **facts)
            self._observer.call_ended(rpc, outcome.code, outcome.reason, seconds)
            if isinstance(outcome.error, Overloaded):
                self._observer.shed(outcome.reason)
            span.end(outcome.code, outcome.reason, outcome.error, facts)

    def _deadline(self, context: Context, *, streaming: bool) -> float:
        """The caller's deadline, or the service's for a unary call, on time.monotonic()'s clock."""
        remaining_s = context.time_remaining()
        if remaining_s is None:
            remaining_s = math.inf if streaming else self._timeout_s
        return time.monotonic() + remaining_s

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler:
        """Wrap the handlers of our own services."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith(_OURS):
            return cast("Handler", handler)  # None, an unknown method, is for grpc to answer
        return _wrap(
            handler,
            lambda inner: self._unary(details, inner),
            lambda inner: self._stream(details, inner),
            _reader(handler, self._observer),
        )

    def _unary(self, details: grpc.HandlerCallDetails, inner: Callable[..., Awaitable[Any]]) -> Any:
        async def call(request: Any, context: Context) -> Any:
            request_id = _request_id(details)
            with self._at_work(), self._told(details, context, request_id) as outcome:
                try:
                    request = _checked(request)
                    remaining_s = context.time_remaining()
                    limit_s = self._timeout_s if remaining_s is None else remaining_s
                    async with asyncio.timeout(limit_s):
                        answer = await inner(request, context)
                    self._check_size(answer)
                except Exception as error:
                    await _fail(context, error, request_id, outcome, begun=False)
                # Sent only now: metadata sent earlier would commit the call and rule out its retry.
                await context.send_initial_metadata(((REQUEST_ID, request_id),))
                return answer

        return call

    def _check_size(self, answer: object) -> None:
        limit = self._max_answer_bytes
        if limit is None or not isinstance(answer, Message):
            return
        size = answer.ByteSize()
        if size > limit:
            raise AnswerTooLarge(
                f"The answer has {size} bytes, at most {limit} fit into a message: ask for less at once, or "
                "for JPEG overlays.",
                metadata={"limit_bytes": str(limit), "actual_bytes": str(size)},
            )

    def _stream(self, details: grpc.HandlerCallDetails, inner: Callable[..., AsyncIterator[Any]]) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            request_id = _request_id(details)
            with self._at_work(), self._told(details, context, request_id, streaming=True) as outcome:
                begun = False
                try:
                    request = _checked(request)
                    # Closed here, or a caller who leaves would leave the handler to the garbage collector.
                    async with aclosing(cast("AsyncGenerator[Any]", inner(request, context))) as answers:
                        async for answer in answers:
                            if not begun:
                                await context.send_initial_metadata(((REQUEST_ID, request_id),))
                                begun = True
                            yield answer
                except Exception as error:
                    await _fail(context, error, request_id, outcome, begun=begun)
                if not begun:
                    await context.send_initial_metadata(((REQUEST_ID, request_id),))

        return call


@dataclass
class _Outcome:
    """How a call ended: its code, and what was raised, with its reason."""

    code: str = "OK"
    reason: str = ""
    error: Exception | None = None

    def said(self) -> dict[str, str]:
        """For the log."""
        return {"code": self.code, "reason": self.reason} if self.reason else {"code": self.code}


class _Readable:
    """A stream of requests, up to one that is broken."""

    def __init__(self, requests: AsyncIterator[Any]) -> None:
        self._requests = requests

    def __aiter__(self) -> _Readable:
        return self

    async def __anext__(self) -> Any:
        request = await anext(self._requests)
        _readable(request)
        return request


class AdmissionInterceptor(grpc.aio.ServerInterceptor):
    """Bounds the unary calls in the gateway, by number and by the bytes of their requests.

    Args:
        max_calls: at once.
        max_bytes: of all their requests together; one request alone is always let in.
    """

    def __init__(self, max_calls: int, max_bytes: int) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._calls = 0
        self._bytes = 0

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler:
        """Wrap the handlers of our own services; streams bound themselves."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith(_OURS):
            return cast("Handler", handler)  # None, an unknown method, is for grpc to answer
        return _wrap(handler, self._unary, lambda inner: inner)

    def _unary(self, inner: Callable[..., Awaitable[Any]]) -> Any:
        async def call(request: Any, context: Context) -> Any:
            # A stream of requests has no size yet: it counts as a call.
            with self.admitted(request.ByteSize() if isinstance(request, Message) else 0):
                return await inner(request, context)

        return call

    @contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """Count a call of `size` bytes in, and out again; Overloaded when there is no room."""
        if self._calls >= self._max_calls:
            raise Overloaded(
                f"{self._calls} calls are at work, as many as are allowed: try again.",
                reason="TOO_MANY_IN_FLIGHT",
                metadata={"limit": str(self._max_calls)},
                retry_after_s=0.25,
            )
        if self._calls and self._bytes + size > self._max_bytes:
            raise Overloaded(
                "The calls at work hold as many bytes as are allowed: try again.",
                reason="TOO_MANY_BYTES_IN_FLIGHT",
                metadata={"limit_bytes": str(self._max_bytes), "actual_bytes": str(self._bytes + size)},
                retry_after_s=0.25,
            )
        self._calls += 1
        self._bytes += size
        current().observer.admitted()
        try:
            yield
        finally:
            self._calls -= 1
            self._bytes -= size


def _wrap(
    handler: Handler,
    unary: Callable[[Callable[..., Awaitable[Any]]], Any],
    stream: Callable[[Callable[..., AsyncIterator[Any]]], Any],
    reader: Callable[[bytes], Any] | None = None,
) -> Handler:
    codec = {
        "request_deserializer": reader or handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(unary(handler.unary_unary), **codec)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(stream(handler.unary_stream), **codec)  # type: ignore[arg-type]
    if handler.stream_unary is not None:
        return grpc.stream_unary_rpc_method_handler(unary(handler.stream_unary), **codec)
    return grpc.stream_stream_rpc_method_handler(stream(handler.stream_stream), **codec)  # type: ignore[arg-type]


def _reader(handler: Handler, observer: Observer) -> Callable[[bytes], Any] | None:
    """Reads messages, and tells how many bytes they had: that costs nothing here, and a copy later.

    A broken one becomes the error itself, for `_readable` to raise where errors are mapped: what a
    deserializer raises, grpc tells the caller as it is.
    """
    deserialize = handler.request_deserializer
    if deserialize is None:
        return None

    def read(content: bytes) -> Any:
        observer.received(len(content))
        try:
            return deserialize(content)
        except DecodeError as error:
            return error

    return read


def _checked(request: Any) -> Any:
    """The request, if it could be read, or the stream of them."""
    if hasattr(request, "__anext__"):
        return _Readable(request)
    _readable(request)
    return request


def _readable(request: Any) -> None:
    if isinstance(request, DecodeError):
        raise InvalidRequest(
            "The bytes sent are not the message that this call takes: use stubs generated from the protos.",
            reason="MESSAGE_UNREADABLE",
        ) from request


def _request_id(details: grpc.HandlerCallDetails) -> str:
    """The caller's own id where it is short printable ASCII, else a new one."""
    for key, value in details.invocation_metadata or ():
        if key == REQUEST_ID and isinstance(value, str) and _SAFE_ID.fullmatch(value):
            return value
    return uuid.uuid4().hex


async def _fail(
    context: Context, error: Exception, request_id: str, outcome: _Outcome, *, begun: bool
) -> NoReturn:
    """End the call with the status that stands for the error."""
    if isinstance(error, TimeoutError):
        error = DeadlineExceeded("The deadline passed before the answer was ready.")
    if isinstance(error, grpc.aio.AbortError):
        raise error
    outcome.error = error
    if not isinstance(error, PosegateError):
        _log.error("internal_error", exc_info=error)
        error = internal_error(request_id)
    code = code_of(error)
    outcome.code, outcome.reason = code.name, error.reason
    status = to_status(error, request_id)
    trailing: list[tuple[str, str | bytes]] = [
        (REQUEST_ID, request_id),
        ("grpc-status-details-bin", status.SerializeToString()),
    ]
    if error.retry_after_s is not None:
        # What gRPC's own retries obey; they do not read RetryInfo.
        trailing.append(("grpc-retry-pushback-ms", str(round(error.retry_after_s * 1000))))
    elif not begun:
        # Never for what may be retried: initial metadata commit the call, and gRPC retries no more.
        await context.send_initial_metadata(((REQUEST_ID, request_id),))
    await context.abort(code, error.message, tuple(trailing))
