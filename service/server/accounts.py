"""Holds calls to their account: key, rate, places, quota, usage.

It stands between `RequestInterceptor`, which turns its refusals into statuses and log lines, and
`AdmissionInterceptor`: a tenant that is at its own limits takes no place from the others. Health and
reflection need no key.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import grpc
import structlog
from google.protobuf import duration_pb2

from posegate.v1 import pose_service_pb2 as pb
from service.accounts.gate import Account, AccountGate, key_ended
from service.accounts.quotas import Charge, Standing
from service.accounts.usage import COUNTED_RPCS
from service.errors import PosegateError
from service.server.handlers import Context, Continuation, Handler, Stream, Unary, is_ours, wrap
from service.server.open_streams import OpenStreams
from service.telemetry.call_context import Observer, current


class AccountInterceptor(grpc.aio.ServerInterceptor):
    """Asks every call of our own services for its key, and holds it to the plan.

    Args:
        gate: the use case.
        observer: counts every call by plan.
        check_answer: raises where an answer cannot be sent: it must not count.
    """

    def __init__(
        self,
        gate: AccountGate,
        observer: Observer | None = None,
        check_answer: Callable[[object], None] = lambda answer: None,
    ) -> None:
        self._gate = gate
        self._observer = observer or Observer()
        self._check_answer = check_answer
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
        return wrap(handler, partial(self._unary, details), partial(self._stream, details))

    def _unary(self, details: grpc.HandlerCallDetails, inner: Unary) -> Unary:
        rpc = _rpc(details)

        async def call(request: Any, context: Context) -> Any:
            account = await self._accept(details, context)
            with self._counted(account, rpc) as usage, self._gate.admitted(account, streaming=False):
                charge = await self._reserve(account, rpc, request)
                try:
                    answer = await inner(request, context)
                    self._check_answer(answer)
                    usage.answered(answer)
                finally:
                    spent = min(charge.units, usage.pictures) if charge.units > 1 else int(usage.succeeded)
                    standing = charge.settle(spent)
                if rpc in COUNTED_RPCS:
                    context.set_trailing_metadata(_headers(standing))
                return answer

        return call

    def _stream(self, details: grpc.HandlerCallDetails, inner: Stream) -> Stream:
        rpc = _rpc(details)

        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            account = await self._accept(details, context)
            with self._counted(account, rpc) as usage, self._gate.admitted(account, streaming=True):
                charge = await self._reserve(account, rpc, request)
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

    async def _accept(self, details: grpc.HandlerCallDetails, context: Context) -> Account:
        account = await self._gate.authenticate(
            presented_key(details.invocation_metadata or ()), context.peer()
        )
        structlog.contextvars.bind_contextvars(tenant=account.tenant, key_id=account.key_id)
        call = current()
        call.tenant, call.plan = account.tenant, account.plan
        return account

    async def _reserve(self, account: Account, rpc: str, request: Any) -> Charge:
        if rpc not in COUNTED_RPCS:
            return Charge(1, Standing(None, None, datetime.now(UTC)))
        pictures = len(request.requests) if isinstance(request, pb.BatchDetectPosesRequest) else None
        return await self._gate.reserve(account, pictures=pictures)

    @contextmanager
    def _counted(self, account: Account, rpc: str) -> Iterator[_Usage]:
        """Count a call for invoices and metrics, however it ends."""
        usage = _Usage()
        outcome = "CANCELLED"
        try:
            yield usage
            outcome = "OK"
        except Exception as error:
            outcome = error.reason if isinstance(error, PosegateError) else "INTERNAL"
            raise
        finally:
            failures = int(outcome not in ("OK", "CANCELLED"))
            self._gate.usage.called(
                account.tenant,
                rpc,
                calls=int(usage.succeeded),
                failures=failures,
                pictures=usage.pictures,
                video_ms=usage.video_ms(),
            )
            self._observer.plan_call(account.plan.name, outcome)


@dataclass
class _Usage:
    """What a call gave its caller so far."""

    succeeded: bool = False
    pictures: int = 0
    first_s: float | None = None
    last_s: float = 0.0
    frame_s: float = 0.0

    def answered(self, answer: object) -> None:
        """Count one answer."""
        match answer:
            case pb.AnalyzeVideoResponse():
                if answer.HasField("frame"):
                    self._frame(answer.frame.time)
                elif answer.HasField("started") and answer.started.video.fps > 0:
                    self.frame_s = 1 / answer.started.video.fps
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

    def video_ms(self) -> int:
        """Milliseconds from the first frame to the end of the last one."""
        return 0 if self.first_s is None else round((self.last_s - self.first_s + self.frame_s) * 1e3)

    def _frame(self, time: duration_pb2.Duration) -> None:
        seconds = time.seconds + time.nanos * 1e-9
        self.succeeded = True
        self.first_s = seconds if self.first_s is None else self.first_s
        self.last_s = max(self.last_s, seconds)


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


def _rpc(details: grpc.HandlerCallDetails) -> str:
    method: str = details.method
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
