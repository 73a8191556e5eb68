"""Starting, watching and stopping the bundled tritonserver, with a model of three nodes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
import tritonclient.grpc.aio as triton_grpc
from structlog.testing import capture_logs

from service.triton import launch as launching
from service.triton import process
from service.triton.cleanup import children_of, owner_prefix, remove_traces_of_dead_processes
from service.triton.launch import Hung, Launch, Ports, TritonProcessError
from service.triton.logs import ServerLog
from service.triton.process import TritonProcess
from tests.model_repository.tiny_models import (
    BACKENDS,
    ROOT,
    RUNTIME,
    mean_colour,
    mean_colour_config,
    write_model,
)

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - POSIX shared memory

RUN_UNTIL_KILLED = """
import asyncio, sys
from pathlib import Path
from service.triton.launch import Launch
from service.triton.process import TritonProcess

async def main():
    runtime, models, backends, cache = map(Path, sys.argv[1:])
    async with TritonProcess(Launch(runtime, models, backends, cache)) as triton:
        print(triton.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    models = tmp_path_factory.mktemp("models")
    write_model(models, "mean", mean_colour(), mean_colour_config("32x64"))
    return Launch(
        runtime=RUNTIME, model_repository=models, backends=BACKENDS, cache=tmp_path_factory.mktemp("cache")
    )


async def is_ready(address: str) -> bool:
    client = triton_grpc.InferenceServerClient(address)
    try:
        return bool(await client.is_model_ready("mean"))
    finally:
        await client.close()


async def eventually(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():  # noqa: ASYNC110 - processes set no event
            await asyncio.sleep(0.05)


def traces(pid: int) -> list[Path]:
    """What a process and its Triton left in shared memory and among temporary files."""
    return [
        path
        for place in (SHARED_MEMORY, Path(tempfile.gettempdir()))
        for path in place.glob(f"{owner_prefix()}{pid}-*")
    ]


async def test_it_starts_serves_and_leaves_nothing_behind(launch: Launch, tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    async with TritonProcess(replace(launch, log_file=log)) as triton:
        assert triton.is_up
        assert triton.pid is not None
        assert await is_ready(triton.grpc_url)
        family = [psutil.Process(triton.pid), *psutil.Process(triton.pid).children(recursive=True)]
        assert len(family) == 2  # the server and the stub of one model
        assert traces(os.getpid())
    assert not triton.is_up
    assert not any(process.is_running() for process in family)
    assert not traces(os.getpid())
    assert "Started GRPCInferenceService" in log.read_text(encoding="utf-8")


async def test_it_serves_where_its_log_cannot_be_written(launch: Launch, tmp_path: Path) -> None:
    log = tmp_path / "no folder" / "triton.log"
    async with TritonProcess(replace(launch, log_file=log)) as triton:
        assert await is_ready(triton.grpc_url)
    assert not log.parent.exists()


@pytest.mark.parametrize("victim", ["server", "model"])
async def test_it_comes_back_on_the_same_port_after_a_process_died(launch: Launch, victim: str) -> None:
    events: list[str] = []
    async with TritonProcess(launch) as triton:
        watcher = asyncio.create_task(
            triton.watch(lambda: events.append("down"), lambda: events.append("up"))
        )
        address, first = triton.grpc_url, triton.pid
        assert first is not None
        [stub] = psutil.Process(first).children()
        os.kill(first if victim == "server" else stub.pid, signal.SIGKILL)
        await eventually(lambda: events == ["down", "up"])
        assert triton.pid != first
        assert triton.grpc_url == address
        assert await is_ready(address)
        await eventually(lambda: gone(stub))
    await asyncio.wait_for(watcher, 120)  # stopping is no death
    assert events == ["down", "up"]
    assert not traces(os.getpid())


async def test_it_dies_with_a_parent_that_is_killed(launch: Launch) -> None:
    arguments = [launch.runtime, launch.model_repository, launch.backends, launch.cache]
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN_UNTIL_KILLED, *map(str, arguments)), stdout=subprocess.PIPE, cwd=ROOT
    )
    assert parent.stdout is not None
    pid = 0
    while not pid:
        line = (await asyncio.wait_for(parent.stdout.readline(), 120)).strip()
        pid = int(line) if line.isdigit() else 0
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    parent.kill()
    await parent.wait()
    await eventually(lambda: all(gone(process) for process in family))

    await asyncio.to_thread(remove_traces_of_dead_processes)
    assert not traces(parent.pid)


def gone(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)  # process 1 has not looked yet
    except psutil.NoSuchProcess:
        return True


def test_the_children_of_a_model_process_are_none_of_the_server() -> None:
    nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with psutil.Popen([sys.executable, "-c", nested], stdin=subprocess.PIPE) as child:
        while not child.children():
            pass
        [grandchild] = child.children()
        assert child.pid in children_of(os.getpid())
        assert children_of(child.pid) == {grandchild.pid}
        assert grandchild.pid not in children_of(os.getpid())
        child.communicate(b"\n")
    assert not children_of(child.pid)


def test_a_process_that_has_ended_and_was_not_waited_for_is_no_child() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE
        assert ended.pid not in children_of(os.getpid())


def test_only_traces_of_dead_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    prefix = owner_prefix()
    kept = {f"{prefix}{os.getpid()}-0-a", "posegate-1-1-0-other-namespace", f"{prefix}no-pid", "posegate.txt"}
    for name in (*kept, f"{prefix}{int(ended.stdout)}-0-b"):
        (tmp_path / name).mkdir()
    remove_traces_of_dead_processes()
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize(
    ("suspended", "what"),
    [("server", "hang"), ("model", "stopped")],
    ids=["the server hangs", "a model process is suspended"],
)
async def test_a_server_that_does_not_answer_is_replaced(launch: Launch, suspended: str, what: str) -> None:
    async with TritonProcess(launch) as triton:
        assert triton.pid is not None
        server = psutil.Process(triton.pid)
        (server if suspended == "server" else server.children()[0]).suspend()
        back = asyncio.Event()
        with capture_logs() as lines:
            watcher = asyncio.create_task(triton.watch(on_up=back.set))
            await asyncio.wait_for(back.wait(), 120)
            watcher.cancel()
        assert await is_ready(triton.grpc_url)
        assert triton.pid != server.pid
        assert [line["what"] for line in lines if line["event"] == "triton_died"] == [what]
        await eventually(lambda: gone(server))


async def test_a_port_that_is_taken_is_named(launch: Launch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TritonProcessError, match=f"port {port} on 127.0.0.1 is in use"):
            await TritonProcess(replace(launch, ports=Ports(metrics=port))).start()
    assert not traces(os.getpid())


async def test_a_free_port_that_is_lost_to_another_process_is_replaced(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        lost = Ports(grpc=taken.getsockname()[1])
        honest = launching.free_ports
        calls: list[Ports] = []

        def free_ports(wanted: Ports) -> object:
            calls.append(wanted)
            return honest(lost if len(calls) == 1 else wanted)

        monkeypatch.setattr(launching, "free_ports", free_ports)
        async with TritonProcess(launch) as triton:
            assert len(calls) == 2
            assert await is_ready(triton.grpc_url)


async def test_a_server_that_cannot_start_says_why(launch: Launch, tmp_path: Path) -> None:
    broken = tmp_path / "runtime"
    (broken / "pytriton" / "tritonserver" / "bin").mkdir(parents=True)
    (broken / "pytriton" / "tritonserver" / "bin" / "tritonserver").symlink_to("/bin/false")
    (broken / "stamp.json").write_text((RUNTIME / "stamp.json").read_text())
    with pytest.raises(TritonProcessError, match="ended with exit code 1 while it started"):
        await TritonProcess(replace(launch, runtime=broken)).start()
    assert not traces(os.getpid())


def crashing(folder: Path, times: int) -> Path:
    """A runtime whose server aborts so many times before it starts; `starts` has a line for each."""
    real, server = RUNTIME.resolve() / "pytriton" / "tritonserver", folder / "pytriton" / "tritonserver"
    (server / "bin").mkdir(parents=True)
    for path in real.iterdir():
        if path.name != "bin":
            (server / path.name).symlink_to(path)
    starts, program = folder / "starts", server / "bin" / "tritonserver"
    program.write_text(
        f"#!/bin/sh\necho >> {starts}\n[ $(wc -l < {starts}) -gt {times} ] || kill -ABRT $$\n"
        f'exec {real}/bin/tritonserver "$@"\n'
    )
    program.chmod(0o755)
    (folder / "stamp.json").write_text((RUNTIME / "stamp.json").read_text())
    return folder


async def test_a_server_that_crashes_while_it_starts_is_started_again(launch: Launch, tmp_path: Path) -> None:
    async with TritonProcess(replace(launch, runtime=crashing(tmp_path, times=1))) as triton:
        assert await is_ready(triton.grpc_url)
    assert (tmp_path / "starts").read_text() == "\n" * 2
    assert not traces(os.getpid())


async def test_a_server_that_crashes_at_every_start_says_so(launch: Launch, tmp_path: Path) -> None:
    with pytest.raises(TritonProcessError, match="ended with exit code -6 while it started"):
        await TritonProcess(replace(launch, runtime=crashing(tmp_path, times=9))).start()
    assert (tmp_path / "starts").read_text() == "\n" * 3
    assert not traces(os.getpid())


async def test_a_server_that_takes_too_long_is_stopped(launch: Launch) -> None:
    triton = TritonProcess(replace(launch, start_timeout_s=0.2))
    with pytest.raises(TritonProcessError, match=r"did not start within 0\.2 s"):
        await triton.start()
    assert triton.pid is None
    assert not traces(os.getpid())


@pytest.mark.parametrize(
    ("stamp", "message"),
    [
        (None, "the Triton runtime is missing in .*: run scripts/setup"),
        ({"python": "3.11.0rc1"}, r"is for Python 3\.11\.0rc1, this is .*: run scripts/setup"),
    ],
    ids=["never set up", "set up for another Python"],
)
async def test_a_runtime_that_does_not_fit_is_told(
    launch: Launch, tmp_path: Path, stamp: dict[str, str] | None, message: str
) -> None:
    if stamp is not None:
        (tmp_path / "stamp.json").write_text(json.dumps(stamp))
    with pytest.raises(TritonProcessError, match=message):
        await TritonProcess(replace(launch, runtime=tmp_path)).start()


async def test_a_missing_model_repository_is_told(launch: Launch, tmp_path: Path) -> None:
    with pytest.raises(TritonProcessError, match="there is no model repository at"):
        await TritonProcess(replace(launch, model_repository=tmp_path / "none")).start()


class FakeServer:
    """Stands for a server that ends once, and whose first successors cannot be started or watched."""

    starts: ClassVar[list[Exception | None]] = []
    failures: ClassVar[list[Exception | str]] = []
    pid = 1

    def __init__(self, *_: object, **__: object) -> None:
        pass

    async def start(self) -> None:
        if (error := self.starts.pop(0)) is not None:
            raise error

    async def failure(self) -> str:
        if not self.failures:
            await asyncio.Event().wait()
        if isinstance(failure := self.failures.pop(0), Exception):
            raise failure
        return failure

    async def kill(self) -> None:
        pass

    remove = report_end = stop = kill


@pytest.mark.parametrize("hangs", [1, 2])
async def test_a_server_that_hangs_while_it_starts_is_started_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: int
) -> None:
    monkeypatch.setattr(process, "Server", FakeServer)
    monkeypatch.setattr(launching, "check", lambda launch: None)
    FakeServer.starts = [*[Hung("not in time")] * hangs, None]
    triton = TritonProcess(Launch(crashing(tmp_path, 0), tmp_path, tmp_path, tmp_path))
    if hangs == 1:
        await triton.start()
        assert triton.is_up
        assert not FakeServer.starts
    else:
        with pytest.raises(Hung):
            await triton.start()
        assert FakeServer.starts == [None]
    await triton.stop()


async def test_it_is_watched_on_where_no_process_or_descriptor_is_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "Server", FakeServer)
    monkeypatch.setattr(process, "_BACKOFF_S", (0.0,))
    monkeypatch.setattr(process, "_WATCH_AGAIN_S", 0.0)
    FakeServer.starts = [None, BlockingIOError(11, "Resource temporarily unavailable"), None]
    FakeServer.failures = [OSError(24, "Too many open files"), "server"]
    triton = TritonProcess(Launch(tmp_path, tmp_path, tmp_path, tmp_path))
    triton._folder = tmp_path
    await triton._start_server(restarted=False)
    up = asyncio.Event()
    watcher = asyncio.create_task(triton.watch(on_up=up.set))
    await asyncio.wait_for(up.wait(), 120)
    assert triton.is_up
    assert not watcher.done()
    watcher.cancel()


async def test_a_full_disk_does_not_keep_the_log_from_being_read() -> None:
    log, stream = ServerLog(Path("/dev/full")), asyncio.StreamReader()
    stream.feed_data(b'I1129 02:00:00.000000 1 metrics.cc:1] "Started Metrics Service at 127.0.0.1:1"\n')
    stream.feed_eof()
    await log.read(stream)
    assert log.listening
