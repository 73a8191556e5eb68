"""The composition root: the only file that names concrete classes and wires them together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Protocol

import cv2
import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from posegate.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    pose_service_pb2,
    pose_service_pb2_grpc,
    skeleton_service_pb2,
    skeleton_service_pb2_grpc,
)
from service.accounts.gate import AccountGate
from service.accounts.keyring import Keyring
from service.accounts.plans import load_plans
from service.accounts.quotas import Quotas
from service.accounts.usage import UsageRecorder
from service.media.isolation.images import ImageBudget, ImageDecoder
from service.media.isolation.processes import DecoderHost
from service.media.isolation.videos import IsolatedVideoReader
from service.media.malloc import keep_freed_memory
from service.media.niceness import step_back
from service.media.spool import SpoolSpace
from service.pipeline.estimator import Estimator, InferenceClient
from service.pipeline.limits import Limits
from service.pipeline.stream import StreamAnalyzer
from service.pipeline.stream_limiter import StreamLimiter
from service.pipeline.video.analyzer import VideoAnalyzer
from service.server import health as health_monitor
from service.server.accounts import AccountInterceptor
from service.server.admission import AdmissionInterceptor
from service.server.arrivals import Arrivals
from service.server.health import HealthMonitor
from service.server.health_port import Health, health_server
from service.server.interceptors import RequestInterceptor
from service.server.lifecycle import drain, end_threads
from service.server.memory import MemoryGuard
from service.server.options import NO_COMPRESSION, connection_options
from service.server.reading import RequestReader
from service.server.supervision import supervise
from service.server.tls import CertificateFiles, Certificates
from service.servicers.account import AccountServicer
from service.servicers.pose import PoseServicer, TritonVersion
from service.servicers.requests.skeleton_lookup import SkeletonLookup
from service.servicers.skeleton import SkeletonServicer
from service.servicers.streaming import StreamingMethods
from service.settings import Settings, is_on_this_host
from service.skeletons import format as skeleton_format
from service.skeletons import known
from service.store.cache import SkeletonCache
from service.store.database import Database, database_of
from service.store.quotas import QuotaStore
from service.store.skeletons import SkeletonStore
from service.store.tenants import TenantStore
from service.store.usage import UsageStore
from service.telemetry.metrics import Metrics, MetricsPort
from service.telemetry.tracing import from_environment
from service.triton.catalog import ModelCatalog, ModelSource
from service.triton.client import TritonClient

_log = structlog.get_logger()

_VIDEO_THREADS = 3  # of each stream: one waits for bytes, one writes them, one encodes

_ARRIVING = 4  # requests on their way, for each that may be at work

_SERVICES = (
    (pose_service_pb2.DESCRIPTOR, "PoseService"),
    (skeleton_service_pb2.DESCRIPTOR, "SkeletonService"),
    (account_service_pb2.DESCRIPTOR, "AccountService"),
)


class CannotListen(Exception):
    """An address cannot be bound: in use, or not one of this host; the text says which."""


class Triton(InferenceClient, ModelSource, TritonVersion, health_monitor.Triton, Protocol):
    """Port: everything that the gateway needs of Triton."""

    async def close(self) -> None:
        """Close the connection and free what it holds."""


@dataclass(frozen=True, eq=False)
class Gateway:
    """A listening gateway.

    Attributes:
        port: the configured port, or the free one that was found for port 0.
        health_port: of the second address, which serves health only; None without one.
        metrics_port: of the metrics; None without them.
        server: the gRPC server.
        health: status by service.
        catalog: models that Triton serves.
        streams: counts and ends videos and streams.
        workers: threads for CPU work.
    """

    port: int
    health_port: int | None
    metrics_port: int | None
    server: grpc.aio.Server
    health: health_aio.HealthServicer
    catalog: ModelCatalog
    streams: StreamLimiter
    workers: ThreadPoolExecutor


@asynccontextmanager
async def build_gateway(
    settings: Settings, *, triton: Triton | None = None, decoders: DecoderHost | None = None
) -> AsyncIterator[Gateway]:
    """A listening gateway; at the end of the block it is drained and everything it opened is closed.

    If a step fails, everything that was opened before is closed. At the end comes the drain, as
    `lifecycle.drain` describes it; then the connections to Triton and the database, the threads, metrics and
    traces are closed, and last the health port, which says NOT_SERVING until then.

    Args:
        settings: of the gateway.
        triton: in place of a connection to `settings.triton_url`; closed at the end like that.
        decoders: in place of a host of decoder processes of its own; left open at the end.

    Raises:
        BadDatabaseUrl: the database's URL is not one that can be used.
        BadPlans: the file of plans cannot be used.
        BadCertificate: the certificate cannot be used.
        BadTracing: the environment asks for traces that cannot be exported.
        CannotListen: an address cannot be bound.
    """
    async with AsyncExitStack() as stack:
        if triton is not None:
            stack.push_async_callback(triton.close)
        limits = Limits.of(settings)
        certificates = _certificates(settings)
        _set_up_process()

        health = Health()
        await health_monitor.announce_start(health)
        health_port = await _serve_health(stack, health, settings) if settings.health_listen else None
        tracing = from_environment()
        stack.push_async_callback(asyncio.to_thread, tracing.close)

        host = decoders or DecoderHost()
        memory = MemoryGuard(settings.max_memory, lambda: requests.at_work, host.pids)
        streams = StreamLimiter(limits.max_streams, limits.max_video_memory_bytes, memory.check)
        metrics = Metrics(
            version("posegate"),
            [method.name for file, name in _SERVICES for method in file.services_by_name[name].methods],
            in_flight=lambda: requests.at_work,
            streams=lambda: streams.running,
        )
        arrivals = Arrivals(_ARRIVING * limits.max_in_flight, settings.max_request_s, memory)
        requests = RequestInterceptor(
            limits.request_timeout_s,
            # At the loop's priority: it holds the interpreter's lock, for which the loop would wait.
            RequestReader(limits.max_message_bytes, metrics.received, _threads(stack, 1, "reading")),
            limits.max_message_bytes,
            metrics,
            tracing,
            arrivals=arrivals,
            unread_s=settings.unread_s,
        )
        metrics_port = await _serve_metrics(stack, metrics, settings) if settings.metrics_listen else None

        workers = _threads(stack, settings.workers, "pixels", step_back)
        waiting = _threads(stack, settings.workers, "decoding", step_back)
        images = ImageDecoder(host, ImageBudget(settings.max_decode_cpu_s), settings.scaled_decoding)
        if decoders is None:
            # The end of its processes frees the threads that wait for them, which end after that.
            stack.push_async_callback(asyncio.to_thread, host.close)
            host.start()
        stack.callback(images.close)
        video_threads = _threads(stack, _VIDEO_THREADS * limits.max_streams, "video", step_back)
        database = database_of(settings)
        stack.push_async_callback(database.close)
        quotas = Quotas(QuotaStore(database)) if settings.auth == "keys" else None
        gate = None if quotas is None else _gate(settings, database, quotas)
        if gate is not None:
            metrics.count_by_plan(gate.plans)
            stack.push_async_callback(gate.close)
        if triton is None:
            triton = _triton_client(settings)
            stack.push_async_callback(triton.close)

        templates = known(settings.skeletons)
        catalog = ModelCatalog(triton, templates, settings.default_model)
        estimator = Estimator(
            triton,
            workers,
            limits.max_inferences,
            limits.max_stream_inferences,
            limits.stream_inferences_beside,
            limits.tenant_inferences_beside,
            waiting_threads=waiting,
            large_at_once=settings.workers,
        )
        store = SkeletonStore(
            database, skeleton_format, max_skeletons=limits.max_skeletons, of_tenants=gate is not None
        )
        lookup = SkeletonLookup(templates, SkeletonCache(store))
        streaming = StreamingMethods(
            VideoAnalyzer(
                estimator,
                video_threads,
                streams,
                limits,
                SpoolSpace(settings.video_spool, settings.max_spool_bytes),
                make_reader=partial(IsolatedVideoReader, host),
            ),
            StreamAnalyzer(
                estimator,
                streams,
                look_ahead=limits.video_look_ahead,
                look_ahead_bytes=limits.video_look_ahead_bytes,
                frame_timeout_s=limits.request_timeout_s,
                keep_alive_s=limits.stream_keep_alive_s,
                quiet_s=limits.stream_quiet_s,
            ),
            catalog,
            lookup,
            streams,
            limits,
            images.loading,
        )
        accounts = None if gate is None else AccountInterceptor(gate, metrics, requests.check_size, arrivals)
        server = grpc.aio.server(
            interceptors=[
                requests,
                *([] if accounts is None else [accounts]),
                AdmissionInterceptor(limits.max_in_flight, limits.max_in_flight_bytes),
            ],
            options=[
                ("grpc.max_receive_message_length", limits.max_message_bytes),
                ("grpc.max_send_message_length", limits.max_message_bytes),
                NO_COMPRESSION,
                *connection_options(settings),
            ],
        )
        pose = PoseServicer(
            estimator,
            catalog,
            lookup,
            triton,
            limits,
            streaming,
            commit=settings.commit,
            decode=images.loading,
        )
        pose_service_pb2_grpc.add_PoseServiceServicer_to_server(pose, server)
        skeleton = SkeletonServicer(
            store,
            templates,
            lookup,
            workers,
            waiting,
            estimator.slot,
            limits,
            images.loading,
        )
        skeleton_service_pb2_grpc.add_SkeletonServiceServicer_to_server(skeleton, server)
        account = AccountServicer(limits, None if quotas is None else quotas.standing)
        account_service_pb2_grpc.add_AccountServiceServicer_to_server(account, server)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        if settings.reflection:
            _reflect(server)

        port = _bind(server, settings.listen, certificates)
        database.start()
        await server.start()
        stack.push_async_callback(
            drain,
            server,
            health,
            requests,
            streams,
            delay_s=settings.drain_delay_s,
            grace_s=settings.drain_grace_s,
        )
        monitor = HealthMonitor(triton, catalog, estimator, health, settings.health_interval_s, metrics)
        supervise(stack, "health", monitor.run)
        supervise(stack, "memory", memory.run)
        if gate is not None and accounts is not None:
            supervise(stack, "accounts", gate.run)
            supervise(stack, "open streams", accounts.run)
        if certificates is not None:
            metrics.watch_certificate(lambda: certificates.current.expires_at.timestamp())
            supervise(stack, "certificates", certificates.run)
        _log.info(
            "listening",
            address=settings.listen,
            port=port,
            tls=_tls(settings),
            health_port=health_port,
            metrics_port=metrics_port,
            triton=settings.triton_url,
            max_memory=settings.max_memory,
            max_in_flight_bytes=limits.max_in_flight_bytes,
            max_video_memory_bytes=limits.max_video_memory_bytes,
        )
        yield Gateway(
            port=port,
            health_port=health_port,
            metrics_port=metrics_port,
            server=server,
            health=health,
            catalog=catalog,
            streams=streams,
            workers=workers,
        )
    _log.info("stopped")


def _set_up_process() -> None:
    """Configure the libraries for the whole process."""
    keep_freed_memory()
    cv2.setNumThreads(1)  # the worker pool is the parallelism; cv2's own threads would compete with it
    # Broken images are answered, not printed.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


async def _serve_health(stack: AsyncExitStack, health: Health, settings: Settings) -> int:
    """Serve health on its own address and threads, without TLS; the port."""
    server = health_server([NO_COMPRESSION, *connection_options(settings)])
    health_pb2_grpc.add_HealthServicer_to_server(health.threaded, server)
    port = _bind(server, settings.health_listen)
    server.start()
    stack.push_async_callback(asyncio.to_thread, lambda: server.stop(None).wait())
    supervise(stack, "beat", health.beat)
    return port


async def _serve_metrics(stack: AsyncExitStack, metrics: Metrics, settings: Settings) -> int:
    """Serve metrics over HTTP; the port."""
    try:
        listening: MetricsPort = metrics.serve(settings.metrics_listen)
    except OSError as error:
        raise _cannot_listen(settings.metrics_listen) from error
    stack.push_async_callback(asyncio.to_thread, listening.close)
    return listening.port


def _threads(
    stack: AsyncExitStack, count: int, name: str, initializer: Callable[[], None] | None = None
) -> ThreadPoolExecutor:
    threads = ThreadPoolExecutor(count, thread_name_prefix=name, initializer=initializer)
    stack.push_async_callback(end_threads, threads)
    return threads


def _triton_client(settings: Settings) -> TritonClient:
    return TritonClient(
        settings.triton_url,
        shared_memory=settings.triton_shared_memory == "auto" and is_on_this_host(settings.triton_url),
        slots=settings.max_inferences,
    )


def _reflect(server: grpc.aio.Server) -> None:
    names = [
        *(file.services_by_name[name].full_name for file, name in _SERVICES),
        HEALTH_SERVICE,
        reflection.SERVICE_NAME,
    ]
    reflection.enable_server_reflection(names, server)


def _bind(
    server: grpc.aio.Server | grpc.Server, address: str, certificates: Certificates | None = None
) -> int:
    """Bind an address, with TLS if there is a certificate; the port."""
    try:
        if certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, certificates.credentials())
    except RuntimeError as error:
        raise _cannot_listen(address) from error


def _cannot_listen(address: str) -> CannotListen:
    return CannotListen(f"cannot listen on {address}: it is in use or not an address here")


def _gate(settings: Settings, database: Database, quotas: Quotas) -> AccountGate:
    tenants = TenantStore(database)
    return AccountGate(
        Keyring(tenants, refresh_s=settings.auth_refresh_s),
        load_plans(settings.plans),
        quotas,
        UsageRecorder(UsageStore(database), tenants),
        write_s=settings.usage_write_s,
    )


def _certificates(settings: Settings) -> Certificates | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    return Certificates(files, settings.tls_reload_s)


def _tls(settings: Settings) -> str:
    if settings.tls_cert is None:
        return "off"
    return "on" if settings.tls_client_ca is None else "mutual"
