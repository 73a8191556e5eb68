"""The outer interceptor of every call: call context, errors to status codes, one log line, one span.

Order on the server: `RequestInterceptor` outside, `AccountInterceptor` in between where there are accounts,
`AdmissionInterceptor` inside, so that a refusal is mapped and logged like any other error. Health and
reflection pass all of them untouched: a busy service must still answer its probes.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import grpc
import structlog
from google.protobuf.message import Message

from service.errors import (
    AnswerTooLarge,
    DeadlineExceeded,
    MonthlyQuotaExceeded,
    Overloaded,
    PosegateError,
    Unauthenticated,
)
from service.pipeline.stream_limiter import StreamLimiter
from service.server.arrivals import Arrivals
from service.server.connections import close_connection
from service.server.handlers import (
    Context,
    Continuation,
    Handler,
    Refusal,
    Stream,
    Unary,
    Wrapping,
    as_stream_of_one,
    is_ours,
    wrap,
)
from service.server.reading import RequestReader
from service.servicers.responses.error_status import code_of, to_status
from service.telemetry.call_context import CallContext, Observer, begin
from service.telemetry.caller_error import caller_error
from service.telemetry.logging import CALLS
from service.telemetry.tracing import Tracing

_log = structlog.get_logger()
_calls = structlog.get_logger(CALLS)

REQUEST_ID = "x-request-id"
_REFUSAL_LOG_S = 1.0
_LATE_S = 0.02  # a call that its caller ends so shortly before its deadline has ended by it
_NO_DEADLINE_S = 1e9  # Java's Long.MAX_VALUE nanoseconds, and what else stands for none; 30 years
_SAFE_ID = re.compile(r"[\x21-\x7e]{1,128}")


class RequestInterceptor(grpc.aio.ServerInterceptor):
    """Outermost interceptor. Errors reach callers only as statuses of the contract.

    Args:
        timeout_s: deadline of a unary call whose caller set none.
        reader: of their requests.
        max_message_bytes: of one answer.
        observer: counts every call.
        tracing: makes a span of every call.
        arrivals: requests of unary calls on their way in; None to have gRPC read them.
        unread_s: an answer of a unary call that is not taken for so long ends the connection.

    Attributes:
        begun: number of calls that have begun since the start.
        draining: refuse every further call, with a hint to try again.
    """

    def __init__(
        self,
        timeout_s: float,
        reader: RequestReader,
        max_message_bytes: int,
        observer: Observer,
        tracing: Tracing,
        *,
        arrivals: Arrivals | None = None,
        unread_s: float = math.inf,
    ) -> None:
        self._arrivals = arrivals
        self._wrapping = Wrapping(self._wrap)
        self._unread_s = unread_s
        self._timeout_s = timeout_s
        self._reader = reader
        self._max_message_bytes = max_message_bytes
        self._observer = observer
        self._tracing = tracing
        self._calls = 0
        self.begun = 0
        self.draining = False
        self._refusals = {Overloaded: _Refusals(), Unauthenticated: _Refusals()}
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no call of the gateway's own services is in progress."""
        await self._idle.wait()

    @property
    def at_work(self) -> int:
        """Number of calls of the gateway's own services in progress."""
        return self._calls

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wrap the handlers of the gateway's own services."""
        handler = await continuation(details)
        if handler is None or not is_ours(details):
            return handler  # None, an unknown method, is answered by grpc
        return self._wrapping.of(details.method, handler)

    def _wrap(self, method: str, handler: Handler) -> Handler:
        if isinstance(handler, Refusal):
            return Refusal(handler.error, self._refusing(method, handler.error))
        arrivals = self._arrivals if handler.unary_unary is not None else None
        wrapped = wrap(
            handler,
            lambda inner: self._unary(method, inner, arrivals),
            lambda inner: self._stream(method, inner),
            self._reader.deserializer(method, handler.request_deserializer),
        )
        return wrapped if arrivals is None else as_stream_of_one(wrapped)

    def _unary(self, method: str, inner: Unary, arrivals: Arrivals | None) -> Unary:
        async def call(request: Any, context: Context) -> Any:
            with self._in_progress():
                if arrivals is None:
                    return await answered(request, context)
                # Not kept here for as long as the call takes: it may be the bytes of what is parsed there.
                return await answered(await arrivals.receive(request), context)

        async def answered(request: Any, context: Context) -> Any:
            with self._observed(method, context) as (call, outcome):
                try:
                    self._refuse_while_draining()
                    async with asyncio.timeout(call.deadline - time.monotonic()):
                        request = await self._reader.read(request)
                        answer = await inner(request, context)
                    self.check_size(answer)
                except Exception as error:
                    return await _fail(context, error, call.request_id, outcome, begun=False)
                finally:
                    del request  # where it could not be read it is the error, which knows this frame
                # Sent only now: metadata sent earlier would commit the call and rule out its retry.
                await context.send_initial_metadata(((REQUEST_ID, call.request_id),))
                self._watch_sending(context)
                return answer

        return call

    def _refusing(self, method: str, error: Callable[[], Overloaded]) -> Unary:
        """Behaviour that does for a refused call what is done for others, with less work: hundreds a
        second take their time from the calls that are answered."""
        rpc = method.rpartition("/")[2]

        async def call(requests: Any, context: Context) -> None:
            with self._in_progress():
                metadata = tuple(context.invocation_metadata() or ())
                request_id = _request_id(metadata)
                span = self._tracing.call(method, metadata, request_id)
                refusal = StreamLimiter.stopping() if self.draining else error()
                code = code_of(refusal)
                outcome = _Outcome(code.name, refusal.reason, refusal)
                facts = {"request_id": request_id, "rpc": rpc, "peer": context.peer()}
                if span.trace_id:
                    facts["trace_id"] = span.trace_id
                self._log_end(outcome, 0.0, facts)
                self._observer.call_ended(rpc, outcome.code, outcome.reason, 0.0)
                if isinstance(refusal, Overloaded):
                    self._observer.shed(outcome.reason)
                span.end(outcome.code, outcome.reason, refusal, {})
                await _end(context, code, refusal, _trailing(refusal, request_id))

        return call

    def _watch_sending(self, context: Context) -> None:
        """End the connection of a caller who does not take the answer that is sent next."""
        task = asyncio.current_task()
        if math.isinf(self._unread_s) or task is None:
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._unread_s, _end_connection, context.peer(), self._unread_s)
        task.add_done_callback(lambda _: timer.cancel())

    def _stream(self, method: str, inner: Stream) -> Stream:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._in_progress(), self._observed(method, context, streaming=True) as (call, outcome):
                initial = ((REQUEST_ID, call.request_id),)
                begun = False
                try:
                    self._refuse_while_draining()
                    request = await self._reader.read(request)
                    # Closed here: after a cancelled call only the garbage collector would close the handler.
                    async with aclosing(cast("AsyncGenerator[Any]", inner(request, context))) as answers:
                        async for answer in answers:
                            if not begun:
                                await context.send_initial_metadata(initial)
                                begun = True
                            yield answer
                except Exception as error:
                    await _fail(context, error, call.request_id, outcome, begun=begun)
                    return
                finally:
                    del request  # as above
                if not begun:
                    await context.send_initial_metadata(initial)

        return call

    @contextmanager
    def _in_progress(self) -> Iterator[None]:
        self._calls += 1
        self.begun += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    @contextmanager
    def _observed(
        self, method: str, context: Context, *, streaming: bool = False
    ) -> Iterator[tuple[CallContext, _Outcome]]:
        """Begin the call's context; at its end write one log line, one span and one count, with everything
        that was bound to the log context on the way."""
        rpc = method.rpartition("/")[2]
        metadata, peer = tuple(context.invocation_metadata() or ()), context.peer()
        request_id = _request_id(metadata)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id, rpc=rpc, peer=peer)
        span = self._tracing.call(method, metadata, request_id, streaming=streaming)
        if span.trace_id:
            structlog.contextvars.bind_contextvars(trace_id=span.trace_id)
        call = CallContext(
            request_id=request_id,
            peer=_host(peer),
            deadline=self._deadline(context, streaming=streaming),
            observer=self._observer,
            span=span,
            streaming=streaming,
        )
        begin(call)
        outcome = _Outcome()
        started = time.perf_counter()
        try:
            yield call, outcome
        except (asyncio.CancelledError, GeneratorExit):
            # gRPC cancels a call at its deadline, sometimes before the timeout in here does; callers do so
            # by their own clock.
            remaining_s = context.time_remaining()
            late = remaining_s is not None and remaining_s < _LATE_S
            outcome.code, outcome.reason = ("DEADLINE_EXCEEDED",) * 2 if late else ("CANCELLED", "")
            raise
        finally:
            seconds = time.perf_counter() - started
            facts = call.facts()
            self._log_end(outcome, seconds, facts)
            self._observer.call_ended(rpc, outcome.code, outcome.reason, seconds)
            if isinstance(outcome.error, Overloaded):
                self._observer.shed(outcome.reason)
            span.end(outcome.code, outcome.reason, outcome.error, facts)
            # The error knows the frames it came through, and these the request.
            outcome.error = None

    def _refuse_while_draining(self) -> None:
        if self.draining:
            raise StreamLimiter.stopping()

    def _log_end(self, outcome: _Outcome, seconds: float, facts: Mapping[str, Any]) -> None:
        """One line for each call; of refusals by overload, and of those for a key, one a second: to write a
        line for each would take time from the calls that are answered. A stream that had frames is not one of
        them."""
        fields = outcome.fields()
        for kind, refusals in self._refusals.items():
            if isinstance(outcome.error, kind) and not facts.get("frames"):
                count = refusals.to_log()
                if not count:
                    return
                if count > 1:
                    fields["refusals"] = count
        _calls.info("call", wall_ms=round(seconds * 1e3, 2), **fields, **facts)

    def _deadline(self, context: Context, *, streaming: bool) -> float:
        """The caller's deadline, or the service's for a unary call, on time.monotonic()'s clock."""
        remaining_s = context.time_remaining()
        if remaining_s is None or remaining_s > _NO_DEADLINE_S:
            remaining_s = math.inf if streaming else self._timeout_s
        return time.monotonic() + remaining_s

    def check_size(self, answer: object) -> None:
        """Hold an answer against what fits into a message.

        Raises:
            AnswerTooLarge: it does not.
        """
        if not isinstance(answer, Message):
            return
        size, limit = answer.ByteSize(), self._max_message_bytes
        if size > limit:
            raise AnswerTooLarge(
                f"The answer has {size} bytes, at most {limit} fit into a message: ask for less at once, or "
                "for JPEG overlays.",
                metadata={"limit_bytes": str(limit), "actual_bytes": str(size)},
            )


