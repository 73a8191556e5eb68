"""The composition root: the only file that names concrete classes and wires them together."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

import cv2
import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from posegate.v1 import (
    pose_service_pb2,
    pose_service_pb2_grpc,
    skeleton_service_pb2,
    skeleton_service_pb2_grpc,
)
from service.media.image import ImageLimits
from service.media.spool import SpoolSpace
from service.media.video_reader import VideoLimits
from service.pipeline.estimator import Estimator
from service.pipeline.stream import StreamAnalyzer
from service.pipeline.stream_limiter import StreamLimiter
from service.pipeline.video.analyzer import VideoAnalyzer, VideoSettings
from service.server.health import HealthMonitor
from service.server.interceptors import AdmissionInterceptor, RequestInterceptor
from service.server.malloc import keep_freed_memory
from service.server.tls import CertificateFiles, Certificates
from service.servicers.export import PoseExporter
from service.servicers.pose import PoseLimits, PoseServicer
from service.servicers.render import PoseRenderer, RenderLimits
from service.servicers.skeleton import SkeletonServicer
from service.servicers.skeleton_lookup import SkeletonLookup
from service.servicers.streaming import RecordingLimits, Recordings
from service.settings import Settings
from service.skeletons import format as skeleton_format
from service.skeletons import known
from service.store.address import SqliteAddress, parse
from service.store.cache import SkeletonCache
from service.store.database import Database
from service.store.skeletons import SkeletonStore
from service.telemetry.metrics import Metrics, MetricsPort
from service.telemetry.tracing import from_environment
from service.triton.catalog import ModelCatalog
from service.triton.client import TritonClient

_log = structlog.get_logger()

_BEGUN_S = 0.05  # a call that was let in at the last moment has begun by then
_SENT_S = 0.5  # an answer that is ready has been sent by then

_GOODBYE_S = 3.0  # streams that are still running end so long before the grace does, with a last word
_WORKERS_S = 5.0  # longer than cv2 takes for one step on the largest picture
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Gateway:
    """A gateway that listens.

    Attributes:
        port: the one it was given, or the free one it found for port 0.
        health: for whoever wants to watch it.
        health_port: of the second address, which serves health only; None without one.
        metrics_port: of the metrics; None without them.
    """

    port: int
    health: health_aio.HealthServicer
    health_port: int | None = None
    metrics_port: int | None = None


class CannotListen(Exception):
    """The address is taken or not ours; the text says which."""


@asynccontextmanager
async def gateway(settings: Settings) -> AsyncIterator[Gateway]:
    """A listening gateway; on leaving the block it is drained.

    Draining: NOT_SERVING first, so that load balancers look elsewhere; then no new calls, and those
    in flight get to finish, videos and streams a little less long; then the connections to Triton and the
    database close. The health port says NOT_SERVING until all of that is done.

    Raises:
        BadDatabaseUrl: the database's URL is not one that can be used.
        BadCertificate: the certificate cannot be used.
        BadTracing: the environment asks for traces that cannot be exported.
        CannotListen: an address cannot be bound.
    """
    database = _database(settings)
    certificates = _certificates(settings)
    tracing = from_environment()
    streams = StreamLimiter(settings.max_streams, settings.max_video_memory_bytes)
    metrics = Metrics(
        version("posegate"),
        [method.name for file, name in _SERVICES for method in file.services_by_name[name].methods],
        in_flight=lambda: requests.at_work,
        streams=lambda: streams.running,
    )
    requests = RequestInterceptor(settings.request_timeout_s, settings.max_message_bytes, metrics, tracing)
    keep_freed_memory()
    cv2.setNumThreads(1)  # the worker pool is the parallelism; cv2's own threads would fight it
    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_SILENT
    )  # broken pictures are answered, not printed
    workers = ThreadPoolExecutor(settings.workers, thread_name_prefix="pixels")
    triton = TritonClient(
        settings.triton_url,
        shared_memory=settings.triton_shared_memory == "auto" and _on_this_host(settings.triton_url),
        slots=settings.max_inferences,
    )
    templates = known(settings.skeletons)
    catalog = ModelCatalog(triton, templates, settings.default_model)
    estimator = Estimator(
        triton,
        workers,
        settings.max_inferences,
        settings.max_stream_inferences,
        settings.stream_inferences_beside,
    )
    # Three for each stream: one waits for bytes, one writes them, one encodes.
    behind = ThreadPoolExecutor(3 * settings.max_streams, thread_name_prefix="video")
    health = health_aio.HealthServicer()
    server = grpc.aio.server(
        interceptors=[
            requests,
            AdmissionInterceptor(settings.max_in_flight, settings.max_in_flight_bytes),
        ],
        options=[
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", settings.max_message_bytes),
            *_connection_options(settings),
        ],
    )
    health_server = grpc.aio.server(options=_connection_options(settings))
    store = SkeletonStore(database, skeleton_format, max_skeletons=settings.max_skeletons)
    lookup = SkeletonLookup(templates, SkeletonCache(store))
    recordings = Recordings(
        VideoAnalyzer(estimator, behind, streams, _video_settings(settings)),
        StreamAnalyzer(
            estimator,
            streams,
            look_ahead=settings.video_look_ahead,
            frame_timeout_s=settings.request_timeout_s,
            keep_alive_s=settings.stream_keep_alive_s,
            quiet_s=settings.stream_quiet_s,
        ),
        catalog,
        lookup,
        streams,
        _recording_limits(settings),
    )
    limits = _limits(settings)
    pose = PoseServicer(estimator, catalog, lookup, triton, limits, recordings)
    pose_service_pb2_grpc.add_PoseServiceServicer_to_server(pose, server)
    render_limits = RenderLimits(
        image=limits.image,
        max_persons=limits.max_persons,
        uri_hosts=limits.uri_hosts,
    )
    skeleton = SkeletonServicer(
        store,
        templates,
        PoseRenderer(lookup, workers, render_limits),
        PoseExporter(lookup, workers, max_bytes=settings.max_message_bytes),
    )
    skeleton_service_pb2_grpc.add_SkeletonServiceServicer_to_server(skeleton, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, health_server)
    if settings.reflection:
        names = [
            *(file.services_by_name[name].full_name for file, name in _SERVICES),
            HEALTH_SERVICE,
            reflection.SERVICE_NAME,
        ]
        reflection.enable_server_reflection(names, server)
    try:
        port = _bind(server, settings.listen, certificates)
        health_port = _bind(health_server, settings.health_listen) if settings.health_listen else None
        metrics_port = _serve_metrics(metrics, settings.metrics_listen) if settings.metrics_listen else None
    except CannotListen:
        await triton.close()
        workers.shutdown()
        behind.shutdown()
        await asyncio.to_thread(tracing.close)
        raise
    watching = [
        asyncio.create_task(
            HealthMonitor(triton, catalog, estimator, health, settings.health_interval_s, metrics).run()
        )
    ]
    if certificates is not None:
        metrics.watch_certificate(lambda: certificates.current.expires_at.timestamp())
        watching.append(asyncio.create_task(certificates.run()))
    database.start()
    await health_server.start()
    await server.start()
    _log.info(
        "listening",
        address=settings.listen,
        port=port,
        tls=_tls(settings),
        health_port=health_port,
        metrics_port=metrics_port.port if metrics_port is not None else None,
        triton=settings.triton_url,
    )
    try:
        yield Gateway(
            port=port,
            health=health,
            health_port=health_port,
            metrics_port=metrics_port.port if metrics_port is not None else None,
        )
    finally:
        _log.info("draining")
        for watch in watching:
            watch.cancel()
        await health.enter_graceful_shutdown()
        await asyncio.sleep(settings.drain_delay_s)
        streams.drain()
        ending = asyncio.get_running_loop().call_later(
            max(settings.drain_grace_s - _GOODBYE_S, settings.drain_grace_s / 2), streams.end
        )
        await _stop(server, requests, settings.drain_grace_s)
        ending.cancel()
        await triton.close()
        await database.close()
        await _end(workers)
        await _end(behind)
        await asyncio.to_thread(tracing.close)
        if metrics_port is not None:
            await asyncio.to_thread(metrics_port.close)
        await health_server.stop(None)
        _log.info("stopped")


def _bind(server: grpc.aio.Server, address: str, certificates: Certificates | None = None) -> int:
    """The port that the server will listen on, with TLS if there is a certificate."""
    try:
        if certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, certificates.credentials())
    except RuntimeError as error:
        raise CannotListen(f"cannot listen on {address}: it is in use or not an address here") from error


def _serve_metrics(metrics: Metrics, address: str) -> MetricsPort:
    try:
        return metrics.serve(address)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address}: it is in use or not an address here") from error


async def _end(workers: ThreadPoolExecutor) -> None:
    """End the threads. The calls they worked for are over, and they stop at their next checkpoint; who
    waits for them must not hold up the event loop."""
    ending = asyncio.create_task(asyncio.to_thread(workers.shutdown, cancel_futures=True))
    ended, _ = await asyncio.wait([ending], timeout=_WORKERS_S)
    if not ended:
        _log.warning("workers_still_busy")


async def _stop(server: grpc.aio.Server, requests: RequestInterceptor, grace_s: float) -> None:
    """No new calls; those of our services get the grace to finish. Whoever watches health never ends the
    call by himself, and is waited for no longer than them."""
    stopping = asyncio.create_task(server.stop(grace_s))
    await asyncio.sleep(_BEGUN_S)
    idle = asyncio.create_task(requests.idle())
    await asyncio.wait((stopping, idle), return_when=asyncio.FIRST_COMPLETED)
    idle.cancel()
    await server.stop(min(_SENT_S, grace_s))
    await stopping


async def serve(settings: Settings) -> None:
    """Run a gateway until SIGTERM or SIGINT."""
    stop = stop_on_signals()
    async with gateway(settings):
        await stop.wait()


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


_SERVICES = (
    (pose_service_pb2.DESCRIPTOR, "PoseService"),
    (skeleton_service_pb2.DESCRIPTOR, "SkeletonService"),
)


def _on_this_host(url: str) -> bool:
    return url.startswith("unix:") or url.rpartition(":")[0] in _LOOPBACK


def _connection_options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # a second gateway on the address must fail, not share it
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.max_connection_age_grace_s * 1000)),
    ]


def _certificates(settings: Settings) -> Certificates | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    return Certificates(files, settings.tls_reload_s)


def _tls(settings: Settings) -> str:
    if settings.tls_cert is None:
        return "off"
    return "on" if settings.tls_client_ca is None else "mutual"


def _video_limits(settings: Settings) -> VideoLimits:
    return VideoLimits(
        max_bytes=settings.max_video_bytes,
        max_pixels=settings.max_video_pixels,
        max_seconds=settings.max_video_seconds,
        max_frames=settings.max_video_frames,
    )


def _video_settings(settings: Settings) -> VideoSettings:
    return VideoSettings(
        limits=_video_limits(settings),
        look_ahead=settings.video_look_ahead,
        look_ahead_bytes=settings.video_look_ahead_bytes,
        decode_threads=settings.video_decode_threads,
        encode_threads=settings.video_encode_threads,
        encoder=settings.video_encoder,
        spool=SpoolSpace(settings.video_spool, settings.max_spool_bytes),
        idle_s=settings.stream_idle_s,
        max_upload_s=settings.max_upload_s,
        frame_timeout_s=settings.request_timeout_s,
    )


def _recording_limits(settings: Settings) -> RecordingLimits:
    return RecordingLimits(
        video=_video_limits(settings),
        image=ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels),
        max_persons=settings.max_persons,
        max_streams=settings.max_streams,
        idle_s=settings.stream_idle_s,
        stall_s=settings.stream_stall_s,
        angles=settings.angles,
    )


def _database(settings: Settings) -> Database:
    url = settings.database_url.get_secret_value()
    return Database(
        parse(url) if url else SqliteAddress(settings.home.absolute() / "posegate.db"),
        connections=settings.database_connections,
        timeout_s=settings.database_timeout_s,
    )


def _limits(settings: Settings) -> PoseLimits:
    return PoseLimits(
        image=ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels),
        max_batch_size=settings.max_batch_size,
        max_persons=settings.max_persons,
        max_in_flight=settings.max_in_flight,
        max_in_flight_bytes=settings.max_in_flight_bytes,
        max_message_bytes=settings.max_message_bytes,
        max_kept_images=2 * settings.workers + 2,
        max_batch_at_once=settings.max_inferences,
        request_timeout_s=settings.request_timeout_s,
        max_skeletons=settings.max_skeletons,
        angles=settings.angles,
        commit=settings.commit,
        uri_hosts=frozenset(filter(None, (host.strip().lower() for host in settings.uri_hosts.split(",")))),
    )
