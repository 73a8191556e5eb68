"""The bundled tritonserver: started, watched, restarted and stopped without leaving anything behind.

For `posegate up`, the demo and the tests; in production Triton is a workload of its own. The server runs
in a process group of its own, on loopback, and the kernel kills it when this process dies: its Python
stubs notice within a second and follow. The names of its shared memory hold this process's id, so that
what a killed predecessor left can be told from what is in use.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import TracebackType

import structlog

from service.triton import launch as launching
from service.triton.cleanup import owner_prefix, remove_traces_of_dead_processes
from service.triton.launch import LOOPBACK, Crashed, Hung, Launch, PortTaken, TritonProcessError
from service.triton.logs import emptied
from service.triton.server import Server

_log = structlog.get_logger()

_ATTEMPTS = 3  # to start
_BACKOFF_S = (0.0, 1.0, 2.0, 5.0, 10.0)  # the last one repeats
_WATCH_AGAIN_S = 1.0
_STABLE_S = 5.0  # after a life of this length the pauses between restarts begin anew


class TritonProcess:
    """One tritonserver process and, after a crash, its successors on the same ports.

        async with TritonProcess(launch) as triton:
            watcher = asyncio.create_task(triton.watch())
            ... triton.grpc_url ...

    It has to be started on the event loop of a thread that lives as long as the server should: the kernel
    ties the server's life to that thread.
    """

    _instances = count()

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._ports = launch.ports
        self._log_file: Path | None = None
        self._name = f"{owner_prefix()}{os.getpid()}-{next(self._instances)}"
        self._generations = count()
        self._folder: Path | None = None
        self._server: Server | None = None
        self._ending: set[asyncio.Task[None]] = set()  # predecessors whose processes have not all ended
        self._up = asyncio.Event()
        self._stopping = False

    @property
    def grpc_url(self) -> str:
        """host:port of Triton's gRPC endpoint; the same after a restart."""
        return f"{LOOPBACK}:{self._ports.grpc}"

    @property
    def pid(self) -> int | None:
        """Process id of the server, None while there is none."""
        return self._server.pid if self._server is not None else None

    @property
    def is_up(self) -> bool:
        """Whether the server has loaded its models and its process is alive."""
        return self._up.is_set() and self.pid is not None

    async def __aenter__(self) -> TritonProcess:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server and wait until it has loaded its models.

        A model that does not load is logged and leaves the others alone. A server that crashes while it
        starts, or does not start in time, is started again.

        Raises:
            TritonProcessError: it cannot start, or not in time; the text ends with its last log lines.
        """
        launching.check(self._launch)
        self._stopping = False
        await asyncio.to_thread(remove_traces_of_dead_processes)
        self._log_file = emptied(self._launch.log_file)
        for attempt in range(1, _ATTEMPTS + 1):
            with launching.free_ports(self._launch.ports) as self._ports:
                self._folder = launching.make_backend_folder(self._launch, self._name)
            try:
                await self._start_server(restarted=False)
                break
            except BaseException as error:
                last = self._stopping or attempt == _ATTEMPTS
                await self.stop()
                if last or not self._worth_another_start(error, attempt):
                    raise
                _log.warning("triton_started_again", why=str(error))
                self._stopping = False

    def _worth_another_start(self, error: BaseException, attempt: int) -> bool:
        """Whether a start failed for a reason that the next one is unlikely to meet."""
        match error:
            case PortTaken():
                # Between finding a free port and its use by Triton, another process may have taken it.
                return error.port not in self._launch.ports
            case Crashed():
                # Triton aborts (lock_exception) where a model process that starts stands still for a second
                # or two while it holds a lock of both.
                return True
            case Hung():
                # Or Triton takes it for dead and waits for its end, which never comes: no reason to wait a
                # third time, as it may be the models that take so long.
                return attempt == 1
        return False

    async def watch(
        self,
        on_down: Callable[[], None] = lambda: None,
        on_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Restart the server whenever it dies or hangs, with growing pauses; until cancelled or stopped."""
        loop = asyncio.get_running_loop()
        failures = 0
        while self._server is not None and not self._stopping:
            since = loop.time()
            server = self._server
            try:
                what = await server.failure()
            except OSError as error:  # no descriptor is left to watch it with
                _log.error("triton_not_watched", why=str(error))
                await asyncio.sleep(_WATCH_AGAIN_S)
                continue
            if self._stopping:
                return
            self._up.clear()
            _log.error("triton_died", what=what)
            on_down()
            # Its successor begins meanwhile: model processes take a while to give their memory back.
            await server.kill()
            self._end(server)
            if loop.time() - since > _STABLE_S:
                failures = 0
            while not self._stopping:
                await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1
                if self._stopping:
                    return
                try:
                    await self._start_server(restarted=True)
                except (TritonProcessError, OSError) as error:  # as where no process can be forked
                    _log.error("triton_restart_failed", why=str(error))
                    await self._server.remove()
                else:
                    _log.info("triton_restarted", pid=self.pid)
                    on_up()
                    break

    async def stop(self) -> None:
        """Let requests in flight finish, end every process of the server and remove what it left."""
        self._stopping = True
        self._up.clear()
        if self._server is not None:
            await self._server.stop()
            self._server = None
        await asyncio.gather(*self._ending, return_exceptions=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def _start_server(self, *, restarted: bool) -> None:
        assert self._folder is not None  # noqa: S101 - start() made it
        self._server = Server(
            self._launch,
            self._folder,
            self._ports,
            f"{self._name}-{next(self._generations)}-",
            self._log_file,
            restarted=restarted,
        )
        await self._server.start()
        self._up.set()

    def _end(self, server: Server) -> None:
        task = asyncio.create_task(server.report_end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
