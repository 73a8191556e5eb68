"""Metrics as Prometheus scrapes them from the whole gateway."""

from __future__ import annotations

import ast
import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from posegate.v1 import account_service_pb2, skeleton_service_pb2, types_pb2
from posegate.v1 import pose_service_pb2 as pb
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from service.errors import REASONS
from service.server.app import CannotListen, build_gateway
from service.telemetry.call_context import STAGES
from service.telemetry.metrics import Metrics
from tests.fakes import FakeTriton, candidate, model_config, rows
from tests.media.clips import clip
from tests.pictures import jpeg
from tests.running import detect_request, failure
from tests.server.test_app import Running, settings_for, up

VGA = jpeg((640, 480))
LOOPBACK = "127.0.0.1:0"

METHODS = {
    method.name
    for file, name in (
        (pb.DESCRIPTOR, "PoseService"),
        (skeleton_service_pb2.DESCRIPTOR, "SkeletonService"),
        (account_service_pb2.DESCRIPTOR, "AccountService"),
    )
    for method in file.services_by_name[name].methods
}

# What rules, dashboards and autoscalers read: a change here is a change of the contract.
NAMES: dict[str, tuple[str, set[str]]] = {
    "posegate_requests": ("counter", {"rpc", "code", "reason"}),
    "posegate_request_seconds": ("histogram", {"rpc"}),
    "posegate_stage_seconds": ("histogram", {"stage"}),
    "posegate_in_flight": ("gauge", set()),
    "posegate_admitted": ("counter", set()),
    "posegate_shed": ("counter", {"reason"}),
    "posegate_request_bytes": ("counter", set()),
    "posegate_persons": ("histogram", set()),
    "posegate_streams": ("gauge", set()),
    "posegate_frames": ("counter", set()),
    "posegate_triton_up": ("gauge", set()),
    "posegate_model_ready": ("gauge", {"model"}),
    "posegate_build_info": ("gauge", {"version"}),
}

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def _database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POSEGATE_DATABASE_URL", f"sqlite:///{tmp_path}/posegate.db")


