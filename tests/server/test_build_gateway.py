"""The composition root: whatever fails on the way, everything that was opened before is closed again."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scripts.ports import free_port
from service.server import app
from service.server.app import CannotListen, build_gateway
from service.server.tls import BadCertificate
from service.settings import Settings
from service.store.address import BadDatabaseUrl
from service.store.database import Database
from service.telemetry.tracing import BadTracing, Tracing
from tests.fakes import FakeTritonClient
from tests.running import settings_with


class Watched:
    """What a gateway opened and closed, by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []
        opened, closed = self.opened, self.closed
        database_init, database_close = Database.__init__, Database.close

        def opening(database: Database, *args: Any, **options: Any) -> None:
            database_init(database, *args, **options)
            opened.append("database")

        async def closing(database: Database) -> None:
            await database_close(database)
            closed.append("database")

        class Traces(Tracing):
            def close(self) -> None:
                closed.append("tracing")

        def tracing() -> Tracing:
            opened.append("tracing")
            return Traces()

        monkeypatch.setattr(Database, "__init__", opening)
        monkeypatch.setattr(Database, "close", closing)
        monkeypatch.setattr(app, "from_environment", tracing)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def pool_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("pixels", "video"))]


def addresses(health: int, metrics: int) -> dict[str, str]:
    return {"health_listen": f"127.0.0.1:{health}", "metrics_listen": f"127.0.0.1:{metrics}"}


@pytest.mark.parametrize(
    "step", ["certificates", "health", "tracing", "metrics", "database", "listen", "start"]
)
async def test_a_failure_at_any_step_closes_what_was_opened_before(
    step: str, watched: Watched, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    triton, health, metrics = FakeTritonClient(), free_port(), free_port()
    changes: dict[str, Any] = addresses(health, metrics)
    expected: type[Exception] = CannotListen
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        in_use = f"127.0.0.1:{taken.getsockname()[1]}"
        if step == "certificates":
            expected = BadCertificate
            changes |= {"tls_cert": tmp_path / "none.pem", "tls_key": tmp_path / "none.key"}
        elif step == "health":
            changes["health_listen"] = in_use
        elif step == "tracing":
            expected = BadTracing
            monkeypatch.setattr(app, "from_environment", _refused_tracing)
        elif step == "metrics":
            changes["metrics_listen"] = in_use
        elif step == "database":
            expected = BadDatabaseUrl
            changes["database_url"] = "mysql://host/name"
        elif step == "listen":
            changes["listen"] = in_use
        elif step == "start":
            expected = RuntimeError
            monkeypatch.setattr(Database, "start", _broken_start)
        with pytest.raises(expected):
            async with build_gateway(settings_with(tmp_path, **changes), triton=triton):
                raise AssertionError("the gateway was built")
    assert watched.closed == watched.opened[::-1]
    assert triton.closed
    assert pool_threads() == []
    assert is_free(health)
    assert is_free(metrics)


def _refused_tracing() -> Tracing:
    raise BadTracing("no")


def _broken_start(database: Database) -> None:
    raise RuntimeError("broken")


async def test_an_error_in_the_block_drains_the_gateway_and_passes_through(
    watched: Watched, tmp_path: Path
) -> None:
    triton, health, metrics, port = FakeTritonClient(), free_port(), free_port(), free_port()
    settings = settings_with(tmp_path, listen=f"127.0.0.1:{port}", **addresses(health, metrics))
    with pytest.raises(RuntimeError, match="mine"):
        await _fail_within(settings, triton)
    assert watched.closed == ["database", "tracing"]
    assert triton.closed
    assert pool_threads() == []
    assert all(map(is_free, (port, health, metrics)))


async def test_one_part_that_fails_to_close_keeps_none_of_the_others_open(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton, health, metrics, port = FakeTritonClient(), free_port(), free_port(), free_port()
    settings = settings_with(tmp_path, listen=f"127.0.0.1:{port}", **addresses(health, metrics))

    close = Database.close

    async def stuck(database: Database) -> None:
        await close(database)
        raise OSError("stuck")

    monkeypatch.setattr(Database, "close", stuck)
    with pytest.raises(OSError, match="stuck"):
        async with build_gateway(settings, triton=triton):
            pass
    assert watched.closed == ["database", "tracing"]
    assert triton.closed
    assert pool_threads() == []
    assert all(map(is_free, (port, health, metrics)))


async def _fail_within(settings: Settings, triton: FakeTritonClient) -> None:
    async with build_gateway(settings, triton=triton):
        raise RuntimeError("mine")


async def test_nothing_is_served_before_the_first_inference(tmp_path: Path) -> None:
    triton = FakeTritonClient()
    triton.gate.clear()
    async with build_gateway(settings_with(tmp_path), triton=triton) as gateway:
        await triton.entered.wait()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
            assert [await status(channel, name) for name in ("", "posegate.v1.PoseService", "liveness")] == [
                health_pb2.HealthCheckResponse.NOT_SERVING,
                health_pb2.HealthCheckResponse.NOT_SERVING,
                health_pb2.HealthCheckResponse.SERVING,
            ]
            triton.gate.set()
            async with asyncio.timeout(120):
                while await status(channel, "") != health_pb2.HealthCheckResponse.SERVING:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


async def status(channel: grpc.aio.Channel, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
    return int(answer.status)


async def test_two_gateways_live_beside_each_other(tmp_path: Path) -> None:
    one, other = (FakeTritonClient() for _ in range(2))
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    async with (
        build_gateway(settings_with(folders[0]), triton=one) as first,
        build_gateway(settings_with(folders[1]), triton=other) as second,
        grpc.aio.insecure_channel(f"127.0.0.1:{second.port}") as channel,
    ):
        assert first.port != second.port
        await channel.channel_ready()


async def test_threads_that_compute_leave_the_cpu_to_the_event_loop_first(tmp_path: Path) -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = priority()
    async with build_gateway(settings_with(tmp_path), triton=FakeTritonClient()) as gateway:
        assert await asyncio.wrap_future(gateway.workers.submit(priority)) == min(19, before + 5)
        assert priority() == before
