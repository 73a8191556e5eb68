"""The gateway's real servicers, interceptors and estimator on a real gRPC server in this process, with
a scripted model server behind them; and errors as a caller sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import pose_service_pb2_grpc, skeleton_service_pb2_grpc, types_pb2
from service.core.angles import Thresholds
from service.core.skeleton.template import Skeleton
from service.media.image import ImageLimits
from service.media.spool import SpoolSpace
from service.media.video_reader import VideoLimits
from service.pipeline.estimator import Estimator
from service.pipeline.stream import StreamAnalyzer
from service.pipeline.stream_limiter import StreamLimiter
from service.pipeline.video.analyzer import VideoAnalyzer, VideoSettings
from service.server.interceptors import AdmissionInterceptor, RequestInterceptor
from service.servicers.export import PoseExporter
from service.servicers.pose import PoseLimits, PoseServicer
from service.servicers.render import PoseRenderer, RenderLimits
from service.servicers.skeleton import SkeletonServicer
from service.servicers.skeleton_lookup import SkeletonLookup
from service.servicers.streaming import RecordingLimits, Recordings
from service.skeletons import format as skeleton_format
from service.skeletons import shipped
from service.store.address import SqliteAddress, parse
from service.store.cache import SkeletonCache
from service.store.database import Database
from service.store.skeletons import SkeletonStore
from service.triton.catalog import ModelCatalog
from tests.fakes import MODEL, FakeTritonClient

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub
    from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceAsyncStub


@dataclass(eq=False)
class Service:
    """A running service and a channel to it that never retries.

    Attributes:
        triton: the model server behind it.
        workers: its threads.
        admission: its bounds.
        health: its health service.
        address: where it listens.
        channel: to it.
        poses: stub of PoseService.
        skeletons: stub of SkeletonService.
    """

    triton: FakeTritonClient
    catalog: ModelCatalog
    streams: StreamLimiter
    workers: ThreadPoolExecutor
    admission: AdmissionInterceptor
    health: health_aio.HealthServicer
    address: str
    channel: grpc.aio.Channel
    poses: PoseServiceAsyncStub
    skeletons: SkeletonServiceAsyncStub

    async def detect(self, content: bytes, **changes: Any) -> pb.DetectPosesResponse:
        return await self.poses.DetectPoses(detect_request(content, **changes), timeout=10)


def detect_request(content: bytes, **changes: Any) -> pb.DetectPosesRequest:
    return pb.DetectPosesRequest(image=types_pb2.Image(content=content), **changes)


@asynccontextmanager
async def running(
    *,
    max_calls: int = 64,
    max_bytes: int = 1 << 29,
    timeout_s: float = 30.0,
    workers: int = 2,
    at_once: int = 16,
    handlers: Sequence[grpc.GenericRpcHandler] = (),
    skeletons: Sequence[Skeleton] = (),
    database_url: str = "",
    max_skeletons: int = 1000,
    database_timeout_s: float = 5.0,
    max_video_memory_bytes: int = 1 << 30,
    recordings: Mapping[str, Any] | None = None,
    **limits: Any,
) -> AsyncIterator[Service]:
    """A service for the time of the block.

    Args:
        max_calls: admission.
        max_bytes: admission.
        timeout_s: deadline of calls whose caller set none.
        workers: threads.
        at_once: pictures at once.
        handlers: more services.
        skeletons: more templates than those that ship.
        database_url: where custom skeletons are kept; empty: a file that goes away.
        max_skeletons: custom ones of a tenant.
        database_timeout_s: of one transaction.
        max_video_memory_bytes: of all decoders together.
        recordings: what differs from the usual for videos and streams, see `recorder`.
        limits: what differs from the usual in PoseLimits.
    """
    triton = FakeTritonClient()
    known = {**shipped(), **{skeleton.name: skeleton for skeleton in skeletons}}
    catalog = ModelCatalog(triton, known, MODEL.name)
    await catalog.refresh()
    pool = ThreadPoolExecutor(workers)
    estimator = Estimator(triton, pool, at_once)
    admission = AdmissionInterceptor(max_calls, max_bytes)
    health = health_aio.HealthServicer()
    allowed = pose_limits(timeout_s, max_skeletons=max_skeletons, **limits)
    server = grpc.aio.server(
        interceptors=[RequestInterceptor(timeout_s, allowed.max_message_bytes), admission],
        handlers=list(handlers),
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 1 << 28)],
    )
    folder = TemporaryDirectory()
    address = parse(database_url) if database_url else SqliteAddress(Path(folder.name) / "posegate.db")
    database = Database(address, connections=5, timeout_s=database_timeout_s)
    store = SkeletonStore(database, skeleton_format, max_skeletons=max_skeletons)
    lookup = SkeletonLookup(known, SkeletonCache(store))
    streams = StreamLimiter((recordings or {}).get("max_streams", 4), max_video_memory_bytes)
    behind = ThreadPoolExecutor(12)
    recorder_ = recorder(estimator, behind, catalog, lookup, streams, **(recordings or {}))
    pose = PoseServicer(estimator, catalog, lookup, triton, allowed, recorder_)
    pose_service_pb2_grpc.add_PoseServiceServicer_to_server(pose, server)
    skeleton_service_pb2_grpc.add_SkeletonServiceServicer_to_server(
        SkeletonServicer(
            store,
            known,
            PoseRenderer(
                lookup,
                pool,
                RenderLimits(
                    image=allowed.image,
                    max_persons=allowed.max_persons,
                    uri_hosts=allowed.uri_hosts,
                ),
            ),
            PoseExporter(lookup, pool, max_bytes=allowed.max_message_bytes),
        ),
        server,
    )
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    listening = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    options = [("grpc.enable_retries", 0), ("grpc.max_receive_message_length", 1 << 28)]
    try:
        async with grpc.aio.insecure_channel(listening, options=options) as channel:
            yield Service(
                triton=triton,
                catalog=catalog,
                streams=streams,
                workers=pool,
                admission=admission,
                health=health,
                address=listening,
                channel=channel,
                poses=pose_service_pb2_grpc.PoseServiceStub(channel),
                skeletons=skeleton_service_pb2_grpc.SkeletonServiceStub(channel),
            )
    finally:
        await server.stop(None)
        await database.close()
        pool.shutdown(cancel_futures=True)
        behind.shutdown(cancel_futures=True)
        folder.cleanup()


def recorder(
    estimator: Estimator,
    threads: ThreadPoolExecutor,
    catalog: ModelCatalog,
    lookup: SkeletonLookup,
    streams: StreamLimiter,
    *,
    max_streams: int = 4,
    max_video_bytes: int = 50_000_000,
    max_video_seconds: float = 60.0,
    max_video_frames: int = 2000,
    look_ahead: int = 8,
    look_ahead_bytes: int = 64 << 20,
    idle_s: float = 10.0,
    max_upload_s: float = 60.0,
    stall_s: float = 10.0,
    keep_alive_s: float = 10.0,
    quiet_s: float = 60.0,
    frame_timeout_s: float = 10.0,
    spool: Path | None = None,
) -> Recordings:
    """Videos and streams with limits that are easily reached."""
    video = VideoLimits(max_video_bytes, 4_000_000, max_video_seconds, max_video_frames)
    settings = VideoSettings(
        limits=video,
        look_ahead=look_ahead,
        look_ahead_bytes=look_ahead_bytes,
        decode_threads=1,
        encode_threads=1,
        encoder="libx264",
        spool=SpoolSpace(spool),
        idle_s=idle_s,
        max_upload_s=max_upload_s,
        frame_timeout_s=frame_timeout_s,
    )
    live = StreamAnalyzer(
        estimator,
        streams,
        look_ahead=look_ahead,
        frame_timeout_s=frame_timeout_s,
        keep_alive_s=keep_alive_s,
        quiet_s=quiet_s,
    )
    limits = RecordingLimits(
        video=video,
        image=ImageLimits(max_bytes=8_000_000, max_pixels=4_000_000),
        max_persons=100,
        max_streams=max_streams,
        idle_s=idle_s,
        stall_s=stall_s,
        angles=Thresholds(),
    )
    return Recordings(
        VideoAnalyzer(estimator, threads, streams, settings), live, catalog, lookup, streams, limits
    )


def pose_limits(timeout_s: float = 30.0, **changes: Any) -> PoseLimits:
    """Limits that are easily reached."""
    return PoseLimits(
        **{
            "image": ImageLimits(max_bytes=8_000_000, max_pixels=4_000_000),
            "max_batch_size": 4,
            "max_persons": 100,
            "max_in_flight": 64,
            "max_in_flight_bytes": 1 << 29,
            "max_message_bytes": 1 << 28,
            "max_kept_images": 2,
            "max_batch_at_once": 2,
            "request_timeout_s": timeout_s,
            "uri_hosts": frozenset(),
            "max_skeletons": 1000,
            "angles": Thresholds(),
            **changes,
        }
    )


@dataclass(frozen=True)
class Failure:
    """How a call failed.

    Attributes:
        code: its canonical code.
        message: what the caller reads.
        reason: of ErrorInfo; empty without one.
        domain: of ErrorInfo.
        metadata: of ErrorInfo.
        violations: of BadRequest, description by field.
        request_id: of RequestInfo.
        retry_s: of RetryInfo; None without one.
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
    initial: dict[str, Any] = field(default_factory=dict)
    trailing: dict[str, Any] = field(default_factory=dict)


async def failure(call: Awaitable[Any]) -> Failure:
    """The failure of a call; AssertionError when it succeeds."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return told(error)
    raise AssertionError(f"the call succeeded: {answer}")


def told(error: grpc.aio.AioRpcError) -> Failure:
    """What the status and the metadata of a failed call say."""
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
    """What the status of one picture of a batch says."""
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    return Failure(code=code, message=status.message, **_details(status))


def _details(status: status_pb2.Status) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for packed in status.details:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        request = error_details_pb2.RequestInfo()
        if packed.Unpack(info):
            found |= {"reason": info.reason, "domain": info.domain, "metadata": dict(info.metadata)}
        elif packed.Unpack(bad):
            found["violations"] = {item.field: item.description for item in bad.field_violations}
        elif packed.Unpack(retry):
            found["retry_s"] = retry.retry_delay.ToTimedelta().total_seconds()
        elif packed.Unpack(request):
            found["request_id"] = request.request_id
        else:
            raise AssertionError(f"unknown detail {MessageToDict(packed)}")
    return found


async def cancelled(call: Any) -> None:
    """Cancel a call, as a caller who goes away."""
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        return
    raise AssertionError("the call was not cancelled")