def scraped(port: int | None, host: str = "127.0.0.1") -> Samples:
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Seen:
    """The samples of one scrape."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples.get((name, frozenset(labels.items())), 0.0)


@asynccontextmanager
async def measured(triton: FakeTriton, **changes: object) -> AsyncIterator[Running]:
    async with up(triton, metrics_listen=LOOPBACK, **changes) as caller:
        yield caller


async def seen(caller: Running) -> Seen:
    return Seen(await asyncio.to_thread(scraped, caller.metrics_port))


async def test_a_call_is_counted_with_its_stages_people_and_bytes() -> None:
    triton = FakeTriton(answer=rows(candidate((100, 50, 200, 350), 0.9), candidate((300, 50, 400, 350), 0.8)))
    async with measured(triton) as caller:
        before = await seen(caller)
        request = detect_request(VGA, overlay=types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_JPEG))
        for _ in range(3):
            await caller.stub.DetectPoses(request, timeout=60)
        after = await seen(caller)
    assert after("posegate_requests_total", rpc="DetectPoses", code="OK", reason="") == 3
    assert after("posegate_request_seconds_count", rpc="DetectPoses") == 3
    assert after("posegate_request_seconds_sum", rpc="DetectPoses") > 0
    assert after("posegate_admitted_total") == 3
    assert after("posegate_request_bytes_total") == 3 * request.ByteSize()
    for stage in ("queue", "decode", "preprocess", "inference", "postprocess", "draw"):
        count = after("posegate_stage_seconds_count", stage=stage)
        assert count - before("posegate_stage_seconds_count", stage=stage) == 3, stage
    assert after("posegate_persons_sum") - before("posegate_persons_sum") == 6
    assert after("posegate_frames_total") == 0


async def test_an_error_is_counted_by_code_and_reason() -> None:
    async with measured(FakeTriton()) as caller:
        await failure(caller.stub.DetectPoses(detect_request(b"no picture"), timeout=60))
        await failure(caller.stub.DetectPoses(detect_request(VGA, model="nobody"), timeout=60))
        told = await seen(caller)
    rpc = "DetectPoses"
    assert told("posegate_requests_total", rpc=rpc, code="INVALID_ARGUMENT", reason="IMAGE_UNDECODABLE") == 1
    assert told("posegate_requests_total", rpc=rpc, code="NOT_FOUND", reason="MODEL_NOT_FOUND") == 1
    assert told("posegate_admitted_total") == 2


async def test_what_callers_write_never_becomes_a_label() -> None:
    async with measured(FakeTriton()) as caller:
        for number in range(20):
            wrong = detect_request(VGA, model=f"model-{number}", skeleton=f"skeleton-{number}")
            await failure(caller.stub.DetectPoses(wrong, timeout=60))
        unknown: Any = caller.channel.unary_unary("/posegate.v1.PoseService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError):
            await unknown(b"")
        told = await seen(caller)
    series = {labels for name, labels in told.samples if name == "posegate_requests_total"}
    assert {dict(labels)["reason"] for labels in series} == {"", "MODEL_NOT_FOUND"}
    assert {dict(labels)["rpc"] for labels in series} == METHODS


async def test_refused_calls_are_shed_and_not_admitted() -> None:
    triton = FakeTriton()
    async with measured(triton, max_in_flight=1) as caller:
        triton.gate.clear()
        triton.entered.clear()
        waiting = asyncio.create_task(detected(caller))
        await triton.entered.wait()
        during = await seen(caller)
        await failure(caller.stub.DetectPoses(detect_request(VGA), timeout=60))
        triton.gate.set()
        await waiting
        after = await seen(caller)
    assert during("posegate_in_flight") == 1
    assert after("posegate_in_flight") == 0
    assert after("posegate_shed_total", reason="TOO_MANY_IN_FLIGHT") == 1
    assert after("posegate_admitted_total") == 1


async def detected(caller: Running) -> None:
    await caller.stub.DetectPoses(detect_request(VGA), timeout=60)


async def test_a_call_that_is_cancelled_is_counted() -> None:
    triton = FakeTriton()
    async with measured(triton) as caller:
        triton.gate.clear()
        triton.entered.clear()
        call = caller.stub.DetectPoses(detect_request(VGA), timeout=60)
        waiting = asyncio.ensure_future(failure_of(call))
        await triton.entered.wait()
        call.cancel()
        await waiting
        labels = {"rpc": "DetectPoses", "code": "CANCELLED", "reason": ""}
        await until_seen(caller, "posegate_requests_total", 1, **labels)


async def failure_of(call: grpc.aio.UnaryUnaryCall[object, object]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_videos_count_frames_streams_and_bytes() -> None:
    triton = FakeTriton(answer=rows(candidate((10, 5, 20, 35), 0.9)))
    content = clip(count=12)

    async def requests() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())
        yield pb.AnalyzeVideoRequest(chunk=content)

    async with measured(triton) as caller:
        answers = caller.stub.AnalyzeVideo(requests(), timeout=30)
        streams = [(await seen(caller))("posegate_streams") async for _ in answers]
        after = await seen(caller)
    assert max(streams) == 1
    assert after("posegate_streams") == 0
    assert after("posegate_frames_total") == 12
    assert after("posegate_requests_total", rpc="AnalyzeVideo", code="OK", reason="") == 1
    assert after("posegate_request_bytes_total") > len(content)


async def test_a_stream_beyond_the_limit_is_shed() -> None:
    async def config() -> AsyncIterator[pb.StreamPosesRequest]:
        yield pb.StreamPosesRequest(config=pb.StreamConfig())
        await asyncio.sleep(60)

    async with measured(FakeTriton(), max_streams=1) as caller:
        first = caller.stub.StreamPoses(config(), timeout=30)
        await first.read()
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.stub.StreamPoses(config(), timeout=30).read()
        told = await seen(caller)
        first.cancel()
    assert told("posegate_shed_total", reason="TOO_MANY_STREAMS") == 1


@pytest.mark.parametrize("state", ["UNAVAILABLE", "FAILED"])
async def test_triton_and_each_of_its_models_are_told_of(state: str) -> None:
    triton = FakeTriton()
    triton.configs["broken"] = (model_config(name="broken"), state, "no engine")
    async with measured(triton) as caller:
        there = await seen(caller)
        triton.live = False
        await until_seen(caller, "posegate_triton_up", 0)
        away = await seen(caller)
    assert there("posegate_triton_up") == 1
    assert there("posegate_model_ready", model="yolo11n_pose") == 1
    assert ("posegate_model_ready", frozenset({("model", "broken")})) in there.samples
    assert there("posegate_model_ready", model="broken") == 0
    assert away("posegate_model_ready", model="yolo11n_pose") == 0


async def until_seen(caller: Running, name: str, value: float, **labels: str) -> None:
    async with asyncio.timeout(120):
        while (await seen(caller))(name, **labels) != value:  # noqa: ASYNC110 - it is another side's state
            await asyncio.sleep(0.01)


async def test_the_build_and_the_process_are_told_of() -> None:
    async with measured(FakeTriton()) as caller:
        info = await caller.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
        told = await seen(caller)
    assert told("posegate_build_info", version=info.version) == 1
    assert told("process_resident_memory_bytes") > 1e6


async def test_without_a_port_for_them_there_are_none() -> None:
    async with up(FakeTriton()) as caller:
        assert caller.metrics_port is None


async def test_the_port_is_closed_with_the_gateway() -> None:
    async with measured(FakeTriton()) as caller:
        port = caller.metrics_port
        assert await asyncio.to_thread(scraped, port)
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(scraped, port)


async def test_a_port_in_use_is_told_of() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotListen, match=address):
            async with build_gateway(settings_for(1, metrics_listen=address)):
                raise AssertionError("it listens")


def test_ipv6_is_served() -> None:
    port = Metrics("1", [], in_flight=lambda: 0, streams=lambda: 0).serve("[::1]:0")
    try:
        assert Seen(scraped(port.port, "[::1]"))("posegate_build_info", version="1") == 1
    finally:
        port.close()


async def test_a_picture_of_a_batch_counts_by_itself() -> None:
    async with measured(FakeTriton()) as caller:
        before = await seen(caller)
        batch = pb.BatchDetectPosesRequest(requests=[detect_request(VGA), detect_request(b"")])
        await caller.stub.BatchDetectPoses(batch, timeout=60)
        after = await seen(caller)
    assert after("posegate_persons_count") - before("posegate_persons_count") == 1
    assert after("posegate_requests_total", rpc="BatchDetectPoses", code="OK", reason="") == 1


async def test_names_types_and_labels_are_those_of_the_contract() -> None:
    async with measured(FakeTriton()) as caller:
        await caller.stub.DetectPoses(detect_request(VGA), timeout=60)
        text = await asyncio.to_thread(page, caller.metrics_port)
    families = {
        family.name: family
        for family in text_string_to_metric_families(text)
        if family.name.startswith("posegate_")
    }
    assert families.keys() == NAMES.keys()
    for name, (kind, labels) in NAMES.items():
        found = {label for sample in families[name].samples for label in sample.labels}
        assert (families[name].type, found - {"le"}) == (kind, labels), name


def page(port: int | None) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


async def test_calls_by_plan_are_there_from_the_start_where_there_are_accounts() -> None:
    metrics = Metrics("1", [], in_flight=lambda: 0, streams=lambda: 0)
    metrics.plan_call("free", "OK")  # without accounts nobody has a plan
    metrics.count_by_plan(["free", "pro"])
    for outcome in ("OK", "QUOTA_EXCEEDED", "what a caller wrote"):
        metrics.plan_call("free", outcome)
    port = await asyncio.to_thread(metrics.serve, LOOPBACK)
    try:
        text = await asyncio.to_thread(page, port.port)
    finally:
        await asyncio.to_thread(port.close)
    (family,) = [one for one in text_string_to_metric_families(text) if one.name == "posegate_plan_calls"]
    assert {(one.labels["plan"], one.labels["outcome"]): one.value for one in family.samples} == {
        ("free", "OK"): 1,
        ("free", "QUOTA_EXCEEDED"): 1,
        ("free", "OTHER"): 1,
        ("pro", "OK"): 0,
    }


async def test_the_warm_up_is_no_traffic() -> None:
    async with measured(FakeTriton()) as caller:
        told = await seen(caller)
    assert told("posegate_persons_count") == 0
    assert told("posegate_stage_seconds_count", stage="inference") == 0


@pytest.mark.usefixtures("impatient")
async def test_what_a_failed_picture_took_counts_too() -> None:
    triton = FakeTriton()
    async with measured(triton) as caller:
        triton.script = [(grpc.StatusCode.UNAVAILABLE, "gone")] * 100  # it stays away
        await failure(caller.stub.DetectPoses(detect_request(VGA), timeout=60))
        await failure(caller.stub.DetectPoses(detect_request(b"no picture"), timeout=60))
        told = await seen(caller)
    counts = {stage: told("posegate_stage_seconds_count", stage=stage) for stage in STAGES}
    assert {stage: count for stage, count in counts.items() if count} == {
        "queue": 2,
        "decode": 2,
        "preprocess": 1,
        "inference": 1,
    }
    assert told("posegate_persons_count") == 0


async def test_the_wait_of_a_call_that_gave_up_in_the_queue_counts() -> None:
    triton = FakeTriton()
    async with measured(triton, max_inferences=1) as caller:
        triton.gate.clear()
        triton.entered.clear()
        first = asyncio.create_task(detected(caller))
        await triton.entered.wait()
        late = await failure(caller.stub.DetectPoses(detect_request(VGA), timeout=3))
        triton.gate.set()
        await first
        labels = {"rpc": "DetectPoses", "code": "DEADLINE_EXCEEDED", "reason": "DEADLINE_EXCEEDED"}
        await until_seen(caller, "posegate_requests_total", 1, **labels)
        told = await seen(caller)
    assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert told("posegate_stage_seconds_sum", stage="queue") > 0.2


async def test_a_full_queue_at_triton_is_shed_also_for_one_picture_of_a_batch() -> None:
    full = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    triton = FakeTriton()
    async with measured(triton) as caller:
        triton.script = [full]
        await failure(caller.stub.DetectPoses(detect_request(VGA), timeout=60))
        triton.script = [full]
        batch = pb.BatchDetectPosesRequest(requests=[detect_request(VGA), detect_request(VGA)])
        await caller.stub.BatchDetectPoses(batch, timeout=60)
        told = await seen(caller)
    assert told("posegate_shed_total", reason="QUEUE_FULL") == 2
    assert told("posegate_admitted_total") == 2


async def test_a_stream_is_admitted_when_it_begins_and_not_when_it_ends() -> None:
    triton = FakeTriton(answer=rows(candidate((10, 5, 20, 35), 0.9), candidate((300, 5, 340, 35), 0.9)))

    async def requests() -> AsyncIterator[pb.StreamPosesRequest]:
        yield pb.StreamPosesRequest(config=pb.StreamConfig(frame_policy=pb.FRAME_POLICY_EVERY))
        for content in (VGA, b"no picture", VGA):
            yield pb.StreamPosesRequest(frame=pb.StreamFrame(encoded=content))
        await go_on.wait()

    go_on = asyncio.Event()
    async with measured(triton) as caller:
        answers = caller.stub.StreamPoses(requests(), timeout=30)
        for _ in range(4):
            await answers.read()
        during = await seen(caller)
        go_on.set()
        while await answers.read() is not grpc.aio.EOF:
            pass
    assert during("posegate_admitted_total") == 1
    assert during("posegate_streams") == 1
    assert during("posegate_frames_total") == 2  # the broken one is none
    assert during("posegate_persons_sum") == 4
    assert during("posegate_stage_seconds_count", stage="decode") == 3


async def test_rendering_counts_as_drawing() -> None:
    async with measured(FakeTriton()) as caller:
        canvas = skeleton_service_pb2.Canvas(size=types_pb2.ImageSize(width=64, height=48))
        request = skeleton_service_pb2.RenderPosesRequest(canvas=canvas, skeleton="coco_17")
        stub: Any = SkeletonServiceStub(caller.channel)
        await stub.RenderPoses(request, timeout=60)
        told = await seen(caller)
    assert told("posegate_stage_seconds_count", stage="draw") == 1
    assert told("posegate_persons_count") == 0  # nobody was looked for


def test_what_is_not_known_beforehand_shares_one_label() -> None:
    metrics = Metrics("1", ["DetectPoses"], in_flight=lambda: 0, streams=lambda: 0)
    port = metrics.serve(LOOPBACK)
    try:
        metrics.call_ended("Invented", "INTERNAL", "INVENTED", 0.1)
        metrics.shed("INVENTED")
        told = Seen(scraped(port.port))
    finally:
        port.close()
    assert told("posegate_requests_total", rpc="OTHER", code="INTERNAL", reason="OTHER") == 1
    assert told("posegate_shed_total", reason="OTHER") == 1


def test_every_reason_in_the_code_is_known() -> None:
    """All are literals: `reason` of a class or of a call, or what a failure of the store begins with."""
    found: set[str] = set()
    service = Path(__file__).parents[2] / "service"
    for file in service.rglob("*.py"):
        if file.is_relative_to(service / "web"):  # a client of the gateway, with reasons of its own
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.keyword(arg="reason", value=ast.Constant(value=str(reason))):
                    found.add(reason)
                case ast.Assign(targets=[ast.Name(id="reason")], value=ast.Constant(value=str(reason))):
                    found.add(reason)
                case ast.Assign(
                    targets=[ast.Tuple(elts=[_, ast.Name(id="reason")])],
                    value=ast.Tuple(elts=[_, ast.Constant(value=str(reason))]),
                ):
                    found.add(reason)
                case ast.Call(func=ast.Name(id="_Failure"), args=[ast.Constant(value=str(reason)), *_]):
                    found.add(reason)
    assert found - {""} == REASONS
