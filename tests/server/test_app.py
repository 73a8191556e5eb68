"""The whole gateway, wired as in production, against a Triton that says what a test wants."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from posegate.v1.skeleton_service_pb2 import (
    CreateSkeletonRequest,
    GetSkeletonRequest,
    ListSkeletonsRequest,
    Skeleton,
    SkeletonKeypoint,
)
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from scripts.ports import free_port
from service.server.app import CannotListen, Gateway, build_gateway
from service.server.lifecycle import serve
from service.settings import Settings
from tests.fakes import FakeTriton, candidate, listening, rows, until
from tests.pictures import jpeg
from tests.running import detect_request, failure

VGA = jpeg((640, 480))
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(autouse=True)
def _database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Custom skeletons are none of the checkout's."""
    monkeypatch.setenv("POSEGATE_DATABASE_URL", f"sqlite:///{tmp_path}/posegate.db")


@dataclass(eq=False)
class Running:
    """A gateway and a caller's view of it."""

    address: str
    channel: grpc.aio.Channel
    stub: Any
    health: Any
    metrics_port: int | None = None

    async def status(self, service: str = "") -> int:
        answer = await self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        return int(answer.status)

    async def until(self, status: int) -> None:
        async with asyncio.timeout(120):
            while await self.status() != status:  # noqa: ASYNC110 - it is another side's state
                await asyncio.sleep(0.01)


def settings_for(triton_port: int, **changes: Any) -> Settings:
    return Settings(
        **{
            "listen": "127.0.0.1:0",
            "triton_url": f"127.0.0.1:{triton_port}",
            "workers": 2,
            "max_inferences": 4,
            "health_interval_s": 0.05,
            "drain_delay_s": 0.0,
            "drain_grace_s": 5.0,
            **changes,
        }
    )


@asynccontextmanager
async def up(triton: FakeTriton, **changes: Any) -> AsyncIterator[Running]:
    """A gateway that serves, for the time of the block."""
    async with (
        listening(triton) as port,
        build_gateway(settings_for(port, **changes)) as running,
        connected(running.port) as caller,
    ):
        caller.metrics_port = running.metrics_port
        await caller.until(SERVING)
        yield caller


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Running]:
    address = f"127.0.0.1:{port}"
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Running(address, channel, PoseServiceStub(channel), health_pb2_grpc.HealthStub(channel))


def regions() -> list[Path]:
    return list(Path("/dev/shm").glob(f"posegate-{os.getpid()}-*"))  # noqa: S108


# --- wiring -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared_memory", ["auto", "off"])
async def test_a_picture_goes_through_and_shared_memory_makes_no_difference(shared_memory: str) -> None:
    triton = FakeTriton(answer=rows(candidate((100, 50, 200, 350), 0.9)))
    async with up(triton, triton_shared_memory=shared_memory) as caller:
        answer = await caller.stub.DetectPoses(detect_request(VGA), timeout=60)
        assert [person.box.x1 for person in answer.persons] == [100]
        assert bool(triton.regions) == bool(regions()) == (shared_memory == "auto")
        info = await caller.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
        assert info.triton_version == "2.51.0"
    assert triton.regions == {}
    assert regions() == []


async def test_the_limits_in_the_settings_are_in_force() -> None:
    async with up(
        FakeTriton(),
        max_image_bytes=100,
        max_batch_size=2,
        max_persons=5,
        max_in_flight=7,
        uri_hosts=" B.example:8443, a.example ,,",
    ) as caller:
        limits = (await caller.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)).limits
        assert (limits.max_image_bytes, limits.max_batch_size, limits.max_persons) == (100, 2, 5)
        assert limits.max_in_flight == 7
        assert list(limits.allowed_uri_hosts) == ["a.example", "b.example:8443"]
        failed = await failure(caller.stub.DetectPoses(detect_request(VGA), timeout=60))
        assert failed.reason == "IMAGE_TOO_LARGE"


@pytest.mark.parametrize(
    ("name", "status"),
    [("", SERVING), ("posegate.v1.PoseService", SERVING), ("posegate.v1.SkeletonService", SERVING),
     ("liveness", SERVING)],
)  # fmt: skip
async def test_health_is_told_by_name(name: str, status: int) -> None:
    async with up(FakeTriton()) as caller:
        assert await caller.status(name) == status


async def test_an_unknown_name_has_no_health() -> None:
    async with up(FakeTriton()) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.status("nobody")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def reflected(caller: Running, request: reflection_pb2.ServerReflectionRequest) -> Any:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", caller.channel))
    async for answer in stub.ServerReflectionInfo(iter([request]), timeout=60):
        return answer
    raise AssertionError("no answer")


