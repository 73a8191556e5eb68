"""What the bundled tritonserver is started with: files, ports, command line and environment."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"

# Asks the kernel to kill the server when its parent dies. A program of its own, because Python's preexec_fn
# may deadlock in a process that has threads, as every gRPC process has.
_LAUNCHER = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0 or os.getppid() != int(sys.argv[1]):
    sys.exit("the parent process is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class TritonProcessError(Exception):
    """The bundled Triton cannot be started; the text says why and what to do."""


class PortTaken(TritonProcessError):
    """A port that Triton needs is in use.

    Attributes:
        port: its number.
    """

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} on {LOOPBACK} is in use; the bundled Triton needs it")
        self.port = port


class Crashed(TritonProcessError):
    """A signal ended the server while it started."""


class Hung(TritonProcessError):
    """The server did not start in time."""


@dataclass(frozen=True)
class Ports:
    """Where the server listens on loopback; 0 is any free port."""

    grpc: int = 0
    http: int = 0
    metrics: int = 0

    def __contains__(self, port: int) -> bool:
        return port in astuple(self)


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
        stop_grace_s: time that requests in flight get to finish.
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

    @property
    def server_folder(self) -> Path:
        """The folder of the tritonserver binary, its libraries and NVIDIA's Python backend."""
        return self.runtime.resolve() / "pytriton" / "tritonserver"


def check(launch: Launch) -> None:
    """Check that everything a start needs is there.

    Raises:
        TritonProcessError: the runtime is missing or made for another Python, or the model repository is.
    """
    stamp = launch.runtime / "stamp.json"
    try:
        made_for = json.loads(stamp.read_text(encoding="utf-8"))["python"]
    except (OSError, ValueError, KeyError):
        raise TritonProcessError(
            f"the Triton runtime is missing in {launch.runtime}: run scripts/setup"
        ) from None
    if made_for != platform.python_version():
        raise TritonProcessError(
            f"the Triton runtime in {launch.runtime} is for Python {made_for}, this is "
            f"{platform.python_version()}: run scripts/setup"
        )
    if not launch.model_repository.is_dir():
        raise TritonProcessError(f"there is no model repository at {launch.model_repository}")


def make_backend_folder(launch: Launch, name: str) -> Path:
    """A private temporary folder whose `backends/` links every backend: Triton takes one such folder only."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    backends = folder / "backends"
    backends.mkdir()
    (backends / "python").symlink_to(launch.server_folder / "backends" / "python")
    for model in sorted(launch.backends.glob("*/model.py")):
        (backends / model.parent.name).symlink_to(model.parent.resolve())
    return folder


def command(launch: Launch, folder: Path, ports: Ports, name: str) -> list[str]:
    """The command line: the launcher, then tritonserver with its arguments.

    Args:
        launch: what to start.
        folder: as `make_backend_folder` made it.
        ports: where to listen, none of them 0.
        name: prefix of the shared memory regions of the Python backends.
    """
    prefix = f"shm-region-prefix-name={name}"
    backends = sorted(path.name for path in (folder / "backends").iterdir())
    return [
        *(sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())),
        str(launch.server_folder / "bin" / "tritonserver"),
        f"--model-repository={launch.model_repository.resolve()}",
        f"--backend-directory={folder / 'backends'}",
        *(f"--backend-config={backend},{prefix}" for backend in backends),
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        "--exit-on-error=false",
        "--strict-readiness=true",
        f"--exit-timeout-secs={max(1, round(launch.stop_grace_s))}",
        f"--grpc-address={LOOPBACK}",
        f"--http-address={LOOPBACK}",
        f"--metrics-address={LOOPBACK}",
        f"--grpc-port={ports.grpc}",
        f"--http-port={ports.http}",
        f"--metrics-port={ports.metrics}",
        "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0",
    ]


def environment(launch: Launch, *, restarted: bool = False) -> Mapping[str, str]:
    """Environment variables of the server.

    Args:
        launch: what to start.
        restarted: the same models have been loaded before: backends leave what can wait for later.
    """
    # The stub embeds an isolated Python: it ignores PYTHONPATH and PYTHONHOME, and finds its standard
    # library and packages from the first `python3` on PATH, here that of this virtual environment.
    variables = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "POSEGATE_CACHE_DIR": str(launch.cache.resolve()),
    }
    if restarted:
        variables["POSEGATE_RESTARTED"] = "1"
    if launch.threads is not None:
        variables["POSEGATE_CPU_THREADS"] = str(launch.threads)
    return variables


@contextmanager
def free_ports(wanted: Ports) -> Iterator[Ports]:
    """`wanted` with free ports for the zeros, held until the block ends so that they differ."""
    probes = []
    try:
        ports = []
        for port in astuple(wanted):
            if port == 0:
                probe = socket.socket()
                probes.append(probe)
                probe.bind((LOOPBACK, 0))
                port = probe.getsockname()[1]
            ports.append(port)
        yield Ports(*ports)
    finally:
        for probe in probes:
            probe.close()
