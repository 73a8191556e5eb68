"""The real thing: `posegate up` in a process of its own, with real weights, once per test run."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest

from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from scripts.ports import free_address
from service.cli.connection import Target
from service.cli.health import health
from service.client import connect

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"


@dataclass(frozen=True)
class Service:
    """A running service."""

    address: str
    triton_url: str
    process: psutil.Popen
    log: Path


async def wait_for(address: str, said: str, timeout_s: float = 300.0) -> float:
    """Seconds until the health service says so."""
    started, gateway = time.monotonic(), Target(address)
    while time.monotonic() < started + timeout_s:
        if await health(gateway) == said:
            return time.monotonic() - started
        await asyncio.sleep(0.1)
    raise AssertionError(f"{address} did not say {said} within {timeout_s:g} s: {await health(gateway)}")


def start(command: str, folder: Path, **environment: str) -> Service:
    """Start `posegate up` or `posegate serve` on free ports."""
    address, triton_url = free_address(), free_address()
    log = folder / f"{command}.log"
    with log.open("wb") as sink:
        process = psutil.Popen(
            [sys.executable, "-m", "service", command],
            cwd=ROOT,
            stderr=sink,
            env={
                **{name: value for name, value in os.environ.items() if "no_proxy" not in name.lower()},
                "http_proxy": "http://127.0.0.1:9",  # nothing listens there: Triton is reached directly
                "POSEGATE_LISTEN": address,
                "POSEGATE_TRITON_URL": triton_url,
                "POSEGATE_HEALTH_INTERVAL_S": "0.2",
                # A shape that is still being compiled runs padded, with slightly other coordinates.
                "POSEGATE_PREPARE_SHAPES": "all",
                **environment,
            },
        )
    triton_url = environment.get("POSEGATE_TRITON_URL", triton_url)
    return Service(address, triton_url, process, log)


def stop(service: Service, number: signal.Signals = signal.SIGTERM) -> int:
    """Send the signal and return the exit code."""
    service.process.send_signal(number)
    return int(service.process.wait(120))


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that leave it as it was."""
    running = start("up", tmp_path_factory.mktemp("service"))
    try:
        asyncio.run(wait_for(running.address, "SERVING"))
        yield running
    finally:
        if running.process.is_running():
            stop(running)


@pytest.fixture
async def channel(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    async with connect(service.address) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> PoseServiceStub:
    return PoseServiceStub(channel)
