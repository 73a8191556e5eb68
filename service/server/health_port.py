"""The second address for health: a server with threads of its own, which answers under any load of the event
loop."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_health.v1.health import aio as health_aio
from typing_extensions import override

from service.server.health import LIVENESS

_BEAT_S = 1.0
_STUCK_S = 30.0  # far beyond the longest step of the event loop


class _Threaded(health.HealthServicer):
    """Statuses, and the time of the event loop's last beat."""

    def __init__(self) -> None:
        super().__init__()
        self.beat_at = time.monotonic()

    @override
    def Check(self, request: Any, context: Any) -> Any:
        """The status of a service; `liveness` ends with the beat of the event loop."""
        if request.service == LIVENESS and time.monotonic() - self.beat_at > _STUCK_S:
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
        return super().Check(request, context)


class Health(health_aio.HealthServicer):
    """Statuses of the main port, kept on the second address too."""

    def __init__(self) -> None:
        super().__init__()
        self.threaded = _Threaded()

    @override
    async def set(self, service: str, status: Any) -> None:
        """Set a status in both places."""
        self.threaded.set(service, status)
        await super().set(service, status)

    @override
    async def enter_graceful_shutdown(self) -> None:
        """Set every status to NOT_SERVING for good."""
        self.threaded.enter_graceful_shutdown()
        await super().enter_graceful_shutdown()

    async def beat(self) -> None:
        """Show that the event loop runs; until cancelled."""
        while True:
            self.threaded.beat_at = time.monotonic()
            await asyncio.sleep(_BEAT_S)


def health_server(options: list[tuple[str, int]]) -> grpc.Server:
    """A server of health on threads of its own; not bound or started."""
    # grpc.aio keeps the process's other servers on the event loop; this one has its own queue and threads.
    return grpc.server(ThreadPoolExecutor(2, thread_name_prefix="health"), options=options)
