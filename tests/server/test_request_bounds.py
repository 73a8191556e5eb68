"""Bounds of requests and message limits by method, on a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from posegate.v1 import (
    account_service_pb2,
    bounds_pb2,
    pose_service_pb2,
    skeleton_service_pb2,
    types_pb2,
)
from service.server.bounds import out_of_bounds
from service.server.message_limits import PERSONS_BYTES, PLAIN_BYTES, max_request_bytes, request_type_of
from tests.running import Failure, Service, failure, running
from tests.server.test_bounds import fields, message_with, name

FILES = (pose_service_pb2, skeleton_service_pb2, account_service_pb2)
BEYOND = 10


def methods() -> Iterator[MethodDescriptor]:
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def beyond_bounds(method: MethodDescriptor) -> Iterator[tuple[str, bytes]]:
    """Requests with one field ten times beyond one of its bounds, each with the path of the field."""
    for path in fields(method.input_type):
        options = path[-1].GetOptions().Extensions
        if path[-1].type == FieldDescriptor.TYPE_STRING:
            text = "x" * (BEYOND * options[bounds_pb2.max_bytes])
            yield name(path), message_with(method.input_type, path, text).SerializeToString()
        if path[-1].is_repeated:
            count = BEYOND * options[bounds_pb2.max_items]
            yield name(path), message_with(method.input_type, path, count).SerializeToString()


async def refusal(service: Service, method: MethodDescriptor, content: bytes) -> Failure:
    """How a method refuses the bytes of one request."""
    assert method.containing_service is not None
    channel: Any = service.channel
    address = f"/{method.containing_service.full_name}/{method.name}"
    if method.client_streaming:
        return await failure(channel.stream_stream(address)(iter([content]), timeout=60).read())
    return await failure(channel.unary_unary(address)(content, timeout=60))


@pytest.mark.parametrize("method", list(methods()), ids=lambda method: method.name)
async def test_every_field_beyond_its_bound_is_refused_while_health_answers(
    service: Service, method: MethodDescriptor
) -> None:
    health: Any = health_pb2_grpc.HealthStub(service.channel)
    for field, content in beyond_bounds(method):
        asked = asyncio.create_task(refusal(service, method, content))
        await asyncio.wait_for(health.Check(health_pb2.HealthCheckRequest()), 60)
        failed = await asked
        assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert [path.replace("[0]", "") for path in failed.violations] == [field]
    assert not service.triton.calls


def seconds(content: bytes) -> float:
    """CPU time of the check of a skeleton, the least of three."""
    taken = []
    for _ in range(3):
        started = time.thread_time()
        assert out_of_bounds(content, skeleton_service_pb2.CreateSkeletonRequest.DESCRIPTOR)
        taken.append(time.thread_time() - started)
    return min(taken)


def test_the_cost_of_a_refusal_does_not_grow_with_the_length_of_a_list() -> None:
    def request(count: int) -> bytes:
        edges = [skeleton_service_pb2.SkeletonEdge(start="a", end="b")] * count
        skeleton = skeleton_service_pb2.Skeleton(edges=edges)
        return skeleton_service_pb2.CreateSkeletonRequest(skeleton=skeleton).SerializeToString()

    assert seconds(request(500_000)) < 5 * seconds(request(11_000))


async def test_combining_marks_that_took_seconds_to_normalise_are_refused_unparsed(service: Service) -> None:
    text = "a" + "".join(("\u0301", "\u0323")[number % 2] for number in range(60_000))
    failed = await failure(service.detect(b"", skeleton=text))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(failed.violations) == ["skeleton"]


@pytest.mark.parametrize(
    ("method", "limit"),
    [
        ("PoseService/DetectPoses", 1 << 28),
        ("PoseService/BatchDetectPoses", 1 << 28),
        ("PoseService/MeasureAngles", 1 << 28),
        ("PoseService/AnalyzeVideo", 1 << 28),
        ("PoseService/StreamPoses", 1 << 28),
        ("PoseService/ListModels", PLAIN_BYTES),
        ("PoseService/GetServerInfo", PLAIN_BYTES),
        ("AccountService/GetAccount", PLAIN_BYTES),
        ("SkeletonService/ListSkeletons", PLAIN_BYTES),
        ("SkeletonService/GetSkeleton", PLAIN_BYTES),
        ("SkeletonService/CreateSkeleton", PLAIN_BYTES),
        ("SkeletonService/UpdateSkeleton", PLAIN_BYTES),
        ("SkeletonService/DeleteSkeleton", PLAIN_BYTES),
        ("SkeletonService/RenderPoses", 1 << 28),
        ("SkeletonService/ExportPoses", PERSONS_BYTES),
    ],
)
def test_only_methods_with_images_or_chunks_take_large_messages(method: str, limit: int) -> None:
    request = request_type_of(f"/posegate.v1.{method}")
    assert request is not None
    assert max_request_bytes(request, 1 << 28) == limit
    assert max_request_bytes(request, 1 << 20) == 1 << 20


async def test_a_message_above_the_limit_of_its_method_is_refused_with_both_numbers() -> None:
    async with running() as service:
        content = b"\xfa\x7f" + b"\x80\x80\x80\x04" + bytes(8 << 20)  # field 2047 of 8 MiB, unknown
        method = request_type_of("/posegate.v1.SkeletonService/CreateSkeleton")
        assert method is not None
        channel: Any = service.channel
        failed = await failure(
            channel.unary_unary("/posegate.v1.SkeletonService/CreateSkeleton")(content, timeout=60)
        )
        assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE")
        assert failed.metadata == {"limit_bytes": str(PLAIN_BYTES), "actual_bytes": str(len(content))}
        assert failed.retry_s is None
        people = skeleton_service_pb2.RenderPosesRequest(
            image=types_pb2.Image(content=bytes(PLAIN_BYTES + 1))
        )
        failed = await failure(service.skeletons.RenderPoses(people, timeout=60))
        assert failed.reason != "MESSAGE_TOO_LARGE"
