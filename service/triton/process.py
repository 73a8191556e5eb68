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
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType

import structlog
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from service.triton import launch as launching
from service.triton.cleanup import (
    ended,
    first_ended,
    group_members,
    is_suspended,
    kill_group,
    owner_prefix,
    remove_shared_memory,
    remove_traces_of_dead_processes,
)
from service.triton.launch import LOOPBACK, Launch, PortTaken, TritonProcessError
from service.triton.logs import ServerLog, emptied

_log = structlog.get_logger()

_POLL_S = 0.05
_CONTROL_TIMEOUT_S = 2.0
_KILL_GRACE_S = 5.0
_ATTEMPTS_FOR_PORTS = 3
_BACKOFF_S = (0.0, 1.0, 2.0, 5.0, 10.0)  # the last one repeats
_PROBE_INTERVAL_S = 1.0
_PROBE_TIMEOUT_S = 2.0
_PROBES = 4  # in a row without an answer: the server hangs
_STABLE_S = 60.0  # after a life of this length the pauses between restarts begin anew


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
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._server_log = ServerLog(None)
        self._log_file: Path | None = None
        self._name = f"{owner_prefix()}{os.getpid()}-{next(self._instances)}"
        self._folder: Path | None = None
        self._stubs: frozenset[int] = frozenset()
        self._up = asyncio.Event()
        self._stopping = False

    @property
    def grpc_url(self) -> str:
        """host:port of Triton's gRPC endpoint; the same after a restart."""
        return f"{LOOPBACK}:{self._ports.grpc}"

    @property
    def pid(self) -> int | None:
        """Process id of the server, None while there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

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

        A model that does not load is logged and leaves the others alone.

        Raises:
            TritonProcessError: it cannot start, or not in time; the text ends with its last log lines.
        """
        launching.check(self._launch)
        self._stopping = False
        await asyncio.to_thread(remove_traces_of_dead_processes)
        self._log_file = emptied(self._launch.log_file)
        for attempt in range(1, _ATTEMPTS_FOR_PORTS + 1):
            with launching.free_ports(self._launch.ports) as self._ports:
                self._folder = launching.make_backend_folder(self._launch, self._name)
            try:
                await self._start_once()
                break
            except BaseException as error:
                await self.stop()
                # Between finding a free port and its use by Triton, another process may have taken it.
                retry = isinstance(error, PortTaken) and error.port not in self._launch.ports
                if not retry or attempt == _ATTEMPTS_FOR_PORTS:
                    raise
                self._stopping = False

    async def watch(
        self,
        on_down: Callable[[], None] = lambda: None,
        on_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Restart the server whenever it dies or hangs, with growing pauses; until cancelled or stopped."""
        loop = asyncio.get_running_loop()
        failures = 0
        while self._process is not None and not self._stopping:
            since = loop.time()
            what = await self._failure(self._process)
            if self._stopping:
                return
            self._up.clear()
            await self._reap()
            code = await self._process.wait()
            last_lines = list(self._server_log.tail)[-5:]
            _log.error("triton_died", what=what, exit_code=code, last_lines=last_lines)
            on_down()
            if loop.time() - since > _STABLE_S:
                failures = 0
            while not self._stopping:
                await self._reap()
                await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1
                if self._stopping:
                    return
                try:
                    await self._start_once()
                except TritonProcessError as error:
                    _log.error("triton_restart_failed", why=str(error))
                else:
                    _log.info("triton_restarted", pid=self.pid)
                    on_up()
                    break

    async def _failure(self, process: asyncio.subprocess.Process) -> str:
        """Wait until the server can no longer serve: `server` or `model` for a process that ended, `hang` for
        a server that does not answer, `stopped` for a model process that was suspended.

        The end of one model process counts as the end of the server: Triton does not start that one again,
        yet calls the model ready and answers every request for it with an error.
        """
        ending = asyncio.create_task(first_ended({process.pid, *self._stubs}))
        hanging = asyncio.create_task(self._until_unresponsive())
        try:
            await asyncio.wait((ending, hanging), return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                return "server" if ending.result() == process.pid else "model"
            return hanging.result()
        finally:
            ending.cancel()
            hanging.cancel()
            await asyncio.gather(ending, hanging, return_exceptions=True)

    async def _until_unresponsive(self) -> str:
        """Wait until several probes in a row have failed; which kind of failure it is."""
        client = self._client()
        try:
            failures = 0
            while failures < _PROBES:
                await asyncio.sleep(_PROBE_INTERVAL_S)
                failing = "hang"
                try:
                    answers = await client.is_server_live(client_timeout=_PROBE_TIMEOUT_S)
                except InferenceServerException:
                    answers = False
                if answers and any(is_suspended(pid) for pid in self._stubs):
                    answers, failing = False, "stopped"
                failures = 0 if answers else failures + 1
            return failing
        finally:
            await client.close()

    def _client(self) -> triton_aio.InferenceServerClient:
        return triton_aio.InferenceServerClient(self.grpc_url, channel_args=[("grpc.enable_http_proxy", 0)])

    async def stop(self) -> None:
        """Let requests in flight finish, end every process of the server and remove what it left."""
        self._stopping = True
        self._up.clear()
        process = self._process
        if process is not None:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.terminate()
                with suppress(TimeoutError):
                    # Triton itself gives up after stop_grace_s; then it still has to unload its models.
                    await asyncio.wait_for(ended(process.pid), self._launch.stop_grace_s + _KILL_GRACE_S)
            await self._reap()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def _start_once(self) -> None:
        assert self._folder is not None  # noqa: S101 - start() made it
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._server_log = ServerLog(self._log_file)
        self._launch.cache.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *launching.command(self._launch, self._folder, self._ports, self._name),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self._folder,
            env=launching.environment(self._launch),
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._reading = asyncio.create_task(self._server_log.read(self._process.stdout))
        try:
            async with asyncio.timeout(self._launch.start_timeout_s):
                await self._wait_until_listening(self._process)
                failed = await self._models_not_loaded()
        except TimeoutError:
            await self._reap()
            raise self._error(f"Triton did not start within {self._launch.start_timeout_s:g} s") from None
        self._stubs = group_members(self._process.pid)
        for name, why in failed.items():
            _log.error("model_not_loaded", model=name, why=why)
        _log.info("triton_up", grpc=self.grpc_url, seconds=round(loop.time() - started, 2))
        self._up.set()

    async def _wait_until_listening(self, process: asyncio.subprocess.Process) -> None:
        """Wait until the server says that it listens, which it does after loading its models.

        Raises:
            PortTaken: another process has one of its ports.
            TritonProcessError: it ended.
        """
        while True:
            dead = process.returncode is not None
            if dead:
                await self._reap()  # reads the log to its last line
            if self._server_log.port_taken is not None:
                raise PortTaken(self._server_log.port_taken)
            if dead:
                raise self._error(f"Triton ended with exit code {process.returncode} while it started")
            if self._server_log.listening:
                return
            await asyncio.sleep(_POLL_S)

    async def _models_not_loaded(self) -> Mapping[str, str]:
        """Names of the models that did not load, with the reasons."""
        client = triton_aio.InferenceServerClient(self.grpc_url, channel_args=[("grpc.enable_http_proxy", 0)])
        try:
            index = await client.get_model_repository_index(client_timeout=_CONTROL_TIMEOUT_S)
        except InferenceServerException as error:
            raise self._error(f"Triton listens and does not answer: {error.message()}") from error
        finally:
            await client.close()
        return {
            model.name: model.reason or "Triton's log says why"
            for model in index.models
            if model.state != "READY"
        }

    def _error(self, message: str) -> TritonProcessError:
        tail = "\n".join(self._server_log.tail)
        return TritonProcessError(f"{message}. Its last lines:\n{tail}" if tail else message)

    async def _reap(self) -> None:
        """End every process of the server's process group, and remove its shared memory."""
        if self._process is None:
            return
        await kill_group(self._process, _KILL_GRACE_S)
        if self._reading is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._reading, _KILL_GRACE_S)
            self._reading = None
        remove_shared_memory(self._name + "-")
