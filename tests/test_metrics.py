"""Metrics as Prometheus scrapes them from the whole gateway."""

from __future__ import annotations

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

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.metrics import Metrics
from service.server import CannotListen, gateway
from tests.fakes import FakeTriton, candidate, model_config, rows
from tests.media.clips import clip
from tests.pictures import jpeg
from tests.running import detect_request, failure
from tests.test_server import Running, settings_for, up

VGA = jpeg((640, 480))
LOOPBACK = "127.0.0.1:0"

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def _database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POSEGATE_DATABASE_URL", f"sqlite:///{tmp_path}/posegate.db")


def scraped(port: int | None, host: str = "127.0.0.1") -> Samples:
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=5) as answer:
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
    return Seen(await asyncio.to_thread(scraped, caller.gateway.metrics_port))


async def test_a_call_is_counted_with_its_stages_people_and_bytes() -> None:
    triton = FakeTriton(answer=rows(candidate((100, 50, 200, 350), 0.9), candidate((300, 50, 400, 350), 0.8)))
    async with measured(triton) as caller:
        before = await seen(caller)
        request = detect_request(VGA, overlay=types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_JPEG))
        for _ in range(3):
            await caller.stub.DetectPoses(request, timeout=10)
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
        await failure(caller.stub.DetectPoses(detect_request(b"no picture"), timeout=10))
        await failure(caller.stub.DetectPoses(detect_request(VGA, model="nobody"), timeout=10))
        told = await seen(caller)
    rpc = "DetectPoses"
    assert told("posegate_requests_total", rpc=rpc, code="INVALID_ARGUMENT", reason="IMAGE_UNDECODABLE") == 1
    assert told("posegate_requests_total", rpc=rpc, code="NOT_FOUND", reason="MODEL_NOT_FOUND") == 1
    assert told("posegate_admitted_total") == 2


async def test_what_callers_write_never_becomes_a_label() -> None:
    async with measured(FakeTriton()) as caller:
        for number in range(20):
            wrong = detect_request(VGA, model=f"model-{number}", skeleton=f"skeleton-{number}")
            await failure(caller.stub.DetectPoses(wrong, timeout=10))
        unknown: Any = caller.channel.unary_unary("/posegate.v1.PoseService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError):
            await unknown(b"")
        told = await seen(caller)
    series = [labels for name, labels in told.samples if name == "posegate_requests_total"]
    assert len(series) == 1


async def test_refused_calls_are_shed_and_not_admitted() -> None:
    triton = FakeTriton()
    async with measured(triton, max_in_flight=1) as caller:
        triton.gate.clear()
        triton.entered.clear()
        waiting = asyncio.create_task(detected(caller))
        await triton.entered.wait()
        during = await seen(caller)
        await failure(caller.stub.DetectPoses(detect_request(VGA), timeout=10))
        triton.gate.set()
        await waiting
        after = await seen(caller)
    assert during("posegate_in_flight") == 1
    assert after("posegate_in_flight") == 0
    assert after("posegate_shed_total", reason="TOO_MANY_IN_FLIGHT") == 1
    assert after("posegate_admitted_total") == 1


async def detected(caller: Running) -> None:
    await caller.stub.DetectPoses(detect_request(VGA), timeout=10)


async def test_a_call_that_is_cancelled_is_counted() -> None:
    triton = FakeTriton()
    async with measured(triton) as caller:
        triton.gate.clear()
        triton.entered.clear()
        call = caller.stub.DetectPoses(detect_request(VGA), timeout=10)
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


async def test_triton_and_each_of_its_models_are_told_of() -> None:
    triton = FakeTriton()
    triton.configs["broken"] = (model_config(name="broken"), "UNAVAILABLE", "no engine")
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
    async with asyncio.timeout(5):
        while (await seen(caller))(name, **labels) != value:  # noqa: ASYNC110 - it is another side's state
            await asyncio.sleep(0.01)


async def test_the_build_and_the_process_are_told_of() -> None:
    async with measured(FakeTriton()) as caller:
        info = await caller.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10)
        told = await seen(caller)
    assert told("posegate_build_info", version=info.version) == 1
    assert told("process_resident_memory_bytes") > 1e6


async def test_without_a_port_for_them_there_are_none() -> None:
    async with up(FakeTriton()) as caller:
        assert caller.gateway.metrics_port is None


async def test_the_port_is_closed_with_the_gateway() -> None:
    async with measured(FakeTriton()) as caller:
        port = caller.gateway.metrics_port
        assert await asyncio.to_thread(scraped, port)
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(scraped, port)


async def test_a_port_in_use_is_told_of() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotListen, match=address):
            async with gateway(settings_for(1, metrics_listen=address)):
                raise AssertionError("it listens")


def test_ipv6_is_served() -> None:
    port = Metrics("1", in_flight=lambda: 0, streams=lambda: 0).serve("[::1]:0")
    try:
        assert Seen(scraped(port.port, "[::1]"))("posegate_build_info", version="1") == 1
    finally:
        port.close()


async def test_a_picture_of_a_batch_counts_by_itself() -> None:
    async with measured(FakeTriton()) as caller:
        before = await seen(caller)
        batch = pb.BatchDetectPosesRequest(requests=[detect_request(VGA), detect_request(b"")])
        await caller.stub.BatchDetectPoses(batch, timeout=10)
        after = await seen(caller)
    assert after("posegate_persons_count") - before("posegate_persons_count") == 1
    assert after("posegate_requests_total", rpc="BatchDetectPoses", code="OK", reason="") == 1
