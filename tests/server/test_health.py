"""SERVING only when a picture would be answered."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio
from structlog.testing import capture_logs
from typing_extensions import override

from service.errors import Unavailable
from service.pipeline.estimator import Estimator
from service.server.health import LIVENESS, SERVICES, HealthMonitor
from service.server.health_port import Health
from service.skeletons import shipped
from service.telemetry.call_context import Observer
from service.triton.catalog import ModelCatalog
from service.triton.client import TritonError
from tests.fakes import MODEL, BusyThread, FakeTritonClient, until


@dataclass
class Watched:
    """A monitor at work and what it sees."""

    triton: FakeTritonClient
    health: Any  # HealthServicer, whose stubs hide what a caller would be told
    task: asyncio.Task[None]
    workers: ThreadPoolExecutor

    def says(self, service: str = "") -> str:
        status = self.health._server_status[service]
        return health_pb2.HealthCheckResponse.ServingStatus.Name(status)

    async def until(self, status: str) -> None:
        await until(lambda: {self.says(service) for service in SERVICES} == {status})


@asynccontextmanager
async def watching(
    triton: FakeTritonClient, observer: Observer | None = None, *, proof_s: float = 60
) -> AsyncIterator[Watched]:
    health = health_aio.HealthServicer()
    with ThreadPoolExecutor(1) as workers:
        catalog = ModelCatalog(triton, shipped(), MODEL.name)
        monitor = HealthMonitor(
            triton, catalog, Estimator(triton, workers, 1), health, 0.01, observer, proof_s=proof_s
        )
        task = asyncio.create_task(monitor.run())
        await asyncio.sleep(0)
        try:
            yield Watched(triton, health, task, workers)
        finally:
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_before_the_first_look_nothing_is_served_but_the_process_lives() -> None:
    triton = FakeTritonClient()
    triton.served = None
    async with watching(triton) as watched:
        assert {watched.says(service) for service in SERVICES} == {"NOT_SERVING"}
        assert watched.says(LIVENESS) == "SERVING"


async def test_serving_comes_only_after_a_warm_inference() -> None:
    triton = FakeTritonClient()
    triton.gate.clear()
    async with watching(triton) as watched:
        await triton.entered.wait()
        await asyncio.sleep(0.05)
        assert watched.says() == "NOT_SERVING"
        triton.gate.set()
        await watched.until("SERVING")
        (call,) = triton.calls
        assert call.model == MODEL
        assert call.inputs["images"].shape == (1, *MODEL.shapes_hw[0], 3)


async def test_every_service_has_a_name_of_its_own() -> None:
    async with watching(FakeTritonClient()) as watched:
        await watched.until("SERVING")
        services = ("PoseService", "SkeletonService", "AccountService")
        assert set(SERVICES) == {"", *(f"posegate.v1.{name}" for name in services)}
        assert set(watched.health._server_status) == {*SERVICES, LIVENESS}


async def test_an_inference_that_fails_keeps_it_from_serving_until_one_passes() -> None:
    triton = FakeTritonClient()
    triton.answer = Unavailable("not yet")
    async with watching(triton) as watched:
        await until(lambda: len(triton.calls) > 3)
        assert watched.says() == "NOT_SERVING"
        triton.answer = FakeTritonClient().answer
        await watched.until("SERVING")


async def test_without_traffic_an_inference_is_proof_again_and_again() -> None:
    triton = FakeTritonClient()
    async with watching(triton, proof_s=0.03) as watched:
        await watched.until("SERVING")
        await until(lambda: len(triton.calls) > 3)
        triton.answer = RuntimeError("the model fails and calls itself ready")
        await watched.until("NOT_SERVING")
        triton.answer = FakeTritonClient().answer
        await watched.until("SERVING")


async def test_a_gateway_whose_workers_are_stuck_fails_liveness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.server.health._STUCK_S", 0.05)
    monkeypatch.setattr("service.server.health._NO_STEP_S", 0.1)
    async with watching(FakeTritonClient()) as watched:
        await watched.until("SERVING")
        busy = BusyThread()
        asyncio.get_running_loop().run_in_executor(watched.workers, busy)
        await until(lambda: watched.says(LIVENESS) == "NOT_SERVING")
        assert watched.says() == "NOT_SERVING"
        busy.release()
        await until(lambda: watched.says(LIVENESS) == "SERVING")


async def test_a_long_queue_for_threads_that_get_on_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.server.health._STUCK_S", 0.01)
    monkeypatch.setattr("service.server.health._NO_STEP_S", 3600.0)
    async with watching(FakeTritonClient()) as watched:
        await watched.until("SERVING")
        looks: list[bool] = []
        is_stuck = Estimator.is_stuck

        def counted(estimator: Estimator, longest_s: float) -> bool:
            looks.append(is_stuck(estimator, longest_s))
            return looks[-1]

        monkeypatch.setattr(Estimator, "is_stuck", counted)
        busy = BusyThread()
        asyncio.get_running_loop().run_in_executor(watched.workers, busy)
        await until(lambda: len(looks) > 3)
        assert not any(looks)
        assert watched.says(LIVENESS) == "SERVING"
        busy.release()


async def test_the_health_port_fails_liveness_where_the_event_loop_is_stuck() -> None:
    health = Health()
    await health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
    request = health_pb2.HealthCheckRequest(service=LIVENESS)
    assert health.threaded.Check(request, None).status == health_pb2.HealthCheckResponse.SERVING
    health.threaded.beat_at -= 60
    assert health.threaded.Check(request, None).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_while_it_serves_no_more_warm_inferences_are_run() -> None:
    triton = FakeTritonClient()
    async with watching(triton) as watched:
        await watched.until("SERVING")
        await asyncio.sleep(0.1)
        assert len(triton.calls) == 1


async def test_it_stops_serving_when_triton_goes_and_serves_again_when_it_returns() -> None:
    triton = FakeTritonClient()
    async with watching(triton) as watched:
        for inferences in (1, 2, 3):
            triton.served = [MODEL]
            await watched.until("SERVING")
            assert len(triton.calls) == inferences  # warm again after every absence
            triton.served = None
            await watched.until("NOT_SERVING")
            assert watched.says(LIVENESS) == "SERVING"


@pytest.mark.parametrize(
    "served",
    [[], [replace(MODEL, ready=False)], [replace(MODEL, name="another")]],
    ids=["no model", "default not ready", "only another model"],
)
async def test_without_the_default_model_nothing_is_served(served: list[object]) -> None:
    triton = FakeTritonClient()
    async with watching(triton) as watched:
        await watched.until("SERVING")
        triton.served = served  # type: ignore[assignment]
        await watched.until("NOT_SERVING")
        triton.served = [MODEL]
        await watched.until("SERVING")


async def test_another_model_that_is_not_ready_does_not_matter() -> None:
    triton = FakeTritonClient()
    triton.served = [MODEL, replace(MODEL, name="another", ready=False)]
    async with watching(triton) as watched:
        await watched.until("SERVING")


async def test_the_monitor_survives_whatever_happens() -> None:
    triton = FakeTritonClient()
    triton.answer = RuntimeError("boom")
    with capture_logs() as lines:
        async with watching(triton) as watched:
            await until(lambda: len(triton.calls) > 2)
            assert watched.says() == "NOT_SERVING"
            triton.answer = FakeTritonClient().answer
            await watched.until("SERVING")
    assert [line["event"] for line in lines].count("health_check_failed") == 1  # not once a look


async def test_shared_memory_is_set_up_for_the_largest_input_and_answer_of_the_models_that_are_ready() -> (
    None
):
    triton = FakeTritonClient()
    triton.served = [
        MODEL,
        replace(MODEL, name="large", shapes_hw=((1280, 1280),)),
        replace(MODEL, name="absent", shapes_hw=((9999, 9999),), ready=False),
    ]
    async with watching(triton) as watched:
        await watched.until("SERVING")
    assert set(triton.attached) == {3 * 1280 * 1280 + 1000 * 56 * 4}


async def test_changes_are_logged_once() -> None:
    triton = FakeTritonClient()
    with capture_logs() as lines:
        async with watching(triton) as watched:
            await watched.until("SERVING")
            triton.served = None
            await watched.until("NOT_SERVING")
            await asyncio.sleep(0.05)
    told = [line["event"] for line in lines if line["event"] in ("serving", "not_serving")]
    assert told == ["serving", "not_serving"]


def reasons(lines: list[Any]) -> list[str]:
    return [line["why"] for line in lines if line["event"] == "not_ready"]


async def test_why_it_does_not_serve_is_told_once_and_without_a_stack() -> None:
    triton = FakeTritonClient()
    triton.answer = TritonError("INTERNAL: out of memory")
    with capture_logs() as lines:
        async with watching(triton) as watched:
            await until(lambda: len(triton.calls) > 5)
            triton.answer = FakeTritonClient().answer
            await watched.until("SERVING")
            triton.served = None
            await watched.until("NOT_SERVING")
            await asyncio.sleep(0.05)
    assert reasons(lines) == ["INTERNAL: out of memory", "Triton does not answer"]
    assert all(line["log_level"] == "warning" for line in lines if line["event"] == "not_ready")
    assert not any("exc_info" in line for line in lines)


async def test_reasons_that_change_all_the_time_are_no_flood() -> None:
    triton = FakeTritonClient()
    triton.script = [TritonError(f"request {number} failed") for number in range(20)]
    with capture_logs() as lines:
        async with watching(triton) as watched:
            await watched.until("SERVING")
    assert reasons(lines) == ["request 0 failed"]


async def test_a_model_that_is_missing_is_told_of_from_the_start() -> None:
    triton = FakeTritonClient()
    triton.served = [replace(MODEL, name="another")]
    with capture_logs() as lines:
        async with watching(triton):
            await until(lambda: bool(reasons(lines)))
    assert reasons(lines) == [f"Model '{MODEL.name}' is not loaded yet: try again."]


class Told(Observer):
    """What the monitor said last."""

    def __init__(self) -> None:
        self.up: bool | None = None
        self.models: dict[str, bool] = {}

    @override
    def triton(self, *, up: bool, models: Mapping[str, bool]) -> None:
        self.up, self.models = up, dict(models)


async def test_what_is_seen_of_triton_is_told() -> None:
    triton = FakeTritonClient()
    not_loaded = replace(MODEL, name="broken", family="", skeleton="", ready=False)
    triton.served = [MODEL, replace(MODEL, version="2", ready=False), not_loaded]
    told = Told()
    async with watching(triton, told) as watched:
        await watched.until("SERVING")
        assert (told.up, told.models) == (True, {MODEL.name: True, "broken": False})
        triton.served = None
        await watched.until("NOT_SERVING")
        assert (told.up, told.models) == (False, {MODEL.name: False, "broken": False})
