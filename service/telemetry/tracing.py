"""OpenTelemetry traces: from the caller's context through the gateway to Triton, exported by OTLP over gRPC.

Off unless the environment names a collector; then nothing of OpenTelemetry is even imported. The
environment variables are OpenTelemetry's own, OTEL_*.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
import structlog
from typing_extensions import override

from service.telemetry.call_context import CallSpan, Stage

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_log = structlog.get_logger()

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_FLUSH_S = 3.0
_GIVE_UP_S = 1.0
_COMPLAINT_EVERY_S = 60.0

_CHILDREN = 64  # spans below that of one call; the pictures of a batch could have thousands
_LEAST_S = 0.0001  # a stage that takes less has no span

# Codes that are the service's fault, by the semantic conventions for gRPC servers.
_OURS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")


class BadTracing(Exception):
    """The environment asks for traces that cannot be exported; the text says what to change."""


class Tracing:
    """Makes spans. This one makes none."""

    def call(
        self,
        method: str,
        metadata: Sequence[tuple[str, str | bytes]],
        request_id: str,
        *,
        streaming: bool = False,
    ) -> CallSpan:
        """Begin the span of a call.

        Args:
            method: "/package.Service/Method".
            metadata: the caller's; may hold his own context.
            request_id: of the call.
            streaming: it may have more pictures than a trace can hold: they get no spans, and Triton, which
                would make some for every inference that carries a context, gets none.
        """
        return CallSpan()

    def close(self) -> None:
        """Export what is left, in a bounded time."""


def from_environment(environ: Mapping[str, str] = os.environ) -> Tracing:
    """Traces as OTEL_* ask for them.

    Raises:
        BadTracing: they ask for what is not supported.
    """
    endpoint = next((environ[name] for name in _ENDPOINTS if environ.get(name)), "")
    exporters = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if not endpoint or exporters == "none" or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Tracing()
    if exporters != "otlp":
        raise BadTracing(f"OTEL_TRACES_EXPORTER is {exporters!r}: only otlp and none are supported")
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "grpc")
    if protocol != "grpc":
        raise BadTracing(f"the OTLP protocol is {protocol!r}: only grpc is supported")
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    _quieten()
    try:
        exporter = OTLPSpanExporter()
        tracing = OtlpTracing(exporter, BatchSpanProcessor(exporter))
    except (ValueError, RuntimeError) as error:
        raise BadTracing(f"a variable of OTEL_* cannot be used: {error}") from error
    where = urlsplit(endpoint)
    _log.info("traces_on", endpoint=where.netloc.rpartition("@")[2] or endpoint)
    return tracing


class OtlpTracing(Tracing):
    """Makes spans with OpenTelemetry. What the collector does not take in time is dropped: no call waits.

    Args:
        exporter: where they go.
        processor: brings them there, in a thread of its own.
    """

    def __init__(self, exporter: SpanExporter, processor: BatchSpanProcessor) -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._exporter, self._processor = exporter, processor
        resource = Resource.create({SERVICE_VERSION: version("posegate")})
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "posegate"}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("posegate")
        self._propagator = TraceContextTextMapPropagator()

    @override
    def call(
        self,
        method: str,
        metadata: Sequence[tuple[str, str | bytes]],
        request_id: str,
        *,
        streaming: bool = False,
    ) -> CallSpan:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind

        carried = {key: value for key, value in metadata if isinstance(value, str)}
        service, _, name = method.strip("/").partition("/")
        span = self._tracer.start_span(
            method.strip("/"),
            self._propagator.extract(carried, Context()),
            SpanKind.SERVER,
            {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": name,
                "posegate.request_id": request_id,
            },
        )
        return _OtlpCallSpan(self._tracer, self._propagator, span, children=0 if streaming else _CHILDREN)

    @override
    def close(self) -> None:
        ending = threading.Thread(target=self._processor.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(_FLUSH_S)
        if ending.is_alive():
            _log.warning("traces_lost", why=f"the collector did not take the last ones in {_FLUSH_S:g} s")
            self._exporter.shutdown()  # ends what the thread waits for
            ending.join(_GIVE_UP_S)


class _OtlpCallSpan(CallSpan):
    def __init__(
        self, tracer: Tracer, propagator: TraceContextTextMapPropagator, span: Span, *, children: int
    ) -> None:
        from opentelemetry.trace import format_trace_id, set_span_in_context

        self._tracer = tracer
        self._propagator = propagator
        self._span = span
        self._context = set_span_in_context(span)
        # Of a call that is not sampled nothing is kept. Triton would keep it, whatever the context says.
        self._children = children if span.is_recording() else 0
        self.trace_id = format_trace_id(span.get_span_context().trace_id)

    @override
    def stage(self, stage: Stage, started: float, ended: float) -> None:
        # Calls to Triton have spans of their own, one for each.
        if stage != "inference" and ended - started >= _LEAST_S and self._another():
            span = self._tracer.start_span(stage, self._context, start_time=_epoch_ns(started))
            span.end(_epoch_ns(ended))

    @override
    @contextmanager
    def inference(self, model: str, model_version: str) -> Iterator[dict[str, str] | None]:
        if not self._another():
            yield None
            return
        from opentelemetry.trace import SpanKind, set_span_in_context

        span = self._tracer.start_span(
            "inference",
            self._context,
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
        self._propagator.inject(carrier, set_span_in_context(span))
        try:
            yield carrier
        except BaseException as error:
            _failed(span, getattr(error, "reason", "") or type(error).__name__, error)
            raise
        finally:
            span.end()

    @override
    def end(self, code: str, reason: str, error: BaseException | None, facts: Mapping[str, Any]) -> None:
        self._span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[code].value[0])
        for name, value in facts.items():
            self._span.set_attribute(f"posegate.{name}", value)
        if code in _OURS:
            _failed(self._span, reason or code, error)
        elif code != "OK":
            self._span.set_attribute("error.type", reason or code)
        self._span.end()

    def _another(self) -> bool:
        self._children -= 1
        return self._children >= 0


def _failed(span: Span, kind: str, error: BaseException | None) -> None:
    """Mark a span by the kind of the error: its text may quote what the caller sent."""
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)
    if error is not None:
        span.add_event("exception", {"exception.type": type(error).__name__})


def _epoch_ns(moment: float) -> int:
    """A time of time.perf_counter(), as nanoseconds since 1970."""
    return time.time_ns() - int((time.perf_counter() - moment) * 1e9)


def _quieten() -> None:
    """A collector that is away is told of once a minute, as a log line like all others."""
    logger = logging.getLogger("opentelemetry")
    logger.handlers = [_Complaints()]
    logger.propagate = False


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next_s = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now >= self._next_s:
            self._next_s = now + _COMPLAINT_EVERY_S
            _log.warning("traces_not_exported", why=record.getMessage().partition("\n")[0])