async def test_reflection_lists_the_services_and_knows_their_messages() -> None:
    async with up(FakeTriton()) as caller:
        answer = await reflected(caller, reflection_pb2.ServerReflectionRequest(list_services=""))
        assert {service.name for service in answer.list_services_response.service} == {
            "posegate.v1.PoseService",
            "posegate.v1.SkeletonService",
            "posegate.v1.AccountService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        answer = await reflected(
            caller, reflection_pb2.ServerReflectionRequest(file_containing_symbol="posegate.v1.Person")
        )
        files = [
            FileDescriptorProto.FromString(content)
            for content in answer.file_descriptor_response.file_descriptor_proto
        ]
        assert "posegate/v1/types.proto" in {file.name for file in files}


async def test_reflection_can_be_turned_off() -> None:
    async with up(FakeTriton(), reflection=False) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await reflected(caller, reflection_pb2.ServerReflectionRequest(list_services=""))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_an_address_in_use_is_refused_with_a_plain_sentence() -> None:
    async with up(FakeTriton()) as caller:
        with pytest.raises(CannotListen, match=f"cannot listen on {caller.address}"):
            async with build_gateway(settings_for(1, listen=caller.address)):
                pass
        assert await caller.status() == SERVING


@pytest.mark.parametrize(
    "address", ["203.0.113.1:50051", "nobody.invalid:50051", "unix:/no/such/folder/socket"]
)
async def test_an_address_that_is_none_of_ours_is_refused(address: str) -> None:
    with pytest.raises(CannotListen, match="cannot listen on"):
        async with build_gateway(settings_for(1, listen=address)):
            pass


# --- Triton comes and goes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["sqlite:////proc/nowhere/posegate.db", "postgresql://posegate:secret@127.0.0.1:1/posegate"],
    ids=["file", "server"],
)
async def test_without_its_database_it_serves(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    triton = FakeTriton(answer=rows(candidate((0, 0, 9, 9), 0.9)))
    async with up(triton, database_url=url) as caller:
        answer = await caller.stub.DetectPoses(detect_request(VGA), timeout=30)
        assert answer.persons
        skeletons = SkeletonServiceStub(caller.channel)
        failed = await failure(skeletons.ListSkeletons(ListSkeletonsRequest(), timeout=30))
        assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert failed.retry_s
        assert await caller.status() == SERVING
        assert await caller.status("posegate.v1.SkeletonService") == SERVING
    assert "secret" not in "".join(capfd.readouterr())


async def test_what_it_keeps_is_there_after_a_restart(tmp_path: Path) -> None:
    skeleton = Skeleton(name="mine", keypoints=[SkeletonKeypoint(name="nose")])
    changes = {"home": tmp_path / "home", "database_url": ""}
    async with up(FakeTriton(), **changes) as caller:
        await SkeletonServiceStub(caller.channel).CreateSkeleton(
            CreateSkeletonRequest(skeleton=skeleton), timeout=30
        )
    assert (tmp_path / "home" / "posegate.db").exists()
    async with up(FakeTriton(), **changes) as caller:
        got = await SkeletonServiceStub(caller.channel).GetSkeleton(
            GetSkeletonRequest(name="mine"), timeout=30
        )
        assert [point.name for point in got.skeleton.keypoints] == ["nose"]


@pytest.mark.usefixtures("impatient")
async def test_without_triton_it_lives_and_says_why_it_cannot_serve() -> None:
    async with build_gateway(settings_for(1)) as running, connected(running.port) as caller:
        assert await caller.status() == NOT_SERVING
        assert await caller.status("liveness") == SERVING
        failed = await failure(caller.stub.DetectPoses(detect_request(VGA), timeout=60))
        assert failed.code is grpc.StatusCode.UNAVAILABLE
        assert failed.retry_s
        info = await caller.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
        assert (info.triton_version, list(info.models_ready)) == ("", [])


async def test_it_notices_that_triton_goes_and_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    triton = FakeTriton(answer=rows(candidate((100, 50, 200, 350), 0.9)))
    async with (
        listening(triton) as port,
        build_gateway(settings_for(port)) as running,
        connected(running.port) as caller,
    ):
        await caller.until(SERVING)
        before = regions()
        triton.regions.clear()  # it dies and forgets
        triton.control_refusal = (grpc.StatusCode.UNAVAILABLE, "Socket closed")
        await caller.until(NOT_SERVING)
        with monkeypatch.context() as impatient:
            impatient.setattr("service.pipeline.estimator._ANSWER_S", 59.5)
            failed = await failure(caller.stub.DetectPoses(detect_request(VGA), timeout=60))
        assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_NOT_READY")
        models = (await caller.stub.ListModels(pb.ListModelsRequest(), timeout=60)).models
        assert [model.ready for model in models] == [False]
        waiting = asyncio.create_task(_answer(caller))
        await asyncio.sleep(0.1)
        assert not waiting.done()  # a call with time left waits for Triton
        triton.control_refusal = None
        await caller.until(SERVING)
        assert len((await waiting).persons) == 1
        assert len((await caller.stub.DetectPoses(detect_request(VGA), timeout=60)).persons) == 1
        await until(lambda: bool(regions()) and regions() != before)
    assert regions() == []


# --- draining -----------------------------------------------------------------------------------------


async def test_draining_says_not_serving_first_then_refuses_and_lets_calls_at_work_finish(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    triton = FakeTriton(answer=rows(candidate((100, 50, 200, 350), 0.9)))
    stop, delay_over = asyncio.Event(), asyncio.Event()
    sleep = asyncio.sleep

    async def sleep_in_drain(seconds: float) -> None:
        await (delay_over.wait() if seconds == 77.0 else sleep(seconds))

    names = {**vars(asyncio), "sleep": sleep_in_drain}
    monkeypatch.setattr("service.server.lifecycle.asyncio", SimpleNamespace(**names))

    async def run(port: int, running: asyncio.Future[Gateway]) -> None:
        async with build_gateway(settings_for(port, drain_delay_s=77.0, drain_grace_s=60.0)) as one:
            running.set_result(one)
            await stop.wait()

    async with listening(triton) as port:
        started: asyncio.Future[Gateway] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(run(port, started))
        async with connected((await started).port) as caller:
            await caller.until(SERVING)
            triton.gate.clear()
            at_work = asyncio.create_task(_answer(caller))
            await until(lambda: len(triton.requests) > 1)
            stop.set()
            await caller.until(NOT_SERVING)  # before anything is refused
            info = await caller.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=30)
            assert info.version
            delay_over.set()
            async with asyncio.timeout(120):
                await _refused(await started)
            assert not at_work.done()
            assert not task.done()
            triton.gate.set()
            assert len((await at_work).persons) == 1
            async with asyncio.timeout(30):  # of 60 s that calls have to finish
                await task
    assert regions() == []


async def _refused(gateway: Gateway) -> None:
    """Wait until newcomers are turned away."""
    while True:
        async with connected(gateway.port) as newcomer:
            try:
                await newcomer.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=30)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    return
                raise
        await asyncio.sleep(0.05)


