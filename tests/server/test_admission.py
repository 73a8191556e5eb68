"""Admission of unary calls: by number, by bytes, and over the wire."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.errors import Overloaded
from service.server.admission import AdmissionInterceptor
from tests.fakes import until
from tests.pictures import encoded, jpeg, noise
from tests.running import cancelled, detect_request, failure, running

PICTURE = jpeg((64, 48))


def test_nothing_at_work_lets_in_one_request_of_any_size() -> None:
    admission = AdmissionInterceptor(2, 100)
    with admission.admitted(1000):
        pass
    with admission.admitted(0), admission.admitted(100):
        pass


def test_room_comes_back_whatever_happens_inside() -> None:
    admission = AdmissionInterceptor(1, 100)
    for _ in range(3):
        with pytest.raises(RuntimeError), admission.admitted(100):
            raise RuntimeError
    with admission.admitted(100):
        pass


def test_a_refusal_takes_no_room() -> None:
    admission = AdmissionInterceptor(2, 100)
    with admission.admitted(60):
        for _ in range(3):
            with pytest.raises(Overloaded) as refused, admission.admitted(41):
                pass
            assert refused.value.reason == "TOO_MANY_BYTES_IN_FLIGHT"
            assert refused.value.metadata == {"limit_bytes": "100", "actual_bytes": "101"}
        with admission.admitted(40), pytest.raises(Overloaded) as refused, admission.admitted(0):
            pass
        assert refused.value.reason == "TOO_MANY_IN_FLIGHT"
        assert refused.value.metadata == {"limit": "2"}


async def test_one_call_too_many_is_refused_and_the_others_are_not_harmed() -> None:
    async with running(max_in_flight=2) as service:
        service.triton.gate.clear()
        busy = [service.detect(PICTURE) for _ in range(2)]
        tasks = [asyncio.create_task(one) for one in busy]
        await until(lambda: len(service.triton.calls) == 2)
        failed = await failure(service.detect(PICTURE))
        assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert failed.reason == "TOO_MANY_IN_FLIGHT"
        assert failed.retry_s
        assert 0.25 <= failed.retry_s <= 8
        assert float(failed.trailing["grpc-retry-pushback-ms"]) == pytest.approx(failed.retry_s * 1000, abs=1)
        service.triton.gate.set()
        await asyncio.gather(*tasks)
        await service.detect(PICTURE)


async def test_a_call_too_many_is_refused_without_its_message_being_read() -> None:
    async with running(max_in_flight=1) as service:
        service.triton.gate.clear()
        task = asyncio.create_task(service.detect(PICTURE))
        await service.triton.entered.wait()
        upload: Any = service.channel.stream_unary("/posegate.v1.PoseService/DetectPoses")(timeout=30)
        assert (await failure(upload)).reason == "TOO_MANY_IN_FLIGHT"  # nothing was sent
        service.triton.gate.set()
        await task


async def test_too_many_bytes_at_work_are_refused() -> None:
    large = encoded(noise((200, 200)), "BMP")
    async with running(max_in_flight_bytes=200_000) as service:
        service.triton.gate.clear()
        task = asyncio.create_task(service.detect(large))
        await service.triton.entered.wait()
        failed = await failure(service.detect(large))
        assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert failed.reason == "TOO_MANY_BYTES_IN_FLIGHT"
        assert failed.metadata["limit_bytes"] == "200000"
        assert int(failed.metadata["actual_bytes"]) > 240_000
        assert failed.retry_s
        small = asyncio.create_task(service.detect(PICTURE))
        await until(lambda: len(service.triton.calls) == 2)
        service.triton.gate.set()
        await asyncio.gather(task, small)


async def test_health_answers_while_the_service_is_full() -> None:
    async with running(max_in_flight=1) as service:
        service.triton.gate.clear()
        task = asyncio.create_task(service.detect(PICTURE))
        await service.triton.entered.wait()
        refused = await failure(service.poses.ListModels(pb.ListModelsRequest(), timeout=60))
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        health: Any = health_pb2_grpc.HealthStub(service.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        service.triton.gate.set()
        await task


async def test_a_cancelled_call_gives_its_room_back() -> None:
    async with running(max_in_flight=1) as service:
        service.triton.gate.clear()
        for number in range(3):
            call = service.poses.DetectPoses(detect_request(PICTURE), timeout=60)
            await until(lambda number=number: len(service.triton.calls) == number + 1)  # type: ignore[misc]
            await cancelled(call)
            await until(lambda number=number: service.triton.cancelled == number + 1)  # type: ignore[misc]
        service.triton.gate.set()
        await service.detect(PICTURE)


async def test_an_answer_counts_until_its_call_has_ended() -> None:
    admission = AdmissionInterceptor(8, 1_000_000)
    sent = asyncio.Event()
    answers: asyncio.Queue[object] = asyncio.Queue()

    async def inner(request: object, context: object) -> pb.DetectPosesResponse:
        return pb.DetectPosesResponse(overlay=types_pb2.Overlay(content=bytes(600_000)))

    async def call() -> None:
        answers.put_nowait(await admission._unary(inner)(None, None))
        await sent.wait()

    first = asyncio.create_task(call())
    await answers.get()
    with pytest.raises(Overloaded) as refused:  # the work is done, but its answer does not fit
        await asyncio.create_task(call())
    assert refused.value.reason == "TOO_MANY_BYTES_IN_FLIGHT"
    sent.set()
    await first
    await asyncio.create_task(call())
