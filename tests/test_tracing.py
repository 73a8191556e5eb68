"""Traces as a collector gets them: a real one, as far as OTLP over gRPC goes, in this process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.trace import TracerProvider
from structlog.testing import capture_logs

from posegate.v1 import pose_service_pb2 as pb
from service.tracing import BadTracing, OtlpTracing, Tracing, from_environment
from tests.fakes import FakeTriton, candidate, rows
from tests.media.clips import clip
from tests.pictures import jpeg
from tests.running import detect_request, failure
from tests.test_server import up

VGA = jpeg((640, 480))
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FROM_CALLER = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"), ("x-request-id", "mine"))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POSEGATE_DATABASE_URL", f"sqlite:///{tmp_path}/posegate.db")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "poses-here")


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what is exported to it."""

    requests: list[trace_service_pb2.ExportTraceServiceRequest] = field(default_factory=list)

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[trace_pb2.Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> trace_pb2.Span:
        (found,) = [span for span in self.spans if span.name == name]
        return found


@asynccontextmanager
async def collecting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A collector, and an environment that names it."""
    collector = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    try:
        yield collector
    finally:
        await server.stop(None)


def attributes(span: trace_pb2.Span) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value") or "") for item in span.attributes}


async def test_a_call_goes_on_with_its_callers_trace_and_triton_with_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    triton = FakeTriton(answer=rows(candidate((100, 50, 200, 350), 0.9)))
    async with collecting(monkeypatch) as collector:
        with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            async with up(triton) as caller:
                warm = len(triton.metadata)
                await caller.stub.DetectPoses(detect_request(VGA), timeout=10, metadata=FROM_CALLER)
                to_triton = triton.metadata[warm]["traceparent"]
        call = collector.named("posegate.v1.PoseService/DetectPoses")
        prepare, estimate = collector.named("prepare"), collector.named("estimate")
    assert call.trace_id.hex() == TRACE_ID
    assert call.parent_span_id.hex() == PARENT_ID
    assert call.kind == trace_pb2.Span.SPAN_KIND_SERVER
    assert attributes(call) == {
        "rpc.system": "grpc",
        "rpc.service": "posegate.v1.PoseService",
        "rpc.method": "DetectPoses",
        "rpc.grpc.status_code": 0,
        "posegate.request_id": "mine",
    }
    assert prepare.parent_span_id == call.span_id
    assert attributes(estimate) == {"posegate.model": "yolo11n_pose"}
    assert to_triton == f"00-{TRACE_ID}-{estimate.span_id.hex()}-01"
    (line,) = [line for line in lines if line["event"] == "call"]
    assert line["trace_id"] == TRACE_ID


async def test_the_service_is_named_and_no_picture_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting(monkeypatch) as collector:
        async with up(FakeTriton()) as caller:
            await caller.stub.DetectPoses(detect_request(VGA), timeout=10)
        (resource,) = {
            item.value.string_value
            for request in collector.requests
            for one in request.resource_spans
            for item in one.resource.attributes
            if item.key == "service.name"
        }
        exported = b"".join(request.SerializeToString() for request in collector.requests)
    assert resource == "poses-here"
    assert VGA[200:264] not in exported
    assert len(exported) < len(VGA)


@pytest.mark.parametrize(
    ("request_", "code", "reason", "ours"),
    [
        (detect_request(b"no picture"), grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", False),
        (detect_request(VGA), grpc.StatusCode.UNAVAILABLE, "TRITON_UNAVAILABLE", True),
    ],
)
async def test_a_failure_is_told_by_code_and_reason(
    monkeypatch: pytest.MonkeyPatch,
    request_: pb.DetectPosesRequest,
    code: grpc.StatusCode,
    reason: str,
    ours: bool,
) -> None:
    triton = FakeTriton()
    async with collecting(monkeypatch) as collector:
        async with up(triton) as caller:
            triton.script = [(grpc.StatusCode.UNAVAILABLE, "gone")]
            await failure(caller.stub.DetectPoses(request_, timeout=10))
        call = collector.named("posegate.v1.PoseService/DetectPoses")
    assert attributes(call)["rpc.grpc.status_code"] == code.value[0]
    assert attributes(call)["error.type"] == reason
    assert (call.status.code == trace_pb2.Status.STATUS_CODE_ERROR) == ours


async def test_a_video_is_one_span_however_many_frames_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    async def requests() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())
        yield pb.AnalyzeVideoRequest(chunk=clip(count=12))

    triton = FakeTriton()
    async with collecting(monkeypatch) as collector:
        async with up(triton) as caller:
            warm = len(triton.metadata)
            async for _ in caller.stub.AnalyzeVideo(requests(), timeout=30, metadata=FROM_CALLER):
                pass
            parents = {metadata["traceparent"] for metadata in triton.metadata[warm:]}
        spans = [span for span in collector.spans if span.trace_id.hex() == TRACE_ID]
    assert [span.name for span in spans] == ["posegate.v1.PoseService/AnalyzeVideo"]
    assert parents == {f"00-{TRACE_ID}-{spans[0].span_id.hex()}-01"}


async def test_calls_at_once_have_traces_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"{number:032x}" for number in range(1, 9)]
    async with collecting(monkeypatch) as collector:
        async with up(FakeTriton()) as caller:
            await asyncio.gather(
                *(
                    caller.stub.DetectPoses(
                        detect_request(VGA),
                        timeout=10,
                        metadata=(("traceparent", f"00-{one}-{PARENT_ID}-01"),),
                    )
                    for one in ids
                )
            )
        by_trace = {one: [s.name for s in collector.spans if s.trace_id.hex() == one] for one in ids}
    names = ["estimate", "posegate.v1.PoseService/DetectPoses", "prepare"]
    assert all(sorted(found) == names for found in by_trace.values())


async def test_a_collector_that_is_away_harms_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with capture_logs() as lines:
            async with up(FakeTriton()) as caller:
                for _ in range(3):
                    await caller.stub.DetectPoses(detect_request(VGA), timeout=10)
                    await asyncio.sleep(0.1)
    assert sum(line["event"] == "traces_not_exported" for line in lines) <= 1


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_traces_are_off_unless_asked_for(environ: dict[str, str]) -> None:
    tracing = from_environment(environ)
    assert type(tracing) is Tracing
    assert tracing.headers() is None


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http/protobuf"),
    ],
)
def test_what_is_not_supported_is_refused(more: dict[str, str], named: str) -> None:
    with pytest.raises(BadTracing, match=named):
        from_environment({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317", **more})


def test_the_end_of_a_collector_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(TracerProvider):
        def shutdown(self) -> None:
            done.wait(30)

    done = threading.Event()
    monkeypatch.setattr("service.tracing._FLUSH_S", 0.05)
    OtlpTracing(Hanging(shutdown_on_exit=False)).close()
    done.set()
