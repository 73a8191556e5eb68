"""A PostgreSQL of the tests' own: Debian's binaries, a private socket, a folder that goes away."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

MISSING = "PostgreSQL's server is not installed: apt-get install postgresql"

_SETTINGS = {
    "listen_addresses": "",
    "fsync": "on",  # or the tests of durability would show nothing
    "max_connections": "60",
    "shared_buffers": "16MB",
    "log_min_messages": "fatal",
}


@dataclass
class Postgres:
    """A running server; `stop` and `start` for tests of what happens without it."""

    binaries: Path
    folder: Path
    process: subprocess.Popen[Any] | None = None
    _numbers: Iterator[int] = field(default_factory=count)

    def create(self) -> None:
        options = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        self._run("initdb", "-D", "data", "-U", "posegate", *options)
        self.start()

    def start(self) -> None:
        settings = {**_SETTINGS, "unix_socket_directories": str(self.folder)}
        command = [str(self.binaries / "postgres"), "-D", "data"]
        command += [f"-c{name}={value}" for name, value in settings.items()]
        process = subprocess.Popen(command, cwd=self.folder, **_as_someone_else())
        self.process = process
        deadline = time.monotonic() + 120
        ask = [
            str(self.binaries / "pg_isready"),
            "-q",
            "-h",
            str(self.folder),
            "-U",
            "posegate",
            "-d",
            "postgres",
        ]
        while subprocess.run(ask, check=False).returncode:
            assert process.poll() is None, "PostgreSQL did not start"
            assert time.monotonic() < deadline, "PostgreSQL did not come up"
            time.sleep(0.05)

    def stop(self, *, with_signal: signal.Signals = signal.SIGINT) -> None:
        """Fast shutdown; SIGQUIT for one without goodbye, as after a crash."""
        if self.process is not None:
            self.process.send_signal(with_signal)
            self.process.wait(120)
            self.process = None

    def url(self, database: str) -> str:
        return f"postgresql://posegate@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test_{next(self._numbers)}"
        self.run_sql("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def run_sql(self, database: str, *statements: str) -> list[Any]:
        """Run statements, each on its own; the rows of the last one."""

        async def run() -> list[Any]:
            connection = await asyncpg.connect(self.url(database))
            rows: list[Any] = []
            try:
                for statement in statements:
                    rows = await connection.fetch(statement)
            finally:
                await connection.close()
            return rows

        with asyncio.Runner() as runner:
            return runner.run(run())

    def _run(self, name: str, *arguments: str) -> None:
        command = [str(self.binaries / name), *arguments]
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, **_as_someone_else())


def _as_someone_else() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    owner = pwd.getpwnam("postgres")
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def _binaries() -> Path | None:
    """Debian keeps them out of PATH, one folder per version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if folders and (folders[-1] / "postgres").exists():
        return folders[-1]
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server. Without its binaries tests are skipped, unless POSEGATE_TEST_POSTGRES=require."""
    binaries = _binaries()
    if binaries is None:
        if os.environ.get("POSEGATE_TEST_POSTGRES") == "require":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    # Not pytest's own folder: its parents are closed to the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="posegate-pg-"))
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    server = Postgres(binaries, folder)
    try:
        server.create()
        yield server
    finally:
        server.stop(with_signal=signal.SIGQUIT)
        shutil.rmtree(folder)
