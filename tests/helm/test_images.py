"""The images: linted, and what they do done here without a container."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.ports import free_address
from scripts.runtime import STATE
from scripts.tools import path_of
from tests.helm.chart import CHART, ROOT, find, render

DOCKERFILE = ROOT / "service" / "Dockerfile"
_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*(?:\[[a-z,]+\])?)==(\S+)", re.MULTILINE)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as the image builds it, from a copy without what a checkout has besides."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    parts = ["protos", "scripts", "service", "pyproject.toml", "README.md", "LICENSE"]
    listed = subprocess.run(
        ["git", "ls-files", "-z", *parts], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True, timeout=300)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in an empty folder."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*command, "--target", folder, wheel], check=True, timeout=300)
    return folder


def test_the_dockerfile_is_linted() -> None:
    done = subprocess.run([path_of("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_image_runs_as_an_unprivileged_user_with_a_pinned_base() -> None:
    text = DOCKERFILE.read_text("utf-8")
    for argument in ("PYTHON_IMAGE", "TRITON_IMAGE"):
        [default] = re.findall(rf"^ARG {argument}=(\S+)$", text, re.MULTILINE)
        assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", default), "a version, or a digest"
    assert set(re.findall(r"^USER (\S+)$", text, re.MULTILINE)) == {"10001:10001", "1000:1000"}
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {
        "${PYTHON_IMAGE}", "${TRITON_IMAGE}", "wheel", "packages", "base",
    }  # fmt: skip
    assert not re.search(r"apt-get|gcc|build-essential", text), "nothing is compiled"
    assert "MALLOC" not in re.sub(r"#.*", "", text), "service/server/malloc.py sets it in the process"


def test_the_image_and_the_chart_agree() -> None:
    text = DOCKERFILE.read_text("utf-8")
    deployment = find(render(), "Deployment", "rel-posegate")["spec"]["template"]["spec"]
    assert f"USER {deployment['securityContext']['runAsUser']}:" in text
    ports = {str(port["containerPort"]) for port in deployment["containers"][0]["ports"]}
    assert set(re.findall(r"^EXPOSE (.+)$", text, re.MULTILINE)[0].split()) == ports
    values = (CHART / "values.yaml").read_text("utf-8")
    [triton] = re.findall(r"^ARG TRITON_IMAGE=\S+:(\S+)$", text, re.MULTILINE)
    assert f"tag: {triton}" in values
    [tensorrt] = re.findall(r"^ARG TENSORRT=(\S+)$", text, re.MULTILINE)
    assert f"tensorrt: {tensorrt}\n" in values
    cpu = find(render("cpu"), "Deployment", "rel-posegate")["spec"]["template"]["spec"]["containers"][0]
    home = re.findall(r"POSEGATE_HOME=(\S+)", text)[0]
    assert f"{home}/cache" in {mount["mountPath"] for mount in cpu["volumeMounts"]}


def test_the_images_have_the_versions_that_are_tested() -> None:
    tested = dict(_PIN.findall((ROOT / "requirements.lock").read_text("utf-8")))
    for name in ("gateway.lock", "cpu.lock"):
        pinned = dict(_PIN.findall((ROOT / "service" / name).read_text("utf-8")))
        assert pinned.items() <= tested.items(), f"run scripts/lock: {pinned.items() - tested.items()}"
        assert "pytest" not in pinned


def test_the_wheel_holds_the_code_and_its_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert top == {"posegate", "service"}
    for path in (*ROOT.glob("service/skeletons/*.json"), *ROOT.glob("protos/posegate/v1/*_pb2*.py")):
        packaged = path.relative_to(ROOT / "protos") if "protos" in path.parts else path.relative_to(ROOT)
        assert str(packaged) in names
    for package in {path.parent for path in ROOT.glob("service/**/*.py")}:
        assert any(name.startswith(f"{package.relative_to(ROOT)}/") for name in names), (
            f"{package} is not in pyproject.toml"
        )
    assert wheel.stat().st_size < 3_000_000


@dataclass(frozen=True)
class Started:
    """A gateway that runs out of the wheel's folder, and how to call its commands."""

    process: subprocess.Popen[str]
    ask: Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def started(installed: Path, command: str, folder: Path, **settings: str) -> Iterator[Started]:
    """`posegate serve` or `up` with nothing of the checkout on its path; it must end in order."""
    address = free_address()
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(installed),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "POSEGATE_LISTEN": address,
        "POSEGATE_DATABASE_URL": f"sqlite:///{folder}/posegate.db",
        "POSEGATE_DRAIN_DELAY_S": "0",
        **settings,
    }
    names = "posegate, service"
    where = subprocess.run(
        [sys.executable, "-c", f"import {names}; print(*(module.__file__ for module in ({names})))"],
        cwd=elsewhere, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert all(path.startswith(str(installed)) for path in where.stdout.split())
    before = sorted(path.relative_to(installed) for path in installed.rglob("*"))
    program = [sys.executable, str(installed / "bin" / "posegate")]
    log = folder / "log"
    with log.open("w", encoding="utf-8") as sink:
        process = subprocess.Popen(
            [*program, command], cwd=elsewhere, env=environment, stderr=sink, text=True
        )

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program, *arguments, "--address", address],
            cwd=elsewhere, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    try:
        yield Started(process, ask)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(120)
    assert code == 0, log.read_text("utf-8")
    assert "stopped" in log.read_text("utf-8")
    assert sorted(path.relative_to(installed) for path in installed.rglob("*")) == before
    assert not list(elsewhere.iterdir())


