"""The whole gateway in this process, wired as in production, with a scripted model server behind it; and
errors as a caller sees them."""

from __future__ import annotations

import asyncio
import atexit
import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import pose_service_pb2_grpc, skeleton_service_pb2_grpc, types_pb2
from service.core.skeleton.template import Skeleton
from service.media.isolation.processes import DecoderHost
from service.pipeline.stream_limiter import StreamLimiter
from service.server.app import Gateway, build_gateway
from service.settings import Settings
from service.skeletons.format import skeleton_data
from service.triton.catalog import ModelCatalog
from tests.fakes import FakeTritonClient

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub
    from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceAsyncStub


@dataclass(eq=False)
class Service:
    """A gateway and a channel to it that never retries.

    Attributes:
        triton: the model server behind it.
        gateway: the gateway itself.
        address: where it listens.
        channel: to it.
        poses: stub of PoseService.
        skeletons: stub of SkeletonService.
    """

    triton: FakeTritonClient
    gateway: Gateway
    address: str
    channel: grpc.aio.Channel
    poses: PoseServiceAsyncStub
    skeletons: SkeletonServiceAsyncStub

    @property
    def catalog(self) -> ModelCatalog:
        return self.gateway.catalog

    @property
    def streams(self) -> StreamLimiter:
        return self.gateway.streams

    @property
    def workers(self) -> ThreadPoolExecutor:
        return self.gateway.workers

    @property
    def health(self) -> health_aio.HealthServicer:
        return self.gateway.health

    async def detect(self, content: bytes, **changes: Any) -> pb.DetectPosesResponse:
        return await self.poses.DetectPoses(detect_request(content, **changes), timeout=60)


def detect_request(content: bytes, **changes: Any) -> pb.DetectPosesRequest:
    return pb.DetectPosesRequest(image=types_pb2.Image(content=content), **changes)


def settings_with(folder: Path, **changes: Any) -> Settings:
    """Settings with limits that are easily reached; the database and the templates are in the folder."""
    return Settings(
        **{
            "listen": "127.0.0.1:0",
            "home": folder,
            "skeletons": folder / "skeletons",
            "workers": 2,
            "health_interval_s": 3600.0,  # models are read once, and again when a test says so
            "max_stream_inferences": 16,
            "stream_inferences_beside": 16,
            "drain_delay_s": 0.0,
            "drain_grace_s": 0.0,
            "max_image_bytes": 8_000_000,
            "max_image_pixels": 4_000_000,
            "max_batch_size": 4,
            "max_persons": 100,
            "max_video_bytes": 50_000_000,
            "max_video_pixels": 4_000_000,
            "max_video_seconds": 60.0,
            "max_video_frames": 2000,
            "max_streams": 4,
            "stream_idle_s": 60.0,
            "stream_stall_s": 60.0,
            "stream_quiet_s": 60.0,
            "max_upload_s": 60.0,
            "database_timeout_s": 60.0,  # a loaded machine is no database that is away
            **changes,
        }
    )


@cache
def _decoders() -> DecoderHost:
    """One for all gateways of the tests: each would take a second to start."""
    host = DecoderHost()
    host.fork({"work": "images", "memory_bytes": 1 << 30}).end()  # it is ready from here on
    atexit.register(host.close)
    return host


