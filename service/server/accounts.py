"""Holds calls to their account: key, rate, places, quota, usage.

It stands between `RequestInterceptor`, which turns its refusals into statuses and log lines, and
`AdmissionInterceptor`: a tenant that is at its own limits takes no place from the others. Health and
reflection need no key. A caller whose key is not known is asked for it before its request is read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import grpc
import structlog
from google.protobuf import duration_pb2

from posegate.v1 import pose_service_pb2 as pb
from service.accounts.gate import Account, AccountGate, key_ended
from service.accounts.quotas import Charge, Standing
from service.accounts.usage import COUNTED_RPCS, UsageRecorder
from service.errors import PosegateError
from service.pipeline.concurrency import given
from service.server.arrivals import Arrivals
from service.server.handlers import Context, Continuation, Handler, Stream, Unary, Wrapping, is_ours, wrap
from service.server.open_streams import OpenStreams
from service.telemetry.call_context import Observer, current


class AccountInterceptor(grpc.aio.ServerInterceptor):
    """Asks every call of our own services for its key, and holds it to the plan.

    Args:
        gate: the use case.
        observer: counts every call by plan.
        check_answer: raises where an answer cannot be sent: it must not count.
        arrivals: requests of unary calls on their way in.
    """

    def __init__(
        self,
        gate: AccountGate,
        observer: Observer,
        check_answer: Callable[[object], None],
        arrivals: Arrivals,
    ) -> None:
        self._gate = gate
        self._observer = observer
        self._check_answer = check_answer
        self._arrivals = arrivals
        self._wrapping = Wrapping(
            lambda method, handler: wrap(handler, partial(self._unary, method), partial(self._stream, method))
        )
        self._asking = Wrapping(self._asked_first)
        self.streams = OpenStreams(gate.is_live, key_ended)

    async def run(self) -> None:
        """End open streams whose key has ended, until cancelled."""
        await self.streams.run()

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wrap the handlers of the gateway's own services."""
        handler = await continuation(details)
        if handler is None or not is_ours(details):
            return handler
        wrapped = self._wrapping.of(details.method, handler)
        if wrapped.unary_unary is None or self._gate.knows(presented_key(details.invocation_metadata or ())):
            return wrapped
        return self._asking.of(details.method, wrapped)

    def _asked_first(self, method: str, wrapped: Handler) -> Handler:
        """For a caller whose key is not known. Most are refused: before their request takes memory."""
        inner: Any = wrapped.unary_unary

        async def call(requests: AsyncIterator[Any], context: Context) -> Any:
            await self._authenticate(context)
            return await inner(given(await self._arrivals.receive(requests)), context)

        return grpc.stream_unary_rpc_method_handler(
            call,
            request_deserializer=wrapped.request_deserializer,
            response_serializer=wrapped.response_serializer,
        )

    def _unary(self, method: str, inner: Unary) -> Unary:
        rpc = _rpc(method)

        async def free(request: Any, context: Context) -> Any:
            account = await self._accept(context)
            with self._counted(account, rpc) as usage, self._gate.admitted(account, streaming=False):
                answer = await inner(request, context)
                self._check_answer(answer)
                usage.succeeded = True
                return answer

        async def counted(request: Any, context: Context) -> Any:
            account = await self._accept(context)
            with self._counted(account, rpc) as usage, self._gate.admitted(account, streaming=False):
                charge = await self._reserve(account, request)
                try:
                    answer = await inner(request, context)
                    self._check_answer(answer)
                    usage.answered(answer)
                finally:
                    spent = min(charge.units, usage.pictures) if charge.units > 1 else int(usage.succeeded)
                    standing = charge.settle(spent)
                context.set_trailing_metadata(_headers(standing))
                return answer

        return counted if rpc in COUNTED_RPCS else free

    def _stream(self, method: str, inner: Stream) -> Stream:
        rpc = _rpc(method)

        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            account = await self._accept(context)
            with self._counted(account, rpc) as usage, self._gate.admitted(account, streaming=True):
                charge = await self._reserve(account, request)
                try:
                    async with (
                        aclosing(cast("AsyncGenerator[Any]", inner(request, context))) as answers,
                        aclosing(self.streams.watched(account.key_id, answers)) as watched,
                    ):
                        async for answer in watched:
                            before = usage.succeeded
                            usage.answered(answer)
                            if usage.succeeded and not before:
                                context.set_trailing_metadata(_headers(charge.settle(1)))
                            yield answer
                finally:
                    charge.settle(0)  # no frame was answered, or it was settled before

        return call

    async def _accept(self, context: Context) -> Account:
        account = await self._authenticate(context)
        structlog.contextvars.bind_contextvars(tenant=account.tenant, key_id=account.key_id)
        call = current()
        call.tenant, call.plan = account.tenant, account.plan
        return account

    async def _authenticate(self, context: Context) -> Account:
        presented = presented_key(context.invocation_metadata() or ())
        return await self._gate.authenticate(presented, context.peer())

    async def _reserve(self, account: Account, request: Any) -> Charge:
        pictures = len(request.requests) if isinstance(request, pb.BatchDetectPosesRequest) else None
        return await self._gate.reserve(account, pictures=pictures)

    def _counted(self, account: Account, rpc: str) -> _Usage:
        return _Usage(account, rpc, self._gate.usage, self._observer)


