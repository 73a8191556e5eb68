"""Set-up of a checkout, called by scripts/setup: four steps, each done once and safe to interrupt.

    packages        .venv from requirements.lock, with the checkout itself installed in place
    Triton          .posegate/triton and .posegate/weights, see scripts/runtime.py
    model           model_repository/cpu/*/1, see service/models

A step is done when its stamp file is there, which is written after everything else of the step. Only the
standard library is used.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import hashlib
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scripts import runtime
from scripts.registry import SetupError, run_pip
from service.models import mediapipe

ROOT = runtime.REPOSITORY
STATE = runtime.STATE
VENV = ROOT / ".venv"
LOCK_FILE = ROOT / "requirements.lock"
VENV_STAMP = VENV / ".posegate.json"
COMPILED = STATE / "cache"
MODEL = "yolo11n_pose"
MODEL_STAMP = STATE / "model.json"

PYTHONS = ((3, 11), (3, 12), (3, 13))
GLIBC = (2, 35)
NEEDED_BYTES = 1_500_000_000
NEEDED_TO_UPDATE_BYTES = 300_000_000


def main() -> int:
    """Entry of `python -m scripts.bootstrap`."""
    parser = argparse.ArgumentParser(prog="scripts/setup", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether this Python can be used")
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        check_platform(sys.platform, platform.machine(), platform.libc_ver())
        check_python()
        if not arguments.check:
            with lock() as descriptor:
                set_up(descriptor)
            print(f"set-up complete ({time.monotonic() - started:.1f} s)")
    except KeyboardInterrupt:
        print("setup: interrupted; scripts/setup goes on from here", file=sys.stderr)
        return 130
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print("setup: the disk is full; make room and run scripts/setup again", file=sys.stderr)
        return 1
    return 0


def set_up(lock_descriptor: int) -> None:
    """Do the steps that are not done."""
    wanted = {
        "path": str(VENV),
        "python": platform.python_version(),
        "packages": digest(LOCK_FILE, ROOT / "pyproject.toml"),
    }
    if read_stamp(VENV_STAMP) != wanted:
        check_disk(shutil.disk_usage(ROOT).free, fresh=not VENV_STAMP.exists())
        with step("packages") as show:
            make_venv(wanted, lock_descriptor, show)
            shutil.rmtree(COMPILED, ignore_errors=True)  # by another OpenVINO, perhaps
    with step("Triton and weights", quiet_below_s=0.5) as show:
        runtime.prepare(STATE, VENV / "bin" / "python", show)
    graph = ROOT / "model_repository" / "cpu" / MODEL / "1" / "model.onnx"
    made_from = {
        "model": digest(
            graph.parent.parent / "config.pbtxt",
            *(STATE / "weights" / name for name in sorted(runtime.WEIGHTS)),
            *sorted((ROOT / "service" / "models").glob("*.py")),
        )
    }
    if not graph.is_file() or read_stamp(MODEL_STAMP) != made_from:
        with step("model"):
            fill_model()
            shutil.rmtree(COMPILED, ignore_errors=True)
            write_stamp(MODEL_STAMP, made_from)
    fill_mediapipe(ROOT / "model_repository", STATE / "weights" / "mediapipe")


def check_platform(system: str, machine: str, libc: tuple[str, str]) -> None:
    """Refuse what NVIDIA's binaries do not run on."""
    if system != "linux" or machine != "x86_64":
        raise SetupError(
            f"the bundled Triton runs on Linux x86_64, this is {system} {machine}; use a container"
        )
    name, version = libc
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < GLIBC:
        wanted = ".".join(map(str, GLIBC))
        raise SetupError(
            f"the bundled Triton needs glibc {wanted} or newer (Debian 12, Ubuntu 22.04, RHEL 10), "
            f"this is {name or 'another C library'} {version}"
        )


def check_python() -> None:
    """Refuse a Python that cannot make the environment or be embedded by Triton."""
    if sys.version_info[:2] not in PYTHONS:
        raise SetupError(f"Python 3.11, 3.12 or 3.13 is needed, this is {platform.python_version()}")
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        raise SetupError(
            f"Python {platform.python_version()} at {sys.executable} has no venv module "
            f"(Debian, Ubuntu: apt install python3.{sys.version_info.minor}-venv)"
        )
    runtime.find_libpython()


def check_disk(free_bytes: int, *, fresh: bool) -> None:
    """Refuse to start what would not fit."""
    needed = NEEDED_BYTES if fresh else NEEDED_TO_UPDATE_BYTES
    if free_bytes < needed:
        raise SetupError(
            f"{needed / 1e9:.1f} GB of free disk are needed in {ROOT}, there are {free_bytes / 1e9:.1f} GB"
        )