@asynccontextmanager
async def running(
    triton: FakeTritonClient | None = None,
    *,
    handlers: Sequence[grpc.GenericRpcHandler] = (),
    templates: Sequence[Skeleton] = (),
    **changes: Any,
) -> AsyncIterator[Service]:
    """A gateway that serves, for the time of the block.

    Args:
        triton: the model server behind it; without persons by default.
        handlers: more services.
        templates: more templates than those that ship.
        changes: what differs from `settings_with`.
    """
    triton = triton or FakeTritonClient()
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "skeletons").mkdir()
        for skeleton in templates:
            data = json.dumps(skeleton_data(skeleton))
            (folder / "skeletons" / f"{skeleton.name}.json").write_text(data, "utf-8")
        async with (
            build_gateway(settings_with(folder, **changes), triton=triton, decoders=_decoders()) as gateway,
            _channel(f"127.0.0.1:{gateway.port}") as channel,
        ):
            gateway.server.add_generic_rpc_handlers(tuple(handlers))
            await _serving(channel)
            triton.forget()
            yield Service(
                triton=triton,
                gateway=gateway,
                address=f"127.0.0.1:{gateway.port}",
                channel=channel,
                poses=pose_service_pb2_grpc.PoseServiceStub(channel),
                skeletons=skeleton_service_pb2_grpc.SkeletonServiceStub(channel),
            )


def _channel(address: str) -> grpc.aio.Channel:
    options = [("grpc.enable_retries", 0), ("grpc.max_receive_message_length", 1 << 28)]
    return grpc.aio.insecure_channel(address, options=options)


async def _serving(channel: grpc.aio.Channel) -> None:
    """Wait for the first inference of the default model."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    async for answer in (watch := stub.Watch(health_pb2.HealthCheckRequest(), timeout=30)):
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            watch.cancel()
            return


@dataclass(frozen=True)
class Failure:
    """How a call failed.

    Attributes:
        code: its canonical code.
        message: text for the caller.
        reason: of ErrorInfo; empty without one.
        domain: of ErrorInfo.
        metadata: of ErrorInfo.
        violations: of BadRequest, description by field.
        request_id: of RequestInfo.
        retry_s: of RetryInfo; None without one.
        quota: of QuotaFailure, description by subject.
        initial: initial metadata.
        trailing: trailing metadata but for the details.
    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    request_id: str = ""
    retry_s: float | None = None
    quota: dict[str, str] = field(default_factory=dict)
    initial: dict[str, Any] = field(default_factory=dict)
    trailing: dict[str, Any] = field(default_factory=dict)


async def failure(call: Awaitable[Any]) -> Failure:
    """The failure of a call; AssertionError when it succeeds."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return failure_of(error)
    raise AssertionError(f"the call succeeded: {answer}")


def failure_of(error: grpc.aio.AioRpcError) -> Failure:
    """Read the status and the metadata of a failed call."""
    initial: dict[str, Any] = dict(error.initial_metadata() or ())
    trailing: dict[str, Any] = dict(error.trailing_metadata() or ())
    details = status_pb2.Status.FromString(trailing.pop("grpc-status-details-bin", b""))
    if details.details:
        assert details.code == error.code().value[0]
        assert details.message == error.details()
    return Failure(
        code=error.code(),
        message=str(error.details()),
        initial=initial,
        trailing=trailing,
        **_details(details),
    )


def of_status(status: status_pb2.Status) -> Failure:
    """Read the status of one image of a batch."""
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    return Failure(code=code, message=status.message, **_details(status))


def _details(status: status_pb2.Status) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for packed in status.details:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        request = error_details_pb2.RequestInfo()
        quota = error_details_pb2.QuotaFailure()
        if packed.Unpack(info):
            found |= {"reason": info.reason, "domain": info.domain, "metadata": dict(info.metadata)}
        elif packed.Unpack(bad):
            found["violations"] = {item.field: item.description for item in bad.field_violations}
        elif packed.Unpack(retry):
            found["retry_s"] = retry.retry_delay.ToTimedelta().total_seconds()
        elif packed.Unpack(request):
            found["request_id"] = request.request_id
        elif packed.Unpack(quota):
            found["quota"] = {item.subject: item.description for item in quota.violations}
        else:
            raise AssertionError(f"unknown detail {MessageToDict(packed)}")
    return found


async def cancelled(call: Any) -> None:
    """Cancel a call, as a caller that goes away."""
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        return
    raise AssertionError("the call was not cancelled")
