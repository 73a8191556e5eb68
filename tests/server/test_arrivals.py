"""Requests that are half here and answers that are not taken: ended by time, shed when memory is full."""

import asyncio
from typing import Any

import grpc
import pytest

from posegate.v1 import types_pb2
from service.server import memory
from tests.pictures import encoded, jpeg, noise
from tests.running import Service, detect_request, running
from tests.server.http2 import half_caller

DETECT = "/posegate.v1.PoseService/DetectPoses"
PICTURE = jpeg((64, 48))
WAIT_S = 120.0  # far beyond what the limits in here allow

pytestmark = pytest.mark.asyncio


async def test_half_a_request_is_ended_after_the_time_that_it_may_take() -> None:
    async with running(max_request_s=0.2) as service, half_caller(service.address) as caller:
        caller.begin(DETECT)
        await caller.send(bytes(1000), of=7_000_000)
        async with asyncio.timeout(WAIT_S):
            await caller.ended.wait()
        assert b"was not here within 0.2 s" in caller.trailers
        await until_free(service)


async def test_headers_alone_are_ended_too() -> None:
    async with running(max_request_s=0.2) as service, half_caller(service.address) as caller:
        caller.begin(DETECT)
        async with asyncio.timeout(WAIT_S):
            await caller.ended.wait()
        assert b"was not here within 0.2 s" in caller.trailers


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        pytest.param({}, 4 << 20, id="default"),
        pytest.param({"stream_window_bytes": 1 << 16}, 1 << 16, id="less"),
    ],
)
async def test_a_caller_may_send_a_window_ahead_and_a_larger_request_is_read(
    settings: dict[str, Any], most: int
) -> None:
    async with running(**settings) as service:
        async with half_caller(service.address) as caller:
            async with asyncio.timeout(WAIT_S):
                await caller.settled.wait()
            assert most / 2 < caller.window <= most
        large = encoded(noise((1000, 800)), "BMP")
        assert len(large) > 1 << 20
        assert (await service.detect(large)).model


async def test_while_memory_is_full_calls_are_refused_unread_and_health_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = 0
    monkeypatch.setattr(memory, "resident_bytes", lambda pid: used)
    async with running(max_memory=1 << 30) as service:
        assert (await service.detect(PICTURE)).model
        async with half_caller(service.address) as early, half_caller(service.address) as late:
            early.begin(DETECT)
            await early.send(bytes(100_000), of=7_000_000)
            await asyncio.sleep(0.3)  # what is sent at once is here by then
            used = 1 << 30
            async with asyncio.timeout(WAIT_S):
                await early.ended.wait()  # what has been on its way for a while gives its memory back
            assert b"no memory left" in early.trailers
            late.begin(DETECT)
            async with asyncio.timeout(WAIT_S):
                await late.ended.wait()  # of its request not a byte was sent
            assert b"no memory left" in late.trailers
        refused = await _refused(service)
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        used = 0
        await until_free(service)


async def _refused(service: Service) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await service.detect(PICTURE)
    return refused.value


async def until_free(service: Service) -> None:
    """Wait until a call is answered; limits as short as here may refuse some on a loaded machine."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                assert (await service.detect(PICTURE)).model
                return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)


async def test_a_caller_who_does_not_take_an_answer_loses_the_connection() -> None:
    content = detect_request(encoded(noise((900, 700)), "JPEG"))
    content.overlay.format = types_pb2.OVERLAY_FORMAT_PNG
    async with running(unread_s=0.3) as service, half_caller(service.address) as caller:
        caller.begin(DETECT)
        await caller.send(content.SerializeToString(), end=True)
        async with asyncio.timeout(WAIT_S):
            await caller.ended.wait()
        assert 0 < caller.received < 200_000  # of more than a megabyte
        assert caller.trailers.find(b"grpc-status") < 0
        await until_free(service)


async def test_a_call_without_a_request_is_told_so() -> None:
    async with running() as service:
        call: Any = service.channel.stream_unary(DETECT)(iter(()), timeout=60)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
