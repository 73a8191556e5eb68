"""Starts the bundled tritonserver, watches it, and leaves nothing behind.

For `posegate up`, the demo and the tests; in production Triton is a workload of its own. The server runs
in a process group of its own, on loopback, with the kernel's promise that it dies with this process:
its Python stubs notice within a second and follow. Its shared memory carries this process' id in the name, so
that what a killed predecessor left can be told from what is in use.

    runtime/ (see scripts/runtime.py)       the server, its libraries, the Python backend
    backends/*/model.py                     our Python-based backends
        both are linked into one backend folder in a private temporary folder, which Triton wants
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType

import structlog

_log = structlog.get_logger()

_LOOPBACK = "127.0.0.1"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder of POSIX shared memory, not a place for files
_TAIL_LINES = 30
_POLL_S = 0.05
_HTTP_TIMEOUT_S = 2.0
_KILL_GRACE_S = 5.0
_ATTEMPTS_FOR_PORTS = 3
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # the last one repeats
_STABLE_S = 60.0  # having lived so long, the next death starts from the shortest pause again

# Asks the kernel to kill what it becomes when its parent dies. This is a program of its own, because Python's
# preexec_fn may deadlock in a process that has threads, as every gRPC process has.
_LAUNCHER = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0 or os.getppid() != int(sys.argv[1]):
    sys.exit("the parent process is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

_LOG_LINE = re.compile(r'([IWEF])\d{4} [\d:.]+ \d+ (\S+?):\d+\] *"?(.*?)"?')
_NOT_NEWS = (  # what Triton says on every machine without a GPU
    "Unable to allocate pinned system memory",
    "CUDA memory pool disabled",
    "CudaDriverHelper has not been initialized",
    "failed to allocate pinned system memory",
)
# Triton lives on when only its HTTP or metrics port is taken; whoever counts on that port would wait long.
_PORT_TAKEN = re.compile(r"failed to start \w+ service: .*Socket '[^']*:(\d+)' already in use")


class EmbeddedTritonError(Exception):
    """The bundled Triton did not start. The text says why, for whoever started it."""


class _PortTaken(EmbeddedTritonError):
    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} on {_LOOPBACK} is in use; the bundled Triton needs it")
        self.port = port


@dataclass(frozen=True)
class Ports:
    """Where the server listens on loopback; 0 is any free port."""

    grpc: int = 0
    http: int = 0
    metrics: int = 0


@dataclass(frozen=True)
class Launch:
    """What to start and how.

    Attributes:
        runtime: the folder that `scripts/runtime.py` filled.
        model_repository: folder of models.
        backends: folder of Python-based backends, each `<name>/model.py`.
        cache: folder for compiled models.
        ports: fixed ports, or 0 for free ones.
        start_timeout_s: all models have to be loaded in this time.
        stop_grace_s: requests in flight get this long to finish.
        log_file: a copy of everything the server prints, where it can be written; None for none.
        threads: CPU threads of one inference; None for all CPUs.
    """

    runtime: Path
    model_repository: Path
    backends: Path
    cache: Path
    ports: Ports = Ports()
    start_timeout_s: float = 120.0
    stop_grace_s: float = 10.0
    log_file: Path | None = None
    threads: int | None = None


class EmbeddedTriton:
    """One tritonserver process and whatever follows it after a crash, on the same ports.

        async with EmbeddedTriton(launch) as triton:
            watcher = asyncio.create_task(triton.watch())
            ... triton.grpc_url ...

    Start it on the event loop of a thread that lives as long as the server should: the kernel ties the
    server's life to that thread.
    """

    _instances = count()

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._ports = launch.ports
        self._process: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._log_file: Path | None = None
        self._name = f"{_owner_prefix()}{os.getpid()}-{next(self._instances)}"
        self._folder: Path | None = None
        self._stubs: frozenset[int] = frozenset()
        self._up = asyncio.Event()
        self._port_taken: int | None = None
        self._stopping = False

    @property
    def grpc_url(self) -> str:
        """host:port of Triton's gRPC endpoint; the same after a restart."""
        return f"{_LOOPBACK}:{self._ports.grpc}"

    @property
    def http_url(self) -> str:
        """host:port of Triton's HTTP endpoint."""
        return f"{_LOOPBACK}:{self._ports.http}"

    @property
    def metrics_url(self) -> str:
        """host:port of Triton's Prometheus metrics."""
        return f"{_LOOPBACK}:{self._ports.metrics}"

    @property
    def pid(self) -> int | None:
        """Process id of the server, None while there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def is_up(self) -> bool:
        """Whether the server has loaded its models and lives."""
        return self._up.is_set() and self.pid is not None

    async def __aenter__(self) -> EmbeddedTriton:
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
            EmbeddedTritonError: it cannot start, or not in time; the text ends with its last log lines.
        """
        self._check()
        self._stopping = False
        await asyncio.to_thread(_remove_traces_of_the_dead)
        self._log_file = _begun(self._launch.log_file)
        for attempt in range(1, _ATTEMPTS_FOR_PORTS + 1):
            with _free_ports(self._launch.ports) as self._ports:
                self._folder = self._compose()
            try:
                await self._start_once()
                break
            except BaseException as error:
                await self.stop()
                # Between finding a free port and its use by Triton, another process may have taken it.
                retry = isinstance(error, _PortTaken) and error.port not in _as_tuple(self._launch.ports)
                if not retry or attempt == _ATTEMPTS_FOR_PORTS:
                    raise
                self._stopping = False

    async def watch(
        self,
        on_down: Callable[[], None] = lambda: None,
        on_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the server again whenever it dies, with growing pauses; until cancelled or stopped."""
        loop = asyncio.get_running_loop()
        failures = 0
        while self._process is not None and not self._stopping:
            since = loop.time()
            # One of its models' processes dead is as good as dead: Triton does not start that one again, yet
            # calls the model ready and answers every request for it with an error.
            dead = await _first_gone({self._process.pid, *self._stubs})
            if self._stopping:
                return
            self._up.clear()
            await self._reap()
            code = await self._process.wait()
            what = "server" if dead == self._process.pid else "model"
            _log.error("triton_died", what=what, exit_code=code, last_lines=list(self._tail)[-5:])
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
                except EmbeddedTritonError as error:
                    _log.error("triton_restart_failed", why=str(error))
                else:
                    _log.info("triton_restarted", pid=self.pid)
                    on_up()
                    break

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
                    await asyncio.wait_for(_gone(process.pid), self._launch.stop_grace_s + _KILL_GRACE_S)
            await self._reap()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _check(self) -> None:
        stamp = self._launch.runtime / "stamp.json"
        try:
            made_for = json.loads(stamp.read_text(encoding="utf-8"))["python"]
        except (OSError, ValueError, KeyError):
            raise EmbeddedTritonError(
                f"the Triton runtime is missing in {self._launch.runtime}: run scripts/setup"
            ) from None
        if made_for != platform.python_version():
            raise EmbeddedTritonError(
                f"the Triton runtime in {self._launch.runtime} is for Python {made_for}, this is "
                f"{platform.python_version()}: run scripts/setup"
            )
        if not self._launch.model_repository.is_dir():
            raise EmbeddedTritonError(f"there is no model repository at {self._launch.model_repository}")

    def _compose(self) -> Path:
        """A private folder with the one backend folder that Triton takes."""
        folder = Path(tempfile.mkdtemp(prefix=f"{self._name}-"))
        backends = folder / "backends"
        backends.mkdir()
        (backends / "python").symlink_to(self._server_folder / "backends" / "python")
        for model in sorted(self._launch.backends.glob("*/model.py")):
            (backends / model.parent.name).symlink_to(model.parent.resolve())
        return folder

    @property
    def _server_folder(self) -> Path:
        return self._launch.runtime.resolve() / "pytriton" / "tritonserver"

    def _command(self, folder: Path) -> list[str]:
        prefix = f"shm-region-prefix-name={self._name}-"
        backends = sorted(path.name for path in (folder / "backends").iterdir())
        return [
            str(self._server_folder / "bin" / "tritonserver"),
            f"--model-repository={self._launch.model_repository.resolve()}",
            f"--backend-directory={folder / 'backends'}",
            *(f"--backend-config={backend},{prefix}" for backend in backends),
            "--model-control-mode=none",
            "--disable-auto-complete-config",
            "--exit-on-error=false",
            "--strict-readiness=true",
            f"--exit-timeout-secs={max(1, round(self._launch.stop_grace_s))}",
            f"--grpc-address={_LOOPBACK}",
            f"--http-address={_LOOPBACK}",
            f"--metrics-address={_LOOPBACK}",
            f"--grpc-port={self._ports.grpc}",
            f"--http-port={self._ports.http}",
            f"--metrics-port={self._ports.metrics}",
            "--allow-gpu-metrics=false",
            "--pinned-memory-pool-byte-size=0",
        ]

    def _environment(self) -> Mapping[str, str]:
        # The stub embeds an isolated Python: it ignores PYTHONPATH and PYTHONHOME, and finds its standard
        # library and packages from the first `python3` on PATH, here that of this virtual environment.
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "POSEGATE_CACHE_DIR": str(self._launch.cache.resolve()),
        }
        if self._launch.threads is not None:
            environment["POSEGATE_CPU_THREADS"] = str(self._launch.threads)
        return environment

    async def _start_once(self) -> None:
        assert self._folder is not None  # noqa: S101 - start() made it
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._tail.clear()
        self._port_taken = None
        self._launch.cache.mkdir(parents=True, exist_ok=True)
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        self._process = await asyncio.create_subprocess_exec(
            *launcher,
            *self._command(self._folder),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self._folder,
            env=self._environment(),
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._pump = asyncio.create_task(self._read_log(self._process.stdout))
        try:
            async with asyncio.timeout(self._launch.start_timeout_s):
                failed = await self._wait_until_loaded(self._process)
        except TimeoutError:
            await self._reap()
            raise self._error(f"Triton did not start within {self._launch.start_timeout_s:g} s") from None
        self._stubs = _stubs_of(self._process.pid)
        for name, why in failed.items():
            _log.error("model_not_loaded", model=name, why=why)
        _log.info("triton_up", grpc=self.grpc_url, seconds=round(loop.time() - started, 2))
        self._up.set()

    async def _wait_until_loaded(self, process: asyncio.subprocess.Process) -> Mapping[str, str]:
        """The models that did not load, with reasons, once Triton answers: it listens after loading."""
        while True:
            if process.returncode is not None:
                await self._reap()  # to its last line
            if self._port_taken is not None:
                raise _PortTaken(self._port_taken)
            if process.returncode is not None:
                raise self._error(f"Triton ended with exit code {process.returncode} while it started")
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                index = await _http(self._ports.http, "POST", "/v2/repository/index")
                metrics = await _http(self._ports.metrics, "GET", "/metrics")  # it listens last
                if index is not None and metrics is not None and self._port_taken is None:
                    return {
                        model["name"]: model.get("reason") or "Triton's log says why"
                        for model in json.loads(index)
                        if model.get("state") != "READY"
                    }
            await asyncio.sleep(_POLL_S)

    def _error(self, message: str) -> EmbeddedTritonError:
        tail = "\n".join(self._tail)
        return EmbeddedTritonError(f"{message}. Its last lines:\n{tail}" if tail else message)

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        copy = self._log_file.open("ab") if self._log_file is not None else None
        try:
            rest = b""
            while chunk := await stream.read(1 << 16):
                if copy is not None:
                    copy.write(chunk)
                    copy.flush()
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._take_line(line.decode(errors="replace").rstrip())
            if rest:
                self._take_line(rest.decode(errors="replace").rstrip())
        finally:
            if copy is not None:
                copy.close()

    def _take_line(self, line: str) -> None:
        if not line or line[0] in "+|" or any(phrase in line for phrase in _NOT_NEWS):
            return
        self._tail.append(line)
        if taken := _PORT_TAKEN.search(line):
            self._port_taken = int(taken[1])
        match = _LOG_LINE.fullmatch(line)
        level, source, text = match.groups() if match else ("I", "", line)
        if not text:  # the heading of a table
            return
        if level == "I":
            _log.debug("triton", source=source, text=text)
        elif level == "W":
            _log.warning("triton", source=source, text=text)
        else:
            _log.error("triton", source=source, text=text)

    async def _reap(self) -> None:
        """End whatever lives of the server's process group, and remove its shared memory."""
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        deadline = asyncio.get_running_loop().time() + _KILL_GRACE_S
        with suppress(ProcessLookupError, PermissionError):
            while asyncio.get_running_loop().time() < deadline:
                os.killpg(process.pid, signal.SIGKILL)
                with suppress(ChildProcessError):  # its orphans are ours where we are process 1
                    os.waitpid(-process.pid, os.WNOHANG)  # noqa: ASYNC222 - it does not block
                await asyncio.sleep(_POLL_S)
        if self._pump is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._pump, _KILL_GRACE_S)
            self._pump = None
        _remove(self._name + "-", _SHARED_MEMORY)


