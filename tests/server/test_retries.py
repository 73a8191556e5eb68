"""gRPC's own retries work: an error that may be retried is sent with nothing before it."""

import asyncio
import json
from typing import Any

import grpc

from posegate.v1 import pose_service_pb2_grpc
from service.errors import Unavailable
from tests.fakes import until
from tests.pictures import jpeg
from tests.running import Service, detect_request, running

POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
}
RETRYING = [
    ("grpc.enable_retries", 1),
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": POLICY}]})),
]


def retrying(service: Service) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(service.address, options=RETRYING)


async def test_an_error_that_may_be_retried_is() -> None:
    calls = 0

    async def flaky(request: bytes, context: Any) -> bytes:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise Unavailable("away", retry_after_s=0.01)
        return b"answer"

    handlers = grpc.method_handlers_generic_handler(
        "posegate.v1.TestService", {"Flaky": grpc.unary_unary_rpc_method_handler(flaky)}
    )
    async with running(handlers=[handlers]) as service, retrying(service) as channel:
        call: Any = channel.unary_unary("/posegate.v1.TestService/Flaky")
        assert await call(b"", timeout=60) == b"answer"
    assert calls == 3


async def test_a_call_that_was_one_too_many_is_retried() -> None:
    async with running(max_in_flight=1) as service, retrying(service) as channel:
        service.triton.gate.clear()
        busy = asyncio.ensure_future(service.detect(jpeg((64, 48))))
        await until(lambda: len(service.triton.calls) == 1)
        stub = pose_service_pb2_grpc.PoseServiceStub(channel)
        second = asyncio.ensure_future(stub.DetectPoses(detect_request(jpeg((64, 48))), timeout=20))
        await asyncio.sleep(0.3)  # it is refused, and waits for as long as it was told to
        service.triton.gate.set()
        await busy
        await second