def wait_until_serving(gateway: Started, *service: str) -> None:
    deadline = time.monotonic() + 300
    while gateway.ask("health", *service).stdout.strip() != "SERVING":
        assert gateway.process.poll() is None
        assert time.monotonic() < deadline


def test_the_gateway_starts_from_an_empty_folder_and_writes_only_where_it_may(
    installed: Path, tmp_path: Path
) -> None:
    with started(installed, "serve", tmp_path, POSEGATE_TRITON_URL="127.0.0.1:1") as gateway:
        wait_until_serving(gateway, "--service", "liveness")
        listed = gateway.ask("skeletons", "list")
        assert "coco_17" in listed.stdout, listed.stderr


def test_the_image_for_cpus_serves_both_its_models_from_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    """Put together by the commands of the Dockerfile; Triton and the weights are those of the set-up."""
    text = DOCKERFILE.read_text("utf-8")
    home, repository = tmp_path / "home", tmp_path / "model_repository"
    (home / "cache").mkdir(parents=True)
    for name in ("triton", "weights"):
        (home / name).symlink_to(STATE / name)
    for file in subprocess.run(
        ["git", "ls-files", "model_repository/cpu", "model_repository/backends"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines():  # fmt: skip
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    fills = re.findall(r"venv/bin/posegate (models fill \S+ --name \S+)", text)
    assert len(fills) == len(list(repository.glob("cpu/*/config.pbtxt"))) == 2
    for words in fills:
        command = words.replace("/opt/posegate/home", str(home)).split()
        subprocess.run(
            [sys.executable, str(installed / "bin" / "posegate"), *command],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}, check=True, timeout=300,
        )  # fmt: skip
    settings = {"POSEGATE_HOME": str(home), "POSEGATE_MODEL_REPOSITORY": str(repository / "cpu")}
    assert set(settings) <= set(re.findall(r"(POSEGATE_\w+)=", text))
    with started(installed, "up", tmp_path, **settings) as gateway:
        wait_until_serving(gateway)
        listed = gateway.ask("models", "list").stdout
        assert len(re.findall(r"│ yes\b", listed)) == 2, listed
        picture, found = ROOT / "tests" / "data" / "two_people.jpg", tmp_path / "found.jsonl"
        done = gateway.ask("detect", str(picture), "--model", "mediapipe_wholebody", "--json", str(found))
        assert done.returncode == 0, done.stderr
        assert len(json.loads(found.read_text("utf-8"))["persons"][0]["keypoints"]) == 634
