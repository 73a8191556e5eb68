"""Triton dies and returns, the service stops, and nothing is left behind."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from scripts.ports import free_address
from service.client import connect
from tests.e2e.conftest import DATA, ROOT, Service, start, stop, wait_for
from tests.e2e.test_detect_poses import request_for

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub

pytestmark = pytest.mark.e2e


def triton_of(service: Service) -> psutil.Process:
    return next(child for child in service.process.children() if "tritonserver" in " ".join(child.cmdline()))


def traces_of(pid: int) -> list[str]:
    """Shared memory that carries a process' id in its name."""
    mine = re.compile(rf"(?<![0-9a-f]){pid}(?![0-9a-f])")  # not within a longer number or a random part
    return [path.name for path in Path("/dev/shm").iterdir() if mine.search(path.name)]  # noqa: S108 - POSIX


async def test_the_service_lives_through_the_death_of_triton_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    service = start("up", tmp_path)
    await wait_for(service.address, "SERVING")
    family = [service.process, *service.process.children(recursive=True)]
    async with connect(service.address) as channel:
        stub = PoseServiceStub(channel)
        before = await stub.DetectPoses(request_for("astronaut.png"), timeout=60)

        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=300)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        triton = triton_of(service)
        for stub_process in triton.children():
            stub_process.suspend()  # one that hangs must not keep the server from coming back
        triton.kill()
        # Whoever asks only now and then may miss it, where the machine is slower than Triton comes back.
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        (refused,) = await asyncio.gather(
            stub.DetectPoses(request_for("astronaut.png"), timeout=0.9), return_exceptions=True
        )
        if isinstance(refused, BaseException):  # else Triton is back already
            assert isinstance(refused, grpc.aio.AioRpcError)
            status = rpc_status.from_call(refused)  # type: ignore[arg-type]  # its stub knows sync calls only
            if refused.code() == grpc.StatusCode.UNAVAILABLE:
                assert status is not None
                assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)
            else:  # every retry was refused until the deadline passed
                assert refused.code() == grpc.StatusCode.DEADLINE_EXCEEDED

        await wait_for(service.address, "SERVING")
        after = await stub.DetectPoses(request_for("astronaut.png"), timeout=60)
        assert after.persons == before.persons
    family += service.process.children(recursive=True)
    assert stop(service) == 0
    _, alive = psutil.wait_procs(family, timeout=120)
    assert not alive, [process.cmdline() for process in alive]
    assert not traces_of(service.process.pid)


async def test_calls_in_flight_finish_when_the_service_is_told_to_stop(tmp_path: Path) -> None:
    metrics = free_address()
    service = start("up", tmp_path, POSEGATE_METRICS_LISTEN=metrics)
    await wait_for(service.address, "SERVING")
    # Without retries: they would hide a call that is lost.
    async with grpc.aio.insecure_channel(service.address, [("grpc.enable_retries", 0)]) as channel:
        stub = PoseServiceStub(channel)
        calls = [asyncio.create_task(_code(stub)) for _ in range(24)]
        # A call that is on its way is not in flight.
        while await asyncio.to_thread(_admitted, metrics) < 24:  # noqa: ASYNC110 - metrics set no event
            await asyncio.sleep(0.02)
        service.process.send_signal(signal.SIGTERM)
        codes = await asyncio.gather(*calls)
    assert set(codes) == {grpc.StatusCode.OK}
    assert service.process.wait(120) == 0


def _admitted(metrics: str) -> float:
    """Number of calls that the gateway has admitted."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=60) as page:
        lines = page.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("posegate_admitted_total "))


async def _code(stub: PoseServiceAsyncStub) -> grpc.StatusCode:
    try:
        await stub.DetectPoses(request_for("two_people.jpg"), timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_killed_service_takes_triton_with_it(tmp_path: Path) -> None:
    service = start("up", tmp_path)
    asyncio.run(wait_for(service.address, "SERVING"))
    family = service.process.children(recursive=True)
    assert any("tritonserver" in " ".join(process.cmdline()) for process in family)
    service.process.kill()
    service.process.wait(120)
    _, alive = psutil.wait_procs(family, timeout=120)
    assert not alive, [process.cmdline() for process in alive]


def test_a_stop_while_triton_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    service = start("up", tmp_path)
    deadline = time.monotonic() + 120
    while not service.process.children() and time.monotonic() < deadline:
        time.sleep(0.02)
    family = service.process.children(recursive=True)
    assert stop(service, signal.SIGINT) == 0
    _, alive = psutil.wait_procs(family, timeout=120)
    assert not alive


def test_an_address_in_use_is_said_in_one_line(service: Service, tmp_path: Path) -> None:
    second = start("serve", tmp_path, POSEGATE_LISTEN=service.address)
    assert second.process.wait(120) == 1
    assert f"cannot listen on {service.address}" in second.log.read_text(encoding="utf-8").splitlines()[-1]


def posegate(*arguments: str | Path, address: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments, "--address", address],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        check=False,
    )


def test_the_command_line_detects_and_tells_which_pictures_failed(service: Service, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((DATA / "two_people.jpg").read_bytes()[:5000])
    results, overlays = tmp_path / "results.jsonl", tmp_path / "overlays"
    done = posegate(
        "detect", DATA / "two_people.jpg", broken, DATA / "astronaut.png", "--overlay", overlays,
        "--json", results, address=service.address,
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"{broken}: INVALID_ARGUMENT: ")
    assert len(results.read_text(encoding="utf-8").splitlines()) == 3
    assert sorted(path.name for path in overlays.iterdir()) == ["astronaut.png", "two_people.png"]
    assert not list(tmp_path.rglob("*.partial"))


def test_the_command_line_lists_models_and_tells_health(service: Service) -> None:
    assert "AGPL-3.0" in posegate("models", "list", address=service.address).stdout
    healthy = posegate("health", address=service.address)
    assert (healthy.returncode, healthy.stdout.strip()) == (0, "SERVING")
