"""OpenTelemetry traces: from the caller's context through the gateway to Triton, exported by OTLP over gRPC.

Off unless the environment names a collector: the spans of OpenTelemetry's API then do nothing, and neither
its SDK nor the exporter is imported. The environment variables are OpenTelemetry's own, OTEL_*.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Tracer
from typing_extensions import override

from service.telemetry.spans import PROPAGATOR, CallSpan

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

_log = structlog.get_logger()

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_FLUSH_S = 3.0
_GIVE_UP_S = 1.0
_COMPLAINT_EVERY_S = 60.0

_CHILDREN = 64  # spans below that of one call; the images of a batch could have thousands


class BadTracing(Exception):
    """The environment asks for traces that cannot be exported; the text says what to change."""


class Tracing:
    """Makes the spans of calls.

    Args:
        tracer: OpenTelemetry's; None while traces are off.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer

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
            metadata: the caller's; may hold the context of a trace.
            request_id: of the call.
            streaming: the call may have more images than a trace can hold: they get no spans, and Triton,
                which would make some for every inference that carries a context, gets none.
        """
        if self._tracer is None:
            return _NO_SPAN
        carried = {key: value for key, value in metadata if isinstance(value, str)}
        service, _, name = method.strip("/").partition("/")
        span = self._tracer.start_span(
            method.strip("/"),
            PROPAGATOR.extract(carried, Context()),
            SpanKind.SERVER,
            {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": name,
                "posegate.request_id": request_id,
            },
        )
        return CallSpan(span, self._tracer, children=0 if streaming else _CHILDREN)

    def close(self) -> None:
        """Export the last spans, in a bounded time."""


_NO_SPAN = CallSpan()


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
    """Makes spans with OpenTelemetry's SDK. A call never waits for the collector: spans that it does not take
    in time are dropped.

    Args:
        exporter: sends spans to the collector.
        processor: hands them to the exporter, in a thread of its own.
    """

    def __init__(self, exporter: SpanExporter, processor: BatchSpanProcessor) -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider

        self._exporter, self._processor = exporter, processor
        resource = Resource.create({SERVICE_VERSION: version("posegate")})
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "posegate"}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(processor)
        super().__init__(provider.get_tracer("posegate"))

    @override
    def close(self) -> None:
        ending = threading.Thread(target=self._processor.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(_FLUSH_S)
        if ending.is_alive():
            _log.warning("traces_lost", why=f"the collector did not take the last ones in {_FLUSH_S:g} s")
            self._exporter.shutdown()  # ends what the thread waits for
            ending.join(_GIVE_UP_S)


def _quieten() -> None:
    """A collector that cannot be reached is logged once a minute, in the format of all other log lines."""
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
