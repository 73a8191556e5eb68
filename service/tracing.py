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
from typing import TYPE_CHECKING

import structlog
from typing_extensions import override

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_log = structlog.get_logger()

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_FLUSH_S = 3.0
_COMPLAINT_EVERY_S = 60.0

# Codes that are the service's fault, by the semantic conventions for gRPC servers, with their numbers.
_OURS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")


class BadTracing(Exception):
    """The environment asks for traces that cannot be exported; the text says what to change."""


class CallSpan:
    """One call as a trace sees it. This one keeps nothing."""

    trace_id = ""

    def end(self, code: str, number: int, reason: str) -> None:
        """The call is over, with that canonical code (and its number) and reason."""


class Tracing:
    """Makes spans. This one makes none."""

    def call(self, method: str, metadata: Sequence[tuple[str, str | bytes]], request_id: str) -> CallSpan:
        """Begin the span of a call, in the task that answers it: all that the task does is inside it.

        Args:
            method: "/package.Service/Method".
            metadata: the caller's; may hold his own context.
            request_id: of the call.
        """
        return CallSpan()

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, str | int]) -> Iterator[None]:
        """A stage of a call, for the time of the block."""
        yield

    def headers(self) -> dict[str, str] | None:
        """What carries the present context to another service; None without one."""
        return None

    def close(self) -> None:
        """Export what is left, in a bounded time."""


def from_environment(environ: Mapping[str, str] = os.environ) -> Tracing:
    """Traces as OTEL_* ask for them.

    Raises:
        BadTracing: they ask for what is not supported.
    """
    endpoint = next((environ[name] for name in _ENDPOINTS if environ.get(name)), "")
    exporters = environ.get("OTEL_TRACES_EXPORTER", "otlp")
    if not endpoint or exporters == "none" or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Tracing()
    if exporters != "otlp":
        raise BadTracing(f"OTEL_TRACES_EXPORTER is {exporters!r}: only otlp and none are supported")
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "grpc")
    if protocol != "grpc":
        raise BadTracing(f"the OTLP protocol is {protocol!r}: only grpc is supported")
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    _quieten()
    named = {} if environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "posegate"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _log.info("traces_on", endpoint=endpoint)
    return OtlpTracing(provider)


class OtlpTracing(Tracing):
    """Makes spans with OpenTelemetry.

    Args:
        provider: what becomes of them; is shut down by `close`.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("posegate")
        self._propagator = TraceContextTextMapPropagator()

    @override
    def call(self, method: str, metadata: Sequence[tuple[str, str | bytes]], request_id: str) -> CallSpan:
        from opentelemetry import context, trace

        carried = {key: value for key, value in metadata if isinstance(value, str)}
        service, _, name = method.strip("/").partition("/")
        span = self._tracer.start_span(
            method.strip("/"),
            self._propagator.extract(carried),
            trace.SpanKind.SERVER,
            {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": name,
                "posegate.request_id": request_id,
            },
        )
        # Never detached: the context is that of the call's own task, and ends with it.
        context.attach(trace.set_span_in_context(span))
        return _OtlpCallSpan(span)

    @override
    @contextmanager
    def span(self, name: str, attributes: Mapping[str, str | int]) -> Iterator[None]:
        from opentelemetry import trace

        if not trace.get_current_span().get_span_context().is_valid:  # no call: the warm-up
            yield
            return
        with self._tracer.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except Exception as error:
                # The kind only: texts of errors may quote what the caller sent.
                span.set_attribute("error.type", getattr(error, "reason", "") or type(error).__name__)
                raise

    @override
    def headers(self) -> dict[str, str] | None:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier or None

    @override
    def close(self) -> None:
        # The exporter tries again for longer than a stopping service may wait.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_FLUSH_S)


class _OtlpCallSpan(CallSpan):
    def __init__(self, span: Span) -> None:
        from opentelemetry.trace import format_trace_id

        self._span = span
        self.trace_id = format_trace_id(span.get_span_context().trace_id)

    @override
    def end(self, code: str, number: int, reason: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("rpc.grpc.status_code", number)
        if reason:
            self._span.set_attribute("error.type", reason)
        if code in _OURS:
            self._span.set_status(StatusCode.ERROR, code)
        self._span.end()


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