@dataclass
class _Outcome:
    """How a call ended: its code, and the error that was raised, with its reason."""

    code: str = "OK"
    reason: str = ""
    error: Exception | None = None

    def fields(self) -> dict[str, str | int]:
        """Fields of the log line."""
        return {"code": self.code, "reason": self.reason} if self.reason else {"code": self.code}


class _Refusals:
    """Refusals of one kind, of which one a second is logged."""

    def __init__(self) -> None:
        self._count = 0
        self._logged_at = -math.inf

    def to_log(self) -> int:
        """Count a refusal; the number since the last line where it is time for one, else 0."""
        self._count += 1
        if time.monotonic() < self._logged_at + _REFUSAL_LOG_S:
            return 0
        self._logged_at = time.monotonic()
        count, self._count = self._count, 0
        return count


def _end_connection(peer: str, unread_s: float) -> None:
    _log.warning("answer_not_taken", peer=peer, seconds=unread_s, closed=close_connection(peer))


def _request_id(metadata: Sequence[tuple[str, str | bytes]]) -> str:
    """The caller's own id where it is short printable ASCII, else a new one."""
    for key, value in metadata:
        if key == REQUEST_ID and isinstance(value, str) and _SAFE_ID.fullmatch(value):
            return value
    # Not the system's own: while it is asked, other threads take the interpreter for a while.
    return f"{random.getrandbits(128):032x}"


