"""Admission: bounds the unary calls in the gateway, by number and by the bytes of their requests.

A call beyond the number is refused before its message is read. Reading, checking and parsing an image would
take a multiple of the time that the refusal takes, from the calls that are answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from service.errors import Overloaded
from service.server.handlers import (
    Context,
    Continuation,
    Handler,
    Refusal,
    Unary,
    Wrapping,
    is_ours,
    wrap,
)
from service.server.reading import bytes_read
from service.server.retry_hint import RetryHint
from service.telemetry.call_context import current

_SMALL_BYTES = 1 << 16  # an answer below is not worth counting


class AdmissionInterceptor(grpc.aio.ServerInterceptor):
    """Admission control: refuses unary calls beyond the limits. Streams are bounded by the `StreamLimiter`.

    Args:
        max_calls: at once.
        max_bytes: of all their requests together, and of their answers until they are sent; a single one is
            always admitted.
    """

    def __init__(self, max_calls: int, max_bytes: int) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._calls = 0
        self._bytes = 0
        self._hint = RetryHint()
        self._refusal = Refusal(self._too_many)
        self._wrapping = Wrapping(lambda method, handler: wrap(handler, self._unary, lambda inner: inner))

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wrap the unary handlers of the gateway's own services."""
        handler = await continuation(details)
        if handler is None or not is_ours(details):
            return handler
        if self._calls >= self._max_calls and handler.unary_unary is not None:
            return self._refusal
        return self._wrapping.of(details.method, handler)

    def _unary(self, inner: Unary) -> Unary:
        async def call(request: Any, context: Context) -> Any:
            # The size of a stream of requests is not known yet: it counts as a call only.
            with self.admitted(bytes_read() if isinstance(request, Message) else 0):
                answer = await inner(request, context)
            self._hold_until_sent(answer)
            return answer

        return call

    def _hold_until_sent(self, answer: object) -> None:
        """Count the bytes of an answer until it is sent, or the call has ended otherwise.

        Raises:
            Overloaded: with it the limit of bytes would be exceeded.
        """
        size, task = answer.ByteSize() if isinstance(answer, Message) else 0, asyncio.current_task()
        if size < _SMALL_BYTES or task is None:
            return
        self._check_bytes(size)
        self._bytes += size
        task.add_done_callback(lambda _: self._give_back(size))

    def _give_back(self, size: int) -> None:
        self._bytes -= size

    @contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """Count a call of `size` bytes for the time of the block.

        Raises:
            Overloaded: with it a limit would be exceeded.
        """
        if self._calls >= self._max_calls:
            raise self._too_many()
        self._check_bytes(size)
        self._calls += 1
        self._bytes += size
        current().observer.admitted()
        try:
            yield
        finally:
            self._calls -= 1
            self._bytes -= size
            self._hint.ended()

    def _check_bytes(self, size: int) -> None:
        if self._bytes and self._bytes + size > self._max_bytes:
            raise Overloaded(
                "The calls at work hold as many bytes as are allowed: try again.",
                reason="TOO_MANY_BYTES_IN_FLIGHT",
                metadata={"limit_bytes": str(self._max_bytes), "actual_bytes": str(self._bytes + size)},
                retry_after_s=self._hint.after_refusal(self._calls),
            )

    def _too_many(self) -> Overloaded:
        return Overloaded(
            f"As many calls are at work as are allowed, {self._calls}: try again.",
            reason="TOO_MANY_IN_FLIGHT",
            metadata={"limit": str(self._max_calls)},
            retry_after_s=self._hint.after_refusal(self._calls),
        )
