"""What libraries write to stderr, as log lines: libjpeg, libpng, FFmpeg and gRPC know no other place, and
Python's own `logging` and `warnings` use it where nothing else is set up.

Descriptor 2 becomes a pipe that a thread reads. Python's own `sys.stderr`, to which the log goes, and the
stacks of a process that crashes (`faulthandler`) stay on the real one. Of a library that ends the process the
last words may be lost in the pipe; the stacks are not.
"""

from __future__ import annotations

import faulthandler
import fcntl
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog

_log = structlog.get_logger()

_STDERR = 2
_LINES = 20  # that are logged of one second
_LONGEST = 1000  # characters of a line
_READ_BYTES = 1 << 16
_PIPE_BYTES = 1 << 20
_END_S = 1.0  # child processes that still write keep the pipe open


@contextmanager
def logged_stderr() -> Iterator[None]:
    """Log what is written to descriptor 2 in the block, by this process and those that it starts there. Does
    nothing where `sys.stderr` is not on that descriptor, as under a test runner."""
    if not _is_on_descriptor():
        yield
        return
    sys.stderr.flush()
    before, had_faults = sys.stderr, faulthandler.is_enabled()
    real = os.dup(_STDERR)
    reading, writing = os.pipe()
    with suppress(OSError):  # a user with many pipes on the host may have no larger ones
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    # Code in C that holds the interpreter's lock must never wait for the thread, which needs it to read.
    os.set_blocking(writing, False)
    with os.fdopen(real, "w", buffering=1, encoding="utf-8", errors="backslashreplace") as stderr:
        sys.stderr = stderr
        faulthandler.enable(stderr)
        os.dup2(writing, _STDERR)
        os.close(writing)
        records = _Records(logging.WARNING)
        logging.getLogger().addHandler(records)
        logging.captureWarnings(True)
        reader = threading.Thread(target=_read, args=[reading], name="stderr", daemon=True)
        reader.start()
        try:
            yield
        finally:
            logging.captureWarnings(False)
            logging.getLogger().removeHandler(records)
            os.dup2(real, _STDERR)
            reader.join(_END_S)
            faulthandler.disable()
            if had_faults:
                faulthandler.enable(before)
            sys.stderr = before


def _is_on_descriptor() -> bool:
    try:
        return sys.stderr.fileno() == _STDERR
    except (AttributeError, OSError, ValueError):  # none, replaced or closed
        return False


class _Records(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log = _log.error if record.levelno >= logging.ERROR else _log.warning
        stack = {"exc_info": record.exc_info} if record.exc_info else {}
        log("library", logger=record.name, text=record.getMessage().strip()[:_LONGEST], **stack)


def _read(reading: int) -> None:
    """Log lines until nobody can write any more."""
    lines = _Lines()
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while content := pipe.read(_READ_BYTES):
            lines.take(content)
    lines.end()


class _Lines:
    """Cuts what is written into lines, and logs no more than a few a second."""

    def __init__(self) -> None:
        self._rest = b""
        self._since = time.monotonic()
        self._count = 0

    def take(self, content: bytes) -> None:
        """Log the lines that are complete."""
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            self._log(line)
        if len(self._rest) > _LONGEST:
            self._log(self._rest)
            self._rest = b""

    def end(self) -> None:
        """Log what came without an end of line."""
        self._log(self._rest)
        self._tell_left_out()

    def _log(self, line: bytes) -> None:
        text = line.decode(errors="backslashreplace").strip()
        if not text:
            return
        if time.monotonic() >= self._since + 1:
            self._tell_left_out()
            self._since, self._count = time.monotonic(), 0
        self._count += 1
        if self._count <= _LINES:
            _log.warning("stderr", text=text[:_LONGEST])

    def _tell_left_out(self) -> None:
        if self._count > _LINES:
            _log.warning("stderr_left_out", lines=self._count - _LINES)