async def _first_gone(pids: Iterable[int]) -> int:
    """The one that ends first."""
    waits = {asyncio.create_task(_gone(pid)): pid for pid in pids}
    try:
        ended, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return waits[ended.pop()]
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)  # each gives its descriptor back


async def _gone(pid: int) -> None:
    """Wait until a process has ended, whatever still holds its pipes.

    `Process.wait()` would wait for the pipes too (CPython issue 119710), and a Python stub whose server
    was killed in the wrong moment waits for a lock that nobody gives back, with the pipes open.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _http(port: int, method: str, path: str) -> bytes | None:
    """The body of a 200 answer, None for any other. The standard library has no HTTP client for asyncio."""
    async with asyncio.timeout(_HTTP_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(_LOOPBACK, port)
        try:
            head = (
                f"{method} {path} HTTP/1.1",
                f"Host: {_LOOPBACK}",
                "Content-Length: 0",
                "Connection: close",
            )
            writer.write("".join(f"{line}\r\n" for line in (*head, "")).encode("ascii"))
            status = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
            body = await reader.read()
            return body if status == b"200" else None
        finally:
            writer.close()


@contextmanager
def _free_ports(wanted: Ports) -> Iterator[Ports]:
    """`wanted` with free ports for the zeros, held until the block ends so that they differ."""
    sockets = []
    try:
        ports = []
        for port in _as_tuple(wanted):
            if port == 0:
                probe = socket.socket()
                sockets.append(probe)
                probe.bind((_LOOPBACK, 0))
                port = probe.getsockname()[1]
            ports.append(port)
        yield Ports(*ports)
    finally:
        for probe in sockets:
            probe.close()


def _begun(log_file: Path | None) -> Path | None:
    """The file, empty; None where it cannot be written, as in an image: its log lines go to stderr anyway."""
    if log_file is None:
        return None
    try:
        log_file.write_bytes(b"")
    except OSError as error:
        _log.info("triton_log_not_kept", file=str(log_file), why=error.strerror or str(error))
        return None
    return log_file


def _as_tuple(ports: Ports) -> tuple[int, int, int]:
    return ports.grpc, ports.http, ports.metrics


def _stubs_of(server: int) -> frozenset[int]:
    """The processes of its models: what else is in its process group."""
    group = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError):
            if os.getpgid(int(entry.name)) == server:
                group.add(int(entry.name))
    return frozenset(group - {server})


def _owner_prefix() -> str:
    """Names what processes of this pid namespace leave behind: only there a pid says who owns it."""
    return f"posegate-{Path('/proc/self/ns/pid').stat().st_ino}-"


def _remove_traces_of_the_dead() -> None:
    """Remove folders and shared memory of processes that were killed before they could."""
    prefix = _owner_prefix()
    for place in (_SHARED_MEMORY, Path(tempfile.gettempdir())):
        owners = {path.name.removeprefix(prefix).split("-", 1)[0] for path in place.glob(f"{prefix}*")}
        for owner in owners:
            if owner.isdecimal() and not Path("/proc", owner).exists():
                _remove(f"{prefix}{owner}-", place)


def _remove(prefix: str, place: Path) -> None:
    for path in place.glob(f"{prefix}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