def make_venv(wanted: Mapping[str, str], lock_descriptor: int, show: Callable[[str], None]) -> None:
    """Make or update `.venv`.

    An environment cannot be made aside and renamed, since its path is written into it. So it is marked as
    unfinished for as long as it is worked on, and made anew when it is found so.
    """
    found = read_stamp(VENV_STAMP)
    python = VENV / "bin" / "python"
    if found is not None and (found.get("packages") is None or _differ(found, wanted, "path", "python")):
        show("removing the old .venv")
        shutil.rmtree(VENV)
    VENV.mkdir(exist_ok=True)
    write_stamp(VENV_STAMP, {})  # unfinished
    if not python.exists():
        show(f"making .venv with Python {platform.python_version()}")
        create_environment()
    check_environment(python)
    total = sum("==" in line for line in LOCK_FILE.read_text(encoding="utf-8").splitlines())
    collected = 0

    def progress(line: str) -> None:
        nonlocal collected
        if line.startswith(("Collecting ", "Requirement already satisfied")):
            collected += 1
            show(f"packages: {collected} of about {total}")
        elif line.startswith("Installing collected"):
            show(f"packages: installing {collected}")

    keep_open = (lock_descriptor,)
    arguments = ["install", "--require-hashes", "--only-binary=:all:", "--requirement", str(LOCK_FILE)]
    run_pip(python, arguments, doing="install the packages", on_line=progress, keep_open=keep_open)
    arguments = ["install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    run_pip(python, arguments, doing="install the checkout", keep_open=keep_open)
    write_stamp(VENV_STAMP, wanted)


def create_environment() -> None:
    """An environment without packages."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    made = subprocess.run(  # noqa: S603 - fixed arguments
        [base, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        raise SetupError(f"cannot make .venv:\n{(made.stderr or made.stdout).strip()}")


def check_environment(python: Path) -> None:
    """Refuse a `.venv` that was made with another Python by other means."""
    version = subprocess.run(  # noqa: S603 - fixed arguments
        [str(python), "-c", "import platform; print(platform.python_version())"],
        capture_output=True,
        text=True,
        check=False,
    )
    if version.stdout.strip() != platform.python_version():
        found = version.stdout.strip() or "broken"
        raise SetupError(f"{VENV} is {found}, not Python {platform.python_version()}: remove it")


def fill_model() -> None:
    """Write the graph of the model that the repository describes."""
    filled = subprocess.run(  # noqa: S603 - fixed arguments
        [str(VENV / "bin" / "posegate"), "models", "fill"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if filled.returncode != 0:
        raise SetupError(f"the model could not be written:\n{(filled.stderr or filled.stdout).strip()}")
    print(f"  {filled.stdout.strip()}")


def fill_mediapipe(repository: Path, weights: Path) -> None:
    """Put MediaPipe's networks into the repository."""
    try:
        mediapipe.fill(repository, weights)
    except mediapipe.MediapipeError as error:
        raise SetupError(f"MediaPipe's networks could not be put in place: {error}") from error


@contextmanager
def lock() -> Iterator[int]:
    """Keep a second set-up of this checkout waiting. The file descriptor of the lock."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "setup.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up is at work here; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@contextmanager
def step(name: str, *, quiet_below_s: float = 0.0) -> Iterator[Callable[[str], None]]:
    """Say what is going on and how long it took; on a terminal, while it is going on."""
    started = time.monotonic()
    terminal = sys.stdout.isatty()
    doing = name
    done = threading.Event()

    def show(text: str) -> None:
        nonlocal doing
        doing = text

    def draw() -> None:
        while not done.wait(0.2):
            print(f"\r\033[K  {doing} ({time.monotonic() - started:.0f} s)", end="", flush=True)

    drawer = threading.Thread(target=draw)
    if terminal:
        drawer.start()
    elif not quiet_below_s:
        print(f"  {name} ...", flush=True)
    try:
        yield show
    finally:
        done.set()
        if terminal:
            drawer.join()
            print("\r\033[K", end="", flush=True)
    elapsed_s = time.monotonic() - started
    if elapsed_s > quiet_below_s:
        print(f"  {name}: {elapsed_s:.1f} s", flush=True)


def digest(*files: Path) -> str:
    """One digest of the names and contents of files; one that is missing counts as empty."""
    result = hashlib.sha256()
    for file in files:
        content = file.read_bytes() if file.is_file() else b""
        result.update(f"{file.name} {len(content)} ".encode() + content)
    return result.hexdigest()


def read_stamp(path: Path) -> dict[str, str] | None:
    """What the stamp says, None without one."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


def write_stamp(path: Path, stamp: Mapping[str, str]) -> None:
    """Write a stamp, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(stamp) + "\n", encoding="utf-8")
    partial.replace(path)


def _differ(found: Mapping[str, str], wanted: Mapping[str, str], *keys: str) -> bool:
    return any(found.get(key) != wanted[key] for key in keys)


if __name__ == "__main__":
    sys.exit(main())
