"""Compressed requests, as any gRPC client can send them, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from posegate.v1 import pose_service_pb2 as pb
from service.client import connect
from tests.pictures import jpeg
from tests.running import Service, detect_request, failure, running

DETECT = "/posegate.v1.PoseService/DetectPoses"
PICTURE = jpeg((64, 48))


@pytest.fixture
async def gzip(service: Service) -> AsyncIterator[Any]:
    """A channel that compresses what it sends."""
    async with grpc.aio.insecure_channel(
        service.address, compression=grpc.Compression.Gzip, options=[("grpc.enable_retries", 0)]
    ) as channel:
        yield channel


async def test_a_compressed_request_is_refused_and_a_plain_one_is_answered(
    service: Service, gzip: Any
) -> None:
    request = detect_request(PICTURE + bytes(100_000))
    send = gzip.unary_unary(DETECT, request_serializer=pb.DetectPosesRequest.SerializeToString)
    assert (await failure(send(request, timeout=30))).code is grpc.StatusCode.UNIMPLEMENTED
    assert not service.triton.calls
    await service.detect(PICTURE + bytes(100_000))


async def test_zeros_are_refused_unpacked_whatever_they_would_expand_to() -> None:
    # Unpacked it would be above the limit of a message, and refused as such: RESOURCE_EXHAUSTED.
    async with running(max_message_bytes=1 << 20) as small:
        channel: Any = grpc.aio.insecure_channel(
            small.address, compression=grpc.Compression.Gzip, options=[("grpc.enable_retries", 0)]
        )
        async with channel:
            failed = await failure(channel.unary_unary(DETECT)(bytes(32 << 20), timeout=60))
            assert failed.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", ["AnalyzeVideo", "StreamPoses"])
async def test_a_compressed_stream_is_refused(gzip: Any, method: str) -> None:
    call = gzip.stream_stream(f"/posegate.v1.PoseService/{method}")(iter([bytes(100_000)]), timeout=30)
    assert (await failure(call.read())).code is grpc.StatusCode.UNIMPLEMENTED


async def test_health_takes_no_compressed_requests_either(gzip: Any) -> None:
    health: Any = health_pb2_grpc.HealthStub(gzip)
    failed = await failure(health.Check(health_pb2.HealthCheckRequest(service="x" * 100_000), timeout=30))
    assert failed.code is grpc.StatusCode.UNIMPLEMENTED


async def test_the_documented_channel_does_not_compress(service: Service) -> None:
    async with connect(service.address) as channel:
        untyped: Any = channel
        send = untyped.unary_unary(DETECT, request_serializer=pb.DetectPosesRequest.SerializeToString)
        await send(detect_request(PICTURE + bytes(100_000)), timeout=30)
