"""Spans of one call, by OpenTelemetry's API: it does nothing while no SDK is behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import grpc
from opentelemetry.trace import (
    INVALID_SPAN,
    NoOpTracer,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Stage = Literal["decode", "preprocess", "queue", "inference", "postprocess", "draw"]

PROPAGATOR = TraceContextTextMapPropagator()

_LEAST_S = 0.0001  # a stage that takes less has no span

# Codes that are the service's fault, by the semantic conventions for gRPC servers.
_OURS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")


class CallSpan:
    """The span of one call and those below it.

    Args:
        span: of the call.
        tracer: makes the spans below it.
        children: as many spans below it at most.

    Attributes:
        trace_id: 32 hexadecimal digits; empty without a trace.
    """

    def __init__(self, span: Span = INVALID_SPAN, tracer: Tracer | None = None, *, children: int = 0) -> None:
        self._span = span
        self._tracer = tracer or NoOpTracer()
        # Nothing is kept of a call that is not sampled; Triton would keep it, whatever the context says.
        self._children = children if span.is_recording() else 0
        context = span.get_span_context()
        self.trace_id = format_trace_id(context.trace_id) if context.is_valid else ""

    def stage(self, stage: Stage, started: float, ended: float) -> None:
        """Record a stage of an image; the times are time.perf_counter()'s."""
        # Calls to Triton have spans of their own, one for each.
        if stage != "inference" and ended - started >= _LEAST_S and self._another():
            context = set_span_in_context(self._span)
            span = self._tracer.start_span(stage, context, start_time=_epoch_ns(started))
            span.end(_epoch_ns(ended))

    @contextmanager
    def inference(self, model: str, model_version: str) -> Iterator[dict[str, str] | None]:
        """The span of a call to Triton, for the time of the block; gives the metadata that carries the trace
        on, None where it is not carried on."""
        if not self._another():
            yield None
            return
        span = self._tracer.start_span(
            "inference",
            set_span_in_context(self._span),
            SpanKind.CLIENT,
            {
                "rpc.system": "grpc",
                "rpc.service": "inference.GRPCInferenceService",
                "rpc.method": "ModelInfer",
                "posegate.model": model,
                "posegate.model_version": model_version,
            },
        )
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier, set_span_in_context(span))
        try:
            yield carrier
        except BaseException as error:
            _failed(span, getattr(error, "reason", "") or type(error).__name__, error)
            raise
        finally:
            span.end()

    def end(self, code: str, reason: str, error: BaseException | None, facts: Mapping[str, Any]) -> None:
        """End the span of the call.

        Args:
            code: canonical code, such as OK.
            reason: of the error; empty without one.
            error: that was raised; its text is not recorded.
            facts: attributes, as in the log line.
        """
        if not self._span.is_recording():
            return
        self._span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[code].value[0])
        for name, value in facts.items():
            self._span.set_attribute(f"posegate.{name}", value)
        if code in _OURS:
            _failed(self._span, reason or code, error)
        elif code != "OK":
            self._span.set_attribute("error.type", reason or code)
        self._span.end()

    def _another(self) -> bool:
        if self._children <= 0:
            return False
        self._children -= 1
        return True


def _failed(span: Span, kind: str, error: BaseException | None) -> None:
    """Mark a span by the kind of the error: its text may quote what the caller sent."""
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)
    if error is not None:
        span.add_event("exception", {"exception.type": type(error).__name__})


def _epoch_ns(moment: float) -> int:
    """A time of time.perf_counter(), as nanoseconds since 1970."""
    return time.time_ns() - int((time.perf_counter() - moment) * 1e9)
