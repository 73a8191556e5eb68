"""Prometheus metrics of the gateway, served on a separate port."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from wsgiref.simple_server import WSGIServer

import prometheus_client
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from typing_extensions import override

from service.errors import REASONS
from service.telemetry.call_context import STAGES, Observer
from service.telemetry.spans import Stage

# From one small image on a GPU (5 ms) to a call that waits for its deadline (30 s), finest from 50 to
# 500 ms, where a delay is noticed; videos may be beyond. A stage may be a small part of the shortest call or
# nearly all of the longest.
_CALL_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STAGE_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PERSONS = (0, 1, 2, 3, 5, 10, 20, 50, 100, 300)

_SHED = (
    "QUEUE_FULL",
    "SPOOL_FULL",
    "TOO_MANY_BYTES_IN_FLIGHT",
    "TOO_MANY_IN_FLIGHT",
    "TOO_MANY_STREAMS",
    "TOO_MUCH_VIDEO_MEMORY",
)
_OTHER = "OTHER"  # for a label outside of the known ones


class Metrics(Observer):
    """Prometheus metrics in a registry of their own.

    Args:
        version: of the build.
        rpcs: names of all methods; others count as OTHER, as unknown reasons do.
        in_flight: number of calls in progress.
        streams: number of those that are videos and streams.
    """

    def __init__(
        self,
        version: str,
        rpcs: Collection[str],
        *,
        in_flight: Callable[[], int],
        streams: Callable[[], int],
    ) -> None:
        # Or there would be a second series beside each.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._rpcs = frozenset(rpcs)
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "posegate_requests", "Calls that have ended.", ("rpc", "code", "reason"), registry=registry
        )
        self._request_s = Histogram(
            "posegate_request_seconds",
            "From a call's beginning to its end.",
            ("rpc",),
            buckets=_CALL_S,
            registry=registry,
        )
        stage_s = Histogram(
            "posegate_stage_seconds",
            "Stages of one image; queue is the wait in the gateway for a thread and an inference slot, "
            "inference the call to Triton with the queue there.",
            ("stage",),
            buckets=_STAGE_S,
            registry=registry,
        )
        self._admitted = Counter(
            "posegate_admitted", "Calls and streams that were admitted.", registry=registry
        )
        self._shed = Counter(
            "posegate_shed",
            "Calls, streams and images of batches refused because of overload.",
            ("reason",),
            registry=registry,
        )
        self._bytes = Counter("posegate_request_bytes", "Bytes of the callers' messages.", registry=registry)
        self._plan_calls: Counter | None = None
        self._plan_counters: dict[tuple[str, str], Counter] = {}  # one for each plan and outcome
        self._persons = Histogram(
            "posegate_persons", "Persons in an image.", buckets=_PERSONS, registry=registry
        )
        self._frames = Counter(
            "posegate_frames", "Images that were frames of videos and streams.", registry=registry
        )
        self._triton_up = Gauge("posegate_triton_up", "1 while Triton answers.", registry=registry)
        self._model_ready = Gauge(
            "posegate_model_ready",
            "1 while a model of Triton's is ready, 0 while it is not, or failed to load.",
            ("model",),
            registry=registry,
        )
        self._ended: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}  # by rpc, code and reason
        self._models: set[str] = set()
        Gauge("posegate_in_flight", "Calls at work.", registry=registry).set_function(in_flight)
        Gauge("posegate_streams", "Videos and streams at work.", registry=registry).set_function(streams)
        build = Gauge("posegate_build_info", "1; the label tells.", ("version",), registry=registry)
        build.labels(version).set(1)
        # There from the start, at 0: a counter that appears with a value of 1 has not risen.
        for rpc in self._rpcs:
            self._requests.labels(rpc, "OK", "")
            self._request_s.labels(rpc)
        for reason in _SHED:
            self._shed.labels(reason)
        self._stage_s = {stage: stage_s.labels(stage) for stage in STAGES}
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def count_by_plan(self, plans: Collection[str]) -> None:
        """Count calls by the plan of their tenant from now on, for these plans."""
        self._plan_calls = Counter(
            "posegate_plan_calls",
            "Calls with an accepted API key that have ended, by the tenant's plan; outcome is OK, CANCELLED "
            "or the reason of the error.",
            ("plan", "outcome"),
            registry=self._registry,
        )
        for plan in plans:
            self._plan_calls.labels(plan, "OK")

    def watch_certificate(self, expires_at: Callable[[], float]) -> None:
        """Export the time at which the gateway's certificate expires, seconds since 1970."""
        Gauge(
            "posegate_certificate_expiry_timestamp_seconds",
            "When the certificate expires, seconds since 1970.",
            registry=self._registry,
        ).set_function(expires_at)

    @override
    def received(self, size: int) -> None:
        self._bytes.inc(size)

    @override
    def admitted(self) -> None:
        self._admitted.inc()

    @override
    def plan_call(self, plan: str, outcome: str) -> None:
        if self._plan_calls is not None:
            label = outcome if outcome in ("OK", "CANCELLED") else _known(outcome)
            counter = self._plan_counters.get((plan, label))
            if counter is None:
                counter = self._plan_counters[plan, label] = self._plan_calls.labels(plan, label)
            counter.inc()

    @override
    def shed(self, reason: str) -> None:
        self._shed.labels(_known(reason)).inc()

    @override
    def call_ended(self, rpc: str, code: str, reason: str, seconds: float) -> None:
        labels = rpc if rpc in self._rpcs else _OTHER, code, _known(reason)
        ended = self._ended.get(labels)
        if ended is None:
            ended = self._ended[labels] = (self._requests.labels(*labels), self._request_s.labels(labels[0]))
        ended[0].inc()
        ended[1].observe(seconds)

    @override
    def image_done(self, took_s: Mapping[Stage, float], persons: int | None, *, frame: bool) -> None:
        for stage, seconds in took_s.items():
            if seconds:
                self._stage_s[stage].observe(seconds)
        if persons is not None:
            self._persons.observe(persons)
            if frame:
                self._frames.inc()

    @override
    def triton(self, *, up: bool, models: Mapping[str, bool]) -> None:
        self._triton_up.set(up)
        for gone in self._models - set(models):
            self._model_ready.remove(gone)
        for model, ready in models.items():
            self._model_ready.labels(model).set(ready)
        self._models = set(models)

    def serve(self, address: str) -> MetricsPort:
        """Answer scrapes on host:port.

        Raises:
            OSError: the address is in use or not one of this host.
        """
        host, _, port = address.rpartition(":")
        server, thread = start_http_server(int(port), host.strip("[]") or "0.0.0.0", self._registry)  # noqa: S104 - as the operator wrote it
        return MetricsPort(server, thread)


def _known(reason: str) -> str:
    return reason if not reason or reason in REASONS else _OTHER


class MetricsPort:
    """The port on which metrics are served.

    Attributes:
        port: its number.
    """

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port = server.server_port

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
