"""One process of the bundled tritonserver: started, watched, and ended with all that belongs to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import structlog
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from service.triton import launch as launching
from service.triton.cleanup import (
    children_of,
    end_group,
    ended,
    first_ended,
    is_suspended,
    kill_group,
    remove_shared_memory,
)
from service.triton.launch import LOOPBACK, Crashed, Hung, Launch, Ports, PortTaken, TritonProcessError
from service.triton.logs import ServerLog

_log = structlog.get_logger()

_POLL_S = 0.05
_KILL_GRACE_S = 5.0
_PROBE_INTERVAL_S = 1.0
_PROBE_TIMEOUT_S = 2.0
_PROBES = 4  # in a row without an answer: the server hangs


class Server:
    """One tritonserver process with its model processes, in a process group of its own.

    Args:
        launch: what to start.
        folder: as `launch.make_backend_folder` made it.
        ports: where it listens, none of them 0.
        name: begins the names of its shared memory, and of no other server's.
        log_file: a copy of what it prints is appended there; None for none.
        restarted: another one has loaded the same models before.
    """

    def __init__(
        self, launch: Launch, folder: Path, ports: Ports, name: str, log_file: Path | None, *, restarted: bool
    ) -> None:
        self._launch = launch
        self._folder = folder
        self._ports = ports
        self._name = name
        self._restarted = restarted
        self._log = ServerLog(log_file)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._models: frozenset[int] = frozenset()  # its model processes

    @property
    def pid(self) -> int | None:
        """Process id, None before and after its life."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it and wait until it has loaded its models; one that does not load is logged.

        Raises:
            PortTaken: another process has one of its ports.
            Crashed: a signal ended it.
            Hung: it did not start in time.
            TritonProcessError: it cannot start; the text ends with its last log lines.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._launch.cache.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *launching.command(self._launch, self._folder, self._ports, self._name),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self._folder,
            env=launching.environment(self._launch, restarted=self._restarted),
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._reading = asyncio.create_task(self._log.read(self._process.stdout))
        try:
            async with asyncio.timeout(self._launch.start_timeout_s):
                await self._until_listening(self._process)
                failed = await self._models_not_loaded()
        except TimeoutError:
            await self.remove()
            message = f"Triton did not start within {self._launch.start_timeout_s:g} s"
            raise self._error(message, Hung) from None
        self._models = children_of(self._process.pid)
        for name, why in failed.items():
            _log.error("model_not_loaded", model=name, why=why)
        address = f"{LOOPBACK}:{self._ports.grpc}"
        _log.info("triton_up", grpc=address, seconds=round(loop.time() - started, 2))

    async def failure(self) -> str:
        """Wait until the server can no longer serve: `server` or `model` for a process that ended, `hang` for
        a server that does not answer, `stopped` for a model process that was suspended.

        The end of one model process counts as the end of the server: Triton does not start that one again,
        yet calls the model ready and answers every request for it with an error.
        """
        assert self._process is not None  # noqa: S101 - it was started
        ending = asyncio.create_task(first_ended({self._process.pid, *self._models}))
        hanging = asyncio.create_task(self._until_unresponsive())
        try:
            await asyncio.wait((ending, hanging), return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                return "server" if ending.result() == self._process.pid else "model"
            return hanging.result()
        finally:
            ending.cancel()
            hanging.cancel()
            await asyncio.gather(ending, hanging, return_exceptions=True)

    async def kill(self) -> None:
        """End it at once. Afterwards its ports are free; its model processes may take a while longer."""
        if self._process is not None:
            kill_group(self._process.pid)
            await ended(self._process.pid)

    async def remove(self) -> None:
        """End every process of it, read its log to the end, and remove its shared memory."""
        if self._process is None:
            return
        await end_group(self._process, _KILL_GRACE_S)
        if self._reading is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._reading, _KILL_GRACE_S)
            self._reading = None
        remove_shared_memory(self._name)

    async def report_end(self) -> None:
        """As `remove`, and log how it ended."""
        await self.remove()
        if self._process is not None:
            _log.error(
                "triton_ended", exit_code=self._process.returncode, last_lines=list(self._log.tail)[-5:]
            )

    async def stop(self) -> None:
        """Let requests in flight finish, then as `remove`."""
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                # Triton itself gives up after stop_grace_s; then it still has to unload its models.
                await asyncio.wait_for(ended(process.pid), self._launch.stop_grace_s + _KILL_GRACE_S)
        await self.remove()

    async def _until_listening(self, process: asyncio.subprocess.Process) -> None:
        """Wait until the server says that it listens, which it does after loading its models.

        Raises:
            PortTaken: another process has one of its ports.
            Crashed: a signal ended it.
            TritonProcessError: it ended by itself.
        """
        while True:
            dead = process.returncode is not None
            if dead:
                await self.remove()  # reads the log to its last line
            if self._log.port_taken is not None:
                raise PortTaken(self._log.port_taken)
            if dead:
                code = process.returncode or 0
                kind = Crashed if code < 0 else TritonProcessError
                raise self._error(f"Triton ended with exit code {code} while it started", kind)
            # It says so of the last port before it has that one.
            if self._log.listening and await self._serves_metrics():
                return
            await asyncio.sleep(_POLL_S)

    async def _serves_metrics(self) -> bool:
        """Whether the port of the metrics is this server's, and not that of another program."""
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(LOOPBACK, self._ports.metrics)
                try:
                    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
                    await reader.readuntil(b"\n# HELP nv_")
                finally:
                    writer.close()
        except (OSError, EOFError, asyncio.LimitOverrunError):  # a TimeoutError is an OSError
            return False
        return True

    async def _models_not_loaded(self) -> Mapping[str, str]:
        """Names of the models that did not load, with the reasons."""
        client = self._client()
        try:
            index = await client.get_model_repository_index(client_timeout=self._launch.start_timeout_s)
        except InferenceServerException as error:
            raise self._error(f"Triton listens and does not answer: {error.message()}") from error
        finally:
            await client.close()
        return {
            model.name: model.reason or "Triton's log says why"
            for model in index.models
            if model.state != "READY"
        }

    async def _until_unresponsive(self) -> str:
        """Wait until several probes in a row have failed; which kind of failure it is."""
        client = self._client()
        try:
            failures = 0
            while failures < _PROBES:
                await asyncio.sleep(_PROBE_INTERVAL_S)
                # Asked first: an answer that is late on a busy machine would be taken for the reason.
                if any(is_suspended(pid) for pid in self._models):
                    answers, failing = False, "stopped"
                else:
                    answers, failing = await self._answers(client), "hang"
                failures = 0 if answers else failures + 1
            return failing
        finally:
            await client.close()

    async def _answers(self, client: triton_aio.InferenceServerClient) -> bool:
        try:
            return bool(await client.is_server_live(client_timeout=_PROBE_TIMEOUT_S))
        except InferenceServerException:
            return False

    def _client(self) -> triton_aio.InferenceServerClient:
        return triton_aio.InferenceServerClient(
            f"{LOOPBACK}:{self._ports.grpc}", channel_args=[("grpc.enable_http_proxy", 0)]
        )

    def _error(self, message: str, kind: type[TritonProcessError] = TritonProcessError) -> TritonProcessError:
        tail = "\n".join(self._log.tail)
        return kind(f"{message}. Its last lines:\n{tail}" if tail else message)
