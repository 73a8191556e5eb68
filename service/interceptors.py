"""What every call goes through: a request id, admission, errors to status codes, one log line.

Order on the server: `RequestInterceptor` outside, `AdmissionInterceptor` inside, so that a refusal
is mapped and logged like any other error. Health and reflection pass both untouched: a busy
service must not look dead to its probes.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, NoReturn, TypeAlias, cast

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from service.errors import DeadlineExceeded, InvalidRequest, Overloaded, PosegateError
from service.status import code_of, internal_error, to_status

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
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no call of our own services is at work."""
        await self._idle.wait()

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
            outermost=True,
        )

    def _unary(self, details: grpc.HandlerCallDetails, inner: Callable[..., Awaitable[Any]]) -> Any:
        async def call(request: Any, context: Context) -> Any:
            request_id = _request_id(details)
            with self._at_work(), _logged(details.method, context, request_id) as outcome:
                try:
                    _readable(request)
                    remaining_s = context.time_remaining()
                    limit_s = self._timeout_s if remaining_s is None else remaining_s
                    async with asyncio.timeout(limit_s):
                        answer = await inner(request, context)
                except Exception as error:
                    await _fail(context, error, request_id, outcome, begun=False)
                # Sent only now: metadata sent earlier would commit the call and rule out its retry.
                await context.send_initial_metadata(((REQUEST_ID, request_id),))
                return answer

        return call

    def _stream(self, details: grpc.HandlerCallDetails, inner: Callable[..., AsyncIterator[Any]]) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            request_id = _request_id(details)
            with self._at_work(), _logged(details.method, context, request_id) as outcome:
                begun = False
                try:
                    _readable(request)
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
        try:
            yield
        finally:
            self._calls -= 1
            self._bytes -= size


def _wrap(
    handler: Handler,
    unary: Callable[[Callable[..., Awaitable[Any]]], Any],
    stream: Callable[[Callable[..., AsyncIterator[Any]]], Any],
    *,
    outermost: bool = False,
) -> Handler:
    deserializer = handler.request_deserializer
    if outermost and not handler.request_streaming and deserializer is not None:
        deserializer = _forgiving(deserializer)
    codec = {"request_deserializer": deserializer, "response_serializer": handler.response_serializer}
    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(unary(handler.unary_unary), **codec)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(stream(handler.unary_stream), **codec)  # type: ignore[arg-type]
    if handler.stream_unary is not None:
        return grpc.stream_unary_rpc_method_handler(unary(handler.stream_unary), **codec)
    return grpc.stream_stream_rpc_method_handler(stream(handler.stream_stream), **codec)  # type: ignore[arg-type]


def _forgiving(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A broken message becomes the error itself, for `_readable` to raise where errors are mapped: what
    a deserializer raises, grpc tells the caller as it is."""

    def read(content: bytes) -> Any:
        try:
            return deserialize(content)
        except DecodeError as error:
            return error

    return read


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


@contextmanager
def _logged(method: str, context: Context, request_id: str) -> Iterator[dict[str, Any]]:
    """One line per call, with whatever the servicer bound to the log context on the way."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(
        request_id=request_id, rpc=method.rpartition("/")[2], peer=context.peer()
    )
    outcome: dict[str, Any] = {"code": "OK"}
    started = time.perf_counter()
    try:
        yield outcome
    except (asyncio.CancelledError, GeneratorExit):
        outcome["code"] = "CANCELLED"
        raise
    finally:
        wall_ms = round((time.perf_counter() - started) * 1e3, 2)
        _log.info("call", wall_ms=wall_ms, **outcome)


async def _fail(
    context: Context, error: Exception, request_id: str, outcome: dict[str, Any], *, begun: bool
) -> NoReturn:
    """End the call with the status that stands for the error."""
    if isinstance(error, TimeoutError):
        error = DeadlineExceeded("The deadline passed before the answer was ready.")
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, PosegateError):
        _log.error("internal_error", exc_info=error)
        error = internal_error(request_id)
    code = code_of(error)
    outcome.update(code=code.name, reason=error.reason)
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