class _Usage:
    """What a call gave its caller so far. At the end of its block the call is counted for invoices and
    metrics, however it ended.

    Attributes:
        succeeded: there was an answer that counts.
        pictures: number of images answered.
    """

    def __init__(self, account: Account, rpc: str, recorder: UsageRecorder, observer: Observer) -> None:
        self._account = account
        self._rpc = rpc
        self._recorder = recorder
        self._observer = observer
        self.succeeded = False
        self.pictures = 0
        self._first_s: float | None = None
        self._last_s = self._frame_s = 0.0

    def __enter__(self) -> _Usage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        if kind is None:
            outcome = "OK"
        elif isinstance(error, PosegateError):
            outcome = error.reason
        else:
            outcome = "INTERNAL" if issubclass(kind, Exception) else "CANCELLED"
        self._recorder.called(
            self._account.tenant,
            self._rpc,
            calls=int(self.succeeded),
            failures=int(outcome not in ("OK", "CANCELLED")),
            pictures=self.pictures,
            video_ms=self._video_ms(),
        )
        self._observer.plan_call(self._account.plan.name, outcome)

    def answered(self, answer: object) -> None:
        """Count one answer."""
        match answer:
            case pb.AnalyzeVideoResponse():
                if answer.HasField("frame"):
                    self._frame(answer.frame.time)
                elif answer.HasField("started") and answer.started.video.fps > 0:
                    self._frame_s = 1 / answer.started.video.fps
            case pb.StreamPosesResponse():
                if answer.HasField("result") and not answer.result.HasField("error"):
                    self._frame(answer.result.capture_time)
            case pb.BatchDetectPosesResponse():
                self.pictures = sum(one.HasField("response") for one in answer.responses)
                self.succeeded = self.pictures > 0
            case pb.DetectPosesResponse() | pb.MeasureAnglesResponse():
                self.pictures = 1
                self.succeeded = True
            case _:
                self.succeeded = True

    def _video_ms(self) -> int:
        """Milliseconds from the first frame to the end of the last one."""
        return 0 if self._first_s is None else round((self._last_s - self._first_s + self._frame_s) * 1e3)

    def _frame(self, time: duration_pb2.Duration) -> None:
        seconds = time.seconds + time.nanos * 1e-9
        self.succeeded = True
        self._first_s = seconds if self._first_s is None else self._first_s
        self._last_s = max(self._last_s, seconds)


def presented_key(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The key in a call's metadata: of `authorization: Bearer KEY`, else of `x-api-key: KEY`."""
    other = None
    for name, value in metadata:
        if not isinstance(value, str):
            continue
        if name == "authorization":
            scheme, _, key = value.strip().partition(" ")
            if scheme.lower() == "bearer" and key.strip():
                return key.strip()
        elif name == "x-api-key" and other is None:
            other = value.strip()
    return other


def _rpc(method: str) -> str:
    return method.rpartition("/")[2]


def _headers(standing: Standing) -> tuple[tuple[str, str], ...]:
    """As in the IETF's draft of RateLimit header fields: limit, what is left, seconds until the reset."""
    seconds = max(0, round((standing.reset_time - datetime.now(UTC)).total_seconds()))
    limit, remaining = standing.limit, standing.remaining
    return (
        ("ratelimit-limit", "unlimited" if limit is None else str(limit)),
        ("ratelimit-remaining", "unlimited" if remaining is None else str(remaining)),
        ("ratelimit-reset", str(seconds)),
    )