def _host(peer: str) -> str:
    """The address of gRPC's name of a peer, such as ipv4:192.0.2.1:5000, without its port."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer


def _ratelimit(error: MonthlyQuotaExceeded) -> list[tuple[str, str]]:
    """The same fields as answers that counted have."""
    fields = [
        (f"ratelimit-{name}", error.metadata[name])
        for name in ("limit", "remaining")
        if name in error.metadata
    ]
    if error.reset_time is not None:
        seconds = max(0, round((error.reset_time - datetime.now(UTC)).total_seconds()))
        fields.append(("ratelimit-reset", str(seconds)))
    return fields


async def _fail(
    context: Context, error: Exception, request_id: str, outcome: _Outcome, *, begun: bool
) -> None:
    """End the call with the status that stands for the error."""
    if isinstance(error, TimeoutError):
        error = DeadlineExceeded("The deadline passed before the answer was ready.")
    if isinstance(error, grpc.aio.AbortError):
        raise error
    outcome.error = error
    shown = caller_error(error)
    code = code_of(shown)
    outcome.code, outcome.reason = code.name, shown.reason
    trailing = _trailing(shown, request_id)
    if shown.retry_after_s is None and not begun:
        if isinstance(shown, MonthlyQuotaExceeded):
            trailing += (("grpc-retry-pushback-ms", "-1"),)  # ends gRPC's own retries
        # Never for an error that may be retried: initial metadata commit the call and rule out its retry.
        await context.send_initial_metadata(((REQUEST_ID, request_id),))
    await _end(context, code, shown, trailing)


async def _end(
    context: Context,
    code: grpc.StatusCode,
    error: PosegateError,
    trailing: tuple[tuple[str, str | bytes], ...],
) -> None:
    """End a call with a status, before its handler returns.

    A code that is only set would be sent with initial metadata and an empty message, which commit the call
    and rule out its retry. What `abort` raises is kept by the context and raised again when the handler has
    returned; what it refers to, and with it all that the call has, would wait for the garbage collector.
    """
    try:
        await context.abort(code, error.message, trailing)
    except grpc.aio.AbortError as aborted:
        aborted.__context__ = aborted.__traceback__ = None


def _trailing(error: PosegateError, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
    """Metadata that say of an error what its code and message do not."""
    trailing: list[tuple[str, str | bytes]] = [
        (REQUEST_ID, request_id),
        ("grpc-status-details-bin", to_status(error, request_id).SerializeToString()),
    ]
    if error.retry_after_s is not None:
        # gRPC's own retries obey this; they do not read RetryInfo.
        trailing.append(("grpc-retry-pushback-ms", str(round(error.retry_after_s * 1000))))
    if isinstance(error, MonthlyQuotaExceeded):
        trailing += _ratelimit(error)
    return tuple(trailing)
