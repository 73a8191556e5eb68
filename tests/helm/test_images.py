"""The images: linted, and what they do done here without a container."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

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
    subprocess.run([*command, "--wheel-dir", folder, source], check=True, timeout=120)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in an empty folder."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*command, "--target", folder, wheel], check=True, timeout=120)
    return folder


def test_the_dockerfile_is_linted() -> None:
    done = subprocess.run([path_of("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_image_runs_as_nobody_in_particular_with_a_pinned_base() -> None:
    text = DOCKERFILE.read_text("utf-8")
    for argument in ("PYTHON_IMAGE", "TRITON_IMAGE"):
        [default] = re.findall(rf"^ARG {argument}=(\S+)$", text, re.MULTILINE)
        assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", default), "a version, or a digest"
    assert set(re.findall(r"^USER (\S+)$", text, re.MULTILINE)) == {"10001:10001", "1000:1000"}
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {
        "${PYTHON_IMAGE}", "${TRITON_IMAGE}", "wheel", "packages", "base",
    }  # fmt: skip
    assert not re.search(r"apt-get|gcc|build-essential", text), "nothing is compiled"
    assert "MALLOC" not in re.sub(r"#.*", "", text), "service/memory.py sets it in the process"


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
    assert top == {"posegate", "scripts", "service"}
    for path in (*ROOT.glob("service/skeletons/*.json"), *ROOT.glob("protos/posegate/v1/*_pb2*.py")):
        packaged = path.relative_to(ROOT / "protos") if "protos" in path.parts else path.relative_to(ROOT)
        assert str(packaged) in names
    for package in {path.parent for path in ROOT.glob("service/**/*.py")}:
        assert any(name.startswith(f"{package.relative_to(ROOT)}/") for name in names), (
            f"{package} is not in pyproject.toml"
        )
    assert wheel.stat().st_size < 3_000_000


def test_the_gateway_starts_from_an_empty_folder_and_writes_only_where_it_may(
    installed: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    elsewhere = tmp_path / "elsewhere"  # nothing of the checkout is on the path
    elsewhere.mkdir()
    before = sorted(path.relative_to(installed) for path in installed.rglob("*"))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(installed),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "POSEGATE_LISTEN": address,
        "POSEGATE_TRITON_URL": "127.0.0.1:1",
        "POSEGATE_DATABASE_URL": f"sqlite:///{state}/posegate.db",
        "POSEGATE_DRAIN_DELAY_S": "0",
    }
    names = "posegate, scripts, service"
    where = subprocess.run(
        [sys.executable, "-c", f"import {names}; print(*(module.__file__ for module in ({names})))"],
        cwd=elsewhere, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert all(path.startswith(str(installed)) for path in where.stdout.split())
    command = [sys.executable, str(installed / "bin" / "posegate")]
    gateway = subprocess.Popen(
        [*command, "serve"], cwd=elsewhere, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 30
        said = ""
        while said != "SERVING" and time.monotonic() < deadline:
            assert gateway.poll() is None, gateway.stderr and gateway.stderr.read()
            asked = subprocess.run(
                [*command, "health", "--service", "liveness", "--address", address],
                cwd=elsewhere, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            said = asked.stdout.strip()
        assert said == "SERVING"
        listed = subprocess.run(
            [*command, "skeletons", "list", "--address", address],
            cwd=elsewhere, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "coco_17" in listed.stdout, listed.stderr
    finally:
        gateway.send_signal(signal.SIGTERM)
        _, log = gateway.communicate(timeout=30)
    assert gateway.returncode == 0, log
    assert "stopped" in log
    assert sorted(path.relative_to(installed) for path in installed.rglob("*")) == before
    assert not list(elsewhere.iterdir())
