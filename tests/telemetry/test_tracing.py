"""Traces as a collector gets them: a real one, as far as OTLP over gRPC goes, in this process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
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
from structlog.testing import capture_logs

from posegate.v1 import pose_service_pb2 as pb
from scripts.ports import free_address
from service.telemetry.tracing import BadTracing, Tracing, from_environment
from tests.fakes import FakeTriton, candidate, rows
from tests.media.clips import clip
from tests.pictures import jpeg
from tests.running import detect_request, failure, running
from tests.server.test_app import up

VGA = jpeg((640, 480))
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLOCKS_NS = 50_000_000  # stages are timed by another clock than spans
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
                await caller.stub.DetectPoses(detect_request(VGA), timeout=60, metadata=FROM_CALLER)
                to_triton = triton.metadata[warm]["traceparent"]
        call = collector.named("posegate.v1.PoseService/DetectPoses")
        stages = {span.name: span for span in collector.spans if span.parent_span_id == call.span_id}
    assert call.trace_id.hex() == TRACE_ID
    assert call.parent_span_id.hex() == PARENT_ID
    assert call.kind == trace_pb2.Span.SPAN_KIND_SERVER
    told = attributes(call)
    stage_ms = {name for name in told if name.endswith("_ms")}
    assert stage_ms >= {"posegate.decode_ms", "posegate.inference_ms"}
    assert {name: value for name, value in told.items() if name not in stage_ms} == {
        "rpc.system": "grpc",
        "rpc.service": "posegate.v1.PoseService",
        "rpc.method": "DetectPoses",
        "rpc.grpc.status_code": 0,
        "posegate.request_id": "mine",
        "posegate.model": "yolo11n_pose",
        "posegate.width": 640,
        "posegate.height": 480,
        "posegate.persons": 1,
    }
    assert stages.keys() >= {"decode", "inference"}
    inference = stages["inference"]
    assert inference.kind == trace_pb2.Span.SPAN_KIND_CLIENT
    assert attributes(inference) == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "posegate.model": "yolo11n_pose",
        "posegate.model_version": "1",
    }
    assert to_triton == f"00-{TRACE_ID}-{inference.span_id.hex()}-01"
    for stage in stages.values():
        begun = call.start_time_unix_nano - CLOCKS_NS
        assert begun <= stage.start_time_unix_nano <= stage.end_time_unix_nano
        assert stage.end_time_unix_nano <= call.end_time_unix_nano + CLOCKS_NS
    assert stages["decode"].end_time_unix_nano <= inference.start_time_unix_nano + CLOCKS_NS
    (line,) = [line for line in lines if line["event"] == "call"]
    assert line["trace_id"] == TRACE_ID


async def test_the_service_is_named_and_no_picture_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting(monkeypatch) as collector:
        async with up(FakeTriton()) as caller:
            await caller.stub.DetectPoses(detect_request(VGA), timeout=60)
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
    impatient: None,
    request_: pb.DetectPosesRequest,
    code: grpc.StatusCode,
    reason: str,
    ours: bool,
) -> None:
    triton = FakeTriton()
    async with collecting(monkeypatch) as collector:
        async with up(triton) as caller:
            triton.script = [(grpc.StatusCode.UNAVAILABLE, "gone")] * 100  # it stays away
            await failure(caller.stub.DetectPoses(request_, timeout=60))
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
            to_triton = [metadata.get("traceparent") for metadata in triton.metadata[warm:]]
        spans = [span for span in collector.spans if span.trace_id.hex() == TRACE_ID]
    assert [span.name for span in spans] == ["posegate.v1.PoseService/AnalyzeVideo"]
    assert attributes(spans[0])["posegate.frames"] == 12
    assert attributes(spans[0])["posegate.inference_ms"] > 0
    assert to_triton == [None] * 12  # it would trace every one


async def test_calls_at_once_have_traces_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"{number:032x}" for number in range(1, 9)]
    async with collecting(monkeypatch) as collector:
        async with up(FakeTriton()) as caller:
            await asyncio.gather(
                *(
                    caller.stub.DetectPoses(
                        detect_request(VGA),
                        timeout=60,
                        metadata=(("traceparent", f"00-{one}-{PARENT_ID}-01"),),
                    )
                    for one in ids
                )
            )
        by_trace = {one: [s.name for s in collector.spans if s.trace_id.hex() == one] for one in ids}
    for found in by_trace.values():
        assert found.count("posegate.v1.PoseService/DetectPoses") == 1
        assert found.count("decode") == found.count("inference") == 1


async def test_a_collector_that_is_away_harms_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{free_address()}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with capture_logs() as lines:
        async with up(FakeTriton()) as caller:
            for _ in range(3):
                await caller.stub.DetectPoses(detect_request(VGA), timeout=60)
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
    span = tracing.call("/posegate.v1.PoseService/DetectPoses", FROM_CALLER, "mine")
    assert span.trace_id == ""
    with span.inference("yolo11n_pose", "1") as headers:
        assert headers is None


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "soon"),
    ],
)
def test_what_is_not_supported_is_refused(
    more: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in more.items():  # the SDK reads the process's own
        monkeypatch.setenv(name, value)
    with pytest.raises(BadTracing, match=named):
        from_environment({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317", **more})


async def test_the_end_of_a_collector_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.telemetry.tracing._FLUSH_S", 0.2)
    go_on = asyncio.Event()

    async def hang(self: Collector, request: Any, context: Any) -> Any:
        await go_on.wait()

    monkeypatch.setattr(Collector, "Export", hang)
    async with collecting(monkeypatch):
        with capture_logs() as lines:
            async with up(FakeTriton()) as caller:
                await caller.stub.DetectPoses(detect_request(VGA), timeout=60)
                before = {thread for thread in threading.enumerate() if "SpanRecord" in thread.name}
        assert before
        for thread in before:  # nothing is left behind, although its answer never comes
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive()
        go_on.set()
    assert "traces_lost" in {line["event"] for line in lines}


async def test_a_call_that_is_not_sampled_is_kept_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    triton = FakeTriton()
    unsampled = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-00"),)
    async with collecting(monkeypatch) as collector:
        with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            async with up(triton) as caller:
                warm = len(triton.metadata)
                await caller.stub.DetectPoses(detect_request(VGA), timeout=60, metadata=unsampled)
                to_triton = [metadata.get("traceparent") for metadata in triton.metadata[warm:]]
        assert collector.spans == []
    assert to_triton == [None]  # it would trace what carries a context, sampled or not
    assert [line["trace_id"] for line in lines if line["event"] == "call"] == [TRACE_ID]


async def test_the_sampler_of_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with collecting(monkeypatch) as collector:
        async with up(FakeTriton()) as caller:
            await caller.stub.DetectPoses(detect_request(VGA), timeout=60, metadata=FROM_CALLER)
        assert collector.requests == []


async def test_a_batch_does_not_fill_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pb.BatchDetectPosesRequest(requests=[detect_request(VGA)] * 32)
    async with collecting(monkeypatch) as collector:
        async with up(FakeTriton()) as caller:
            await caller.stub.BatchDetectPoses(batch, timeout=30)
        assert 32 < len(collector.spans) <= 65


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "posegate"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=theirs"}, "theirs"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=theirs", "OTEL_SERVICE_NAME": "mine"}, "mine"),
    ],
)
async def test_the_service_has_the_name_that_the_environment_gives(
    environ: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME")
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    async with collecting(monkeypatch) as collector:
        async with up(FakeTriton()) as caller:
            await caller.stub.ListModels(pb.ListModelsRequest(), timeout=60)
        (request,) = collector.requests
    resource = request.resource_spans[0].resource
    told = {item.key: item.value.string_value for item in resource.attributes}
    assert told["service.name"] == name
    assert told["service.version"]


async def test_an_internal_error_is_told_by_its_kind_and_never_by_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    triton = FakeTriton()
    async with collecting(monkeypatch) as collector:
        async with up(triton) as caller:
            triton.script = [(grpc.StatusCode.INTERNAL, "the secret of Triton")]
            await failure(caller.stub.DetectPoses(detect_request(VGA), timeout=60))
        call, inference = collector.named("posegate.v1.PoseService/DetectPoses"), collector.named("inference")
        exported = b"".join(request.SerializeToString() for request in collector.requests)
    for span in (call, inference):
        assert span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
        (event,) = span.events
        assert {item.key: item.value.string_value for item in event.attributes} == {
            "exception.type": "TritonError"
        }
    assert b"secret" not in exported


def test_while_traces_are_off_neither_the_sdk_nor_the_exporter_is_imported() -> None:
    code = (
        "import sys, service.server.app; off = ('opentelemetry.sdk', 'opentelemetry.exporter'); "
        "sys.exit(any(name.startswith(off) for name in sys.modules))"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=300)


async def test_the_line_of_a_call_that_is_refused_before_reading_has_its_trace_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with collecting(monkeypatch), running(max_in_flight=1) as service:
        service.triton.gate.clear()
        task = asyncio.create_task(service.detect(VGA))
        await service.triton.entered.wait()
        with capture_logs() as lines:
            await failure(service.poses.DetectPoses(detect_request(VGA), timeout=60, metadata=FROM_CALLER))
        service.triton.gate.set()
        await task
    (line,) = [line for line in lines if line["event"] == "call"]
    assert (line["reason"], line["trace_id"]) == ("TOO_MANY_IN_FLIGHT", TRACE_ID)
