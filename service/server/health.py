"""Health monitor: watches Triton and sets the status of grpc.health.v1.

SERVING means: Triton is live, the default model is ready, and an inference has succeeded in the last
seconds, one of a caller or, where none calls, one of this monitor. The service name `liveness` does not
depend on Triton: a liveness probe that hung on Triton would restart every gateway when Triton restarts. It
ends when the gateway itself can work no more: no worker thread, or the event loop, was free for long.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

import numpy as np
import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from service.core.geometry import LETTERBOX_GREY, ScaledImage
from service.core.model import PoseModel
from service.errors import PosegateError, Unavailable
from service.pipeline.estimator import DetectionOptions, Estimator
from service.pipeline.preparation import prepare
from service.telemetry.call_context import Observer
from service.triton.catalog import ModelCatalog
from service.triton.client import TritonError

_log = structlog.get_logger()

LIVENESS = "liveness"
SERVICES = ("", "posegate.v1.PoseService", "posegate.v1.SkeletonService", "posegate.v1.AccountService")

_PROOF_S = 5.0  # an inference is proof for so long that the model answers
_PROOF_TIMEOUT_S = 15.0  # far beyond a full queue
_STUCK_S = 15.0  # without a free thread: then it counts whether any gets on
_NO_STEP_S = 60.0  # far beyond the longest step of work, which is eight seconds of CPU time
_SAY_AGAIN_S = 10.0  # between two reasons that change all the time
_WARM_UP_S = 60.0  # an OpenVINO shape that is not in the compile cache takes seconds


_NO_WORKER = "no worker thread was free for a long time"


class Triton(Protocol):
    """Port: what the monitor needs of Triton."""

    async def is_live(self) -> bool:
        """Whether it answers."""

    async def attach(self, largest_bytes: int) -> None:
        """Set up what a restart of Triton forgets; does nothing while it is set up."""


class HealthMonitor:
    """Keeps the health service, the catalog and the connection's shared memory up to date."""

    def __init__(
        self,
        triton: Triton,
        catalog: ModelCatalog,
        estimator: Estimator,
        health: health_aio.HealthServicer,
        interval_s: float,
        observer: Observer | None = None,
        *,
        proof_s: float = _PROOF_S,
    ) -> None:
        self._proof_s = proof_s
        self._observer = observer or Observer()
        self._why = ""  # it is not serving, as last logged
        self._why_at = -_SAY_AGAIN_S
        self._triton = triton
        self._catalog = catalog
        self._estimator = estimator
        self._health = health
        self._interval_s = interval_s
        self._serving = False
        self._alive = True
        self._probe: tuple[asyncio.Task[None], float] | None = None

    async def run(self) -> None:
        """Check Triton and update the status at every interval; until cancelled."""
        await announce_start(self._health)
        while True:
            try:
                why = await self._look()
                self._explain(why)
            except Exception as error:
                # The monitor must go on after any error: without it the service stays NOT_SERVING.
                why = str(error) or type(error).__name__
                self._explain(why, error)
            await self._tell_liveness(alive=why != _NO_WORKER)
            serving = not why
            if serving != self._serving:
                _log.info("serving" if serving else "not_serving")
                await self._tell(serving=serving)
            await asyncio.sleep(self._interval_s)

    def _explain(self, why: str, error: Exception | None = None) -> None:
        """Log the reason for not serving once, when it is new, and not at every check."""
        now = time.monotonic()
        if not why:
            self._why = ""
        elif why != self._why and (self._why == "" or now >= self._why_at + _SAY_AGAIN_S):
            self._why, self._why_at = why, now
            if error is None or isinstance(error, TritonError):
                _log.warning("not_ready", why=why)
            else:
                _log.error("health_check_failed", exc_info=error)

    async def _look(self) -> str:
        """Check once; the reason why the gateway cannot serve, empty when it can."""
        live = False
        try:
            live = await self._triton.is_live()
        finally:
            if not live:
                self._catalog.mark_away()
                self._tell_models(up=False)
        if not live:
            return "Triton does not answer"
        try:
            try:
                await self._catalog.refresh()
            finally:
                self._tell_models(up=True)
            models = [model for model in self._catalog.models() if model.ready]
            sizes = [
                3 * height * width + model.candidates_bytes
                for model in models
                for height, width in model.shapes_hw
            ]
            if sizes:
                await self._triton.attach(max(sizes))
            default = self._catalog.pose_model("")
            if self._workers_are_stuck():
                return _NO_WORKER
            if not self._serving:
                await self._infer(default, _WARM_UP_S)
            elif time.monotonic() - self._estimator.answered_at > self._proof_s:
                await self._infer(default, _PROOF_TIMEOUT_S)
        except PosegateError as error:
            return error.message
        return ""

    async def _infer(self, model: PoseModel, timeout_s: float) -> None:
        """Prove that the model answers.

        Raises:
            Unavailable: it did not; also after a timeout, which is no error of a caller here.
        """
        height, width = model.first.shapes_hw[0]
        grey = np.full((height, width, 3), LETTERBOX_GREY, np.uint8)
        options = DetectionOptions(min_score=0.5, iou_threshold=0.7, max_persons=1)
        try:
            async with asyncio.timeout(timeout_s):
                prepared = await self._estimator.run(prepare, ScaledImage.whole(grey), model)
                # As a stream, the monitor is no caller that others would have to share slots with.
                await self._estimator.estimate_prepared(
                    prepared, model, options, timeout_s=timeout_s, stream=LIVENESS
                )
        except TimeoutError:
            raise Unavailable(f"The model did not answer within {timeout_s:g} s.") from None

    def _tell_models(self, *, up: bool) -> None:
        ready: dict[str, bool] = {}
        for model in self._catalog.models():
            ready[model.name] = ready.get(model.name, False) or model.ready
        self._observer.triton(up=up, models=ready)

    def _workers_are_stuck(self) -> bool:
        """Whether no worker thread is free, empty work has not been done for a long time, and none gets on
        with what it does: a long queue moves, and a restart would lose it."""
        if self._probe is not None and not self._probe[0].done():
            waited_s = time.monotonic() - self._probe[1]
            return waited_s > _STUCK_S and self._estimator.is_stuck(_NO_STEP_S)
        self._probe = asyncio.create_task(self._estimator.run(_nothing)), time.monotonic()
        return False

    async def _tell_liveness(self, *, alive: bool) -> None:
        if alive != self._alive:
            self._alive = alive
            status = health_pb2.HealthCheckResponse
            await self._health.set(LIVENESS, status.SERVING if alive else status.NOT_SERVING)

    async def _tell(self, *, serving: bool) -> None:
        self._serving = serving
        status = health_pb2.HealthCheckResponse
        for service in SERVICES:
            await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)


async def announce_start(health: health_aio.HealthServicer) -> None:
    """Set NOT_SERVING for all but `liveness`; the health service itself starts as SERVING."""
    await health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
    for service in SERVICES:
        await health.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)


def _nothing() -> None:
    """Work that takes no time."""
