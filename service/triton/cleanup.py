"""Processes, shared memory and temporary folders of the bundled tritonserver: found, waited for, removed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder of POSIX shared memory, not a place for files
_POLL_S = 0.05


def owner_prefix() -> str:
    """Prefix of everything that processes of this pid namespace leave behind: a pid names its owner only
    within its namespace."""
    return f"posegate-{Path('/proc/self/ns/pid').stat().st_ino}-"


def remove_traces_of_dead_processes() -> None:
    """Remove folders and shared memory of processes that were killed before they could do it."""
    prefix = owner_prefix()
    for place in (_SHARED_MEMORY, Path(tempfile.gettempdir())):
        owners = {path.name.removeprefix(prefix).split("-", 1)[0] for path in place.glob(f"{prefix}*")}
        for owner in owners:
            if owner.isdecimal() and not Path("/proc", owner).exists():
                _remove(f"{prefix}{owner}-", place)


def remove_shared_memory(prefix: str) -> None:
    """Remove the shared memory regions whose names begin so."""
    _remove(prefix, _SHARED_MEMORY)


def kill_group(leader: int) -> None:
    """Send SIGKILL to a process and the rest of its process group, as many as are left."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


async def end_group(process: asyncio.subprocess.Process, grace_s: float) -> None:
    """Kill a process and the rest of its process group, and wait until all have ended, `grace_s` at most."""
    kill_group(process.pid)
    await process.wait()
    deadline = asyncio.get_running_loop().time() + grace_s
    with suppress(ProcessLookupError, PermissionError):
        while asyncio.get_running_loop().time() < deadline:
            os.killpg(process.pid, signal.SIGKILL)
            with suppress(ChildProcessError):  # orphans become children of this process where it is process 1
                os.waitpid(-process.pid, os.WNOHANG)  # noqa: ASYNC222 - it does not block
            await asyncio.sleep(_POLL_S)


def children_of(parent: int) -> frozenset[int]:
    """Pids of the live processes that `parent` has started: the server's model processes. Not those that a
    model process starts: they come and go. Nor that of a model that could not be loaded, which has ended."""
    return frozenset(
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if (fields := _stat(int(entry.name))) and int(fields[1]) == parent and fields[0] not in ("Z", "X")
    )


def is_suspended(pid: int) -> bool:
    """Whether a process was stopped by a signal (SIGSTOP) or a debugger; False if there is none."""
    fields = _stat(pid)
    return bool(fields) and fields[0] in ("T", "t")


async def first_ended(pids: Iterable[int]) -> int:
    """Wait for the first of these processes to end; its pid."""
    waits = {asyncio.create_task(ended(pid)): pid for pid in pids}
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return waits[done.pop()]
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)  # each closes its descriptor


async def ended(pid: int) -> None:
    """Wait until a process has ended, even while others hold its pipes open.

    `Process.wait()` waits for the pipes too (CPython issue 119710), and a Python stub whose server was
    killed at the wrong moment waits for a lock that is never released, with the pipes open.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _stat(pid: int) -> list[str]:
    """State, parent and the rest of /proc/PID/stat after the name in parentheses; empty without a process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return stat.rpartition(")")[2].split()


def _remove(prefix: str, place: Path) -> None:
    for path in place.glob(f"{prefix}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