async def _answer(caller: Running) -> pb.DetectPosesResponse:
    answer: pb.DetectPosesResponse = await caller.stub.DetectPoses(detect_request(VGA), timeout=60)
    return answer


async def test_calls_that_outlast_the_grace_are_cancelled() -> None:
    triton = FakeTriton()
    async with listening(triton) as port:
        async with build_gateway(settings_for(port, drain_grace_s=0.2)) as running:
            caller = connected(running.port)
            one = await caller.__aenter__()
            await one.until(SERVING)
            triton.gate.clear()
            at_work = asyncio.create_task(_answer(one))
            await until(lambda: len(triton.requests) > 1)
            left = time.monotonic()
        assert time.monotonic() - left < 30  # of 60 s that the caller would wait
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await at_work
        assert ended.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        await until(lambda: triton.cancelled > 0)
        await caller.__aexit__(None, None, None)


async def test_a_health_watch_does_not_delay_the_drain() -> None:
    triton = FakeTriton()
    seen: list[int] = []

    async def watch(caller: Running) -> None:
        async for answer in caller.health.Watch(health_pb2.HealthCheckRequest()):
            seen.append(answer.status)  # noqa: PERF401 - it fails in the end

    async with listening(triton) as port:
        async with build_gateway(settings_for(port, drain_grace_s=60)) as running:
            caller = connected(running.port)
            one = await caller.__aenter__()
            await one.until(SERVING)
            watching = asyncio.create_task(watch(one))
            await until(lambda: bool(seen))
            left = time.monotonic()
        took = time.monotonic() - left
        with pytest.raises(grpc.aio.AioRpcError):
            await watching
        await caller.__aexit__(None, None, None)
    assert seen == [SERVING, NOT_SERVING]
    assert took < 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_signals_end_it_cleanly(number: int) -> None:
    port = free_port()
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    async with listening(FakeTriton()) as triton_port:
        settings = settings_for(triton_port, listen=f"127.0.0.1:{port}")
        task = asyncio.create_task(serve(build_gateway(settings)))
        try:
            async with connected(port) as caller:
                async with asyncio.timeout(120):
                    while True:
                        try:
                            if await caller.status() == SERVING:
                                break
                        except grpc.aio.AioRpcError:
                            await asyncio.sleep(0.02)
                os.kill(os.getpid(), number)
                async with asyncio.timeout(120):
                    await task
        finally:
            loop = asyncio.get_running_loop()
            for one, handler in before.items():
                loop.remove_signal_handler(one)
                signal.signal(one, handler)
    assert regions() == []


async def test_server_info_answers_with_what_it_knows_when_triton_fails() -> None:
    triton = FakeTriton()
    async with up(triton) as caller:
        triton.control_refusal = (grpc.StatusCode.INTERNAL, "broken")
        info = await caller.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
    assert info.triton_version == ""
    assert info.version
    assert info.default_model == "yolo11n_pose"
