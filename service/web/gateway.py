"""Calls to the gateway: metadata, deadlines, quota headers, errors as problems."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import grpc
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from starlette.requests import HTTPConnection

from posegate.v1.account_service_pb2_grpc import AccountServiceStub
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from service.web.middleware import REQUEST_ID
from service.web.problems import Problem, from_rpc, quota_headers

_log = structlog.get_logger()

Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer", bound=Message)
_PASSED = ("authorization", "x-api-key", "traceparent", "tracestate")
_HEALTH_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Caller:
    """What the gateway reads of an HTTP caller.

    Attributes:
        metadata: request id, key and trace context.
        request_id: also in `metadata`.
    """

    metadata: tuple[tuple[str, str], ...]
    request_id: str


def caller_of(connection: HTTPConnection, key: str = "") -> Caller:
    """The caller of a request; `key` where the caller cannot send headers, as a WebSocket in a browser."""
    request_id = connection.state.request_id
    metadata = [(REQUEST_ID, request_id)]
    if key:
        metadata.append(("x-api-key", _ascii(key, "x-api-key")))
    for name in _PASSED:
        value = connection.headers.get(name)
        if value is not None and not (key and name in ("authorization", "x-api-key")):
            metadata.append((name, _ascii(value, name)))
    return Caller(tuple(metadata), request_id)


@dataclass(frozen=True)
class Answered(Generic[Answer]):
    """An answer of the gateway.

    Attributes:
        message: the answer.
        headers: the caller's quota, for the HTTP answer.
    """

    message: Answer
    headers: dict[str, str]


class StatusLost(Problem):
    """The gateway ended a stream while messages were on their way to it, and gRPC lost the status: a write
    that fails puts a status of its own in the place of the one that is about to come; see
    https://github.com/grpc/grpc/issues/36066."""

    def __init__(self) -> None:
        super().__init__(
            503,
            "GATEWAY_UNAVAILABLE",
            "The gateway ended the call, and its reason was lost: try again.",
            code="UNAVAILABLE",
            retry_after_s=1.0,
        )


class Gateway:
    """The gateway's services.

    Args:
        channel: to the gateway.
        request_timeout_s: deadline of a call with one answer.
        stream_timeout_s: deadline of a video or a stream of images.
        stall_s: a gateway that takes no message of a stream for longer is given up.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        request_timeout_s: float,
        stream_timeout_s: float,
        stall_s: float,
    ) -> None:
        self.pose = PoseServiceStub(channel)
        self.skeletons = SkeletonServiceStub(channel)
        self.accounts = AccountServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)
        self._request_timeout_s = request_timeout_s
        self._stream_timeout_s = stream_timeout_s
        self._stall_s = stall_s

    async def call(
        self, method: Callable[..., Any], request: Request, caller: Caller, answer: type[Answer]
    ) -> Answered[Answer]:
        """One request, one answer; Problem where the gateway gives an error."""
        call = method(request, metadata=caller.metadata, timeout=self._request_timeout_s)
        try:
            message = cast("Answer", await call)
            trailing = dict(await call.trailing_metadata() or ())
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error
        assert isinstance(message, answer)  # noqa: S101 - the stub's own type, which its typing does not give
        return Answered(message, quota_headers(trailing))

    def stream(self, method: Callable[..., Any], caller: Caller) -> Stream:
        """A call with a stream of requests and a stream of answers."""
        return Stream(method(metadata=caller.metadata, timeout=self._stream_timeout_s), self._stall_s)

    async def refusal_of(self, method: Callable[..., Any], caller: Caller, first: Message) -> Problem | None:
        """Why the gateway refuses a stream: its first message is sent again, with nothing after it, so that
        the status cannot be lost. None where it does not refuse it, or only for what is missing."""
        call = method(metadata=caller.metadata, timeout=self._request_timeout_s)
        async with Stream(call, self._stall_s) as stream:
            await stream.send(first)
            await stream.close()
            try:
                async for _ in stream.answers():
                    return None
            except StatusLost:
                return None
            except Problem as problem:
                return None if problem.reason == "VIDEO_UNDECODABLE" else problem
        return None

    async def serving(self) -> bool:
        """Whether the gateway can answer: the default model is loaded and warm."""
        try:
            answer = await self._health.Check(  # type: ignore[attr-defined]  # not in its stubs
                health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT_S
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class Stream:
    """A call in both directions. Leaving its context cancels what is not finished.

    Args:
        call: of grpc.aio.
        stall_s: a gateway that takes no message for longer is given up.
    """

    def __init__(self, call: Any, stall_s: float) -> None:
        self._call = call
        self._stall_s = stall_s

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """End the call, unless it is over."""
        self._call.cancel()

    async def send(self, message: Message) -> bool:
        """Send a message once there is room for it; False where the call is over, which `answers` explains.

        Raises:
            Problem: 504 where the gateway takes nothing for too long.
        """
        try:
            async with asyncio.timeout(self._stall_s):
                await self._write(message)
        except TimeoutError:
            raise Problem(
                504,
                "GATEWAY_STALLED",
                f"The gateway took no more of the upload for {self._stall_s:g} s.",
                code="DEADLINE_EXCEEDED",
                retry_after_s=5.0,
            ) from None
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            # Which of these it is depends on how far the refusal has come: https://github.com/grpc/grpc/issues/36066
            return False
        return True

    async def _write(self, message: Message) -> None:
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            # A task that is cancelled while it writes gets one of these in place of its cancellation.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from None
            raise

    async def close(self) -> None:
        """Nothing more is sent."""
        with suppress(grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            await self._call.done_writing()

    async def answers(self) -> AsyncIterator[Any]:
        """The answers; Problem where the gateway ends the call with an error, StatusLost where that is not
        known."""
        try:
            while (answer := await self._call.read()) is not grpc.aio.EOF:
                yield answer
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                if code is grpc.StatusCode.INTERNAL and not await self._call.trailing_metadata():
                    raise StatusLost
                raise from_rpc(
                    grpc.aio.AioRpcError(
                        code,
                        grpc.aio.Metadata(),
                        await self._call.trailing_metadata(),
                        await self._call.details(),
                    )
                )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INTERNAL and not error.trailing_metadata():
                raise StatusLost from error
            raise from_rpc(error) from error

    async def quota(self) -> dict[str, str]:
        """The caller's quota, once the answers are over."""
        return quota_headers(dict(await self._call.trailing_metadata() or ()))


def _ascii(value: str, name: str) -> str:
    """gRPC metadata hold printable ASCII only."""
    if not value.isascii() or not value.isprintable():
        raise Problem(
            401 if name in ("authorization", "x-api-key") else 400,
            "API_KEY_INVALID" if name in ("authorization", "x-api-key") else "HEADER_INVALID",
            f"The header {name} holds characters that are not printable ASCII.",
            code="UNAUTHENTICATED" if name in ("authorization", "x-api-key") else "INVALID_ARGUMENT",
        )
    return value
