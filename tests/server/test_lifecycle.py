"""The end of the process."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STUCK = """
import asyncio, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from service.server.lifecycle import end_threads, serve

@asynccontextmanager
async def gateway():
    threads = ThreadPoolExecutor(1)
    threads.submit(time.sleep, 600)
    print("listening", flush=True)
    yield
    await end_threads(threads)

asyncio.run(serve(gateway(), exit_after_s=0.5))
"""


@contextmanager
def stopping(code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that listens and gets SIGTERM."""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        process.send_signal(signal.SIGTERM)
        yield process


def test_a_thread_that_never_returns_does_not_keep_the_process_alive() -> None:
    with stopping(STUCK) as process:
        out, log = process.communicate(timeout=300)  # the thread takes ten minutes
        assert process.returncode == 1, out + log
    assert "ended_by_force" in out + log


UNREAD = """
import asyncio
from contextlib import asynccontextmanager
import structlog
from service.server.lifecycle import serve
from service.settings import Settings
from service.telemetry.logging import configure

@asynccontextmanager
async def gateway():
    print("listening", flush=True)
    yield
    while True:
        structlog.get_logger().info("x" * 1000)

configure(Settings(log_format="json"))
asyncio.run(serve(gateway(), exit_after_s=0.5))
"""


def test_a_log_that_nobody_reads_does_not_keep_the_process_alive() -> None:
    with stopping(UNREAD) as process:
        assert process.wait(60) == 1
