"""Wrapping of RPC handlers, for interceptors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import grpc

from service.errors import Overloaded
from service.servicers.context import Context as Context

# As text: the classes are generic in their stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]
else:
    _Handler = grpc.RpcMethodHandler

Unary: TypeAlias = Callable[..., Awaitable[Any]]
Stream: TypeAlias = Callable[..., AsyncIterator[Any]]

_OURS = "/posegate.v1."


def is_ours(details: grpc.HandlerCallDetails) -> bool:
    """Whether the method belongs to one of the gateway's own services, and not to health or reflection."""
    return details.method.startswith(_OURS)


class Refusal(_Handler):
    """Handler of a unary call that is refused before its request is read: gRPC reads a stream when asked to.

    It works as it is, wrapped like any other handler; the outermost interceptor knows it, and ends the call
    with less work.

    Args:
        error: makes the error to raise.
        behaviour: what is called; None to raise the error.
    """

    request_streaming = True
    response_streaming = False
    request_deserializer = response_serializer = None
    unary_unary = unary_stream = stream_stream = None

    def __init__(self, error: Callable[[], Overloaded], behaviour: Unary | None = None) -> None:
        self.error = error
        self.stream_unary: Any = behaviour or self._raise

    async def _raise(self, requests: Any, context: Context) -> NoReturn:
        raise self.error()


class Wrapping:
    """Wraps the handler of a method once, not for every call.

    Args:
        wrap: wraps a handler, given the name of its method.
    """

    def __init__(self, wrap: Callable[[str, Handler], Handler]) -> None:
        self._wrap = wrap
        self._wrapped: dict[tuple[str, Handler], Handler] = {}

    def of(self, method: str, handler: Handler) -> Handler:
        """The wrapped handler of a method, such as "/posegate.v1.PoseService/DetectPoses"."""
        wrapped = self._wrapped.get((method, handler))
        if wrapped is None:
            wrapped = self._wrapped[method, handler] = self._wrap(method, handler)
        return wrapped


def wrap(
    handler: Handler,
    unary: Callable[[Unary], Unary],
    stream: Callable[[Stream], Stream],
    deserialize: Callable[[bytes], Any] | None = None,
) -> Handler:
    """The handler with its behaviour wrapped.

    Args:
        handler: of any of the four kinds.
        unary: wraps a behaviour with a single answer.
        stream: wraps a behaviour with a stream of answers.
        deserialize: in place of the handler's own; None to keep that.
    """
    codec = {
        "request_deserializer": deserialize or handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(unary(handler.unary_unary), **codec)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(stream(handler.unary_stream), **codec)  # type: ignore[arg-type]
    if handler.stream_unary is not None:
        return grpc.stream_unary_rpc_method_handler(unary(handler.stream_unary), **codec)
    return grpc.stream_stream_rpc_method_handler(stream(handler.stream_stream), **codec)  # type: ignore[arg-type]


def as_stream_of_one(handler: Handler) -> Handler:
    """A unary handler whose behaviour takes a stream of requests, of which it reads one."""
    return grpc.stream_unary_rpc_method_handler(
        handler.unary_unary,  # type: ignore[arg-type]
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
