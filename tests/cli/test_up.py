"""`posegate up`: what it finds out before Triton starts."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from service.cli import up as command
from service.cli.up import check_address, find_backends
from service.server.app import CannotListen
from service.triton.launch import TritonProcessError
from tests.fakes import until
from tests.running import settings_with

ROOT = Path(__file__).parents[2]


def test_an_address_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotListen, match=rf"cannot listen on {address}: Address already in use"):
            check_address(address)
    check_address(address)


@pytest.mark.parametrize("address", ["", "127.0.0.1:0", "unix:/run/posegate.sock", "[::]:0"])
def test_what_is_no_fixed_port_is_not_checked(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize("address", ["192.0.2.1:50051", "no.such.host.invalid:50051"])
def test_an_address_of_another_host_is_named(address: str) -> None:
    with pytest.raises(CannotListen, match=address):
        check_address(address)


def test_backends_beside_the_repository_come_before_the_shipped_ones(tmp_path: Path) -> None:
    shipped = ROOT / "model_repository" / "backends"
    mine = tmp_path / "backends"
    assert find_backends((mine, shipped)) == shipped
    (mine / "openvino").mkdir(parents=True)
    assert find_backends((mine, shipped)) == shipped
    (mine / "openvino" / "model.py").touch()
    assert find_backends((mine, shipped)) == mine


def test_folders_without_backends_are_named(tmp_path: Path) -> None:
    with pytest.raises(TritonProcessError) as refused:
        find_backends((tmp_path / "a", tmp_path / "b", tmp_path / "a"))
    assert f"in {tmp_path / 'a'}, {tmp_path / 'b'}:" in str(refused.value)


async def test_what_is_loaded_is_no_work_for_the_garbage_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(*_: object) -> bool:
        return True

    async def watch(*_: object) -> None:
        await asyncio.sleep(0)

    stop = asyncio.Event()
    monkeypatch.setattr(command, "stop_on_signals", lambda _: stop)
    monkeypatch.setattr(command, "_start", start)
    monkeypatch.setattr("service.cli.up.TritonProcess.watch", watch)
    monkeypatch.setattr(command, "build_gateway", lambda _: nullcontext())
    running = asyncio.create_task(command.up(settings_with(tmp_path)))
    try:
        await until(lambda: gc.get_freeze_count() > 10_000)
    finally:
        stop.set()
        await running
        gc.unfreeze()


async def test_a_second_up_on_a_port_ends_before_triton_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", "up", cwd=ROOT,
            env={**os.environ, "POSEGATE_LISTEN": address, "POSEGATE_HOME": str(tmp_path / "home")},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), 300)
    assert process.returncode == 1
    (line,) = err.decode().splitlines()
    assert line.startswith(f"posegate: cannot listen on {address}: Address already in use.")
    assert out == b""
    assert not (tmp_path / "home").exists()
