"""The log of the bundled tritonserver: copied to a file, passed on to the gateway's log, and read for the
two facts that it alone tells, that all services listen and that a port is taken."""

from __future__ import annotations

import asyncio
import io
import re
from collections import deque
from contextlib import suppress
from pathlib import Path

import structlog

_log = structlog.get_logger()

_TAIL_LINES = 30
_LINE = re.compile(r'([IWEF])\d{4} [\d:.]+ \d+ (\S+?):\d+\] *"?(.*?)"?')
_EXPECTED = (  # what Triton prints on every machine without a GPU
    "Unable to allocate pinned system memory",
    "CUDA memory pool disabled",
    "CudaDriverHelper has not been initialized",
    "failed to allocate pinned system memory",
)
# Triton lives on when only its HTTP or metrics port is taken.
_PORT_TAKEN = re.compile(r"failed to start \w+ service: .*Socket '[^']*:(\d+)' already in use")
_METRICS_LISTEN = "Started Metrics Service at "  # the last service that Triton starts


class ServerLog:
    """Reads what the server prints, from one start to its end.

    Args:
        copy_to: file that the bytes are appended to; None for no copy.

    Attributes:
        tail: the last lines, without tables and expected warnings.
        port_taken: number of a port that the server could not bind; None as long as there is none.
        listening: every service of the server listens; it does so after loading its models.
    """

    def __init__(self, copy_to: Path | None) -> None:
        self._copy_to = copy_to
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self.port_taken: int | None = None
        self.listening = False

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Read to the end of the stream."""
        copy = None
        if self._copy_to is not None:
            with suppress(OSError):  # it must be read all the same: Triton waits where nobody reads
                copy = self._copy_to.open("ab", buffering=0)
        try:
            rest = b""
            while chunk := await stream.read(1 << 16):
                if copy is not None:
                    copy = _copied(chunk, copy)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self.take(line.decode(errors="replace").rstrip())
            if rest:
                self.take(rest.decode(errors="replace").rstrip())
        finally:
            if copy is not None:
                copy.close()

    def take(self, line: str) -> None:
        """Take in one line and pass it on: information at debug level, warnings and errors as they are."""
        if not line or line[0] in "+|" or any(phrase in line for phrase in _EXPECTED):
            return
        self.tail.append(line)
        if taken := _PORT_TAKEN.search(line):
            self.port_taken = int(taken[1])
        self.listening |= _METRICS_LISTEN in line
        match = _LINE.fullmatch(line)
        level, source, text = match.groups() if match else ("I", "", line)
        if not text:  # the heading of a table
            return
        if level == "I":
            _log.debug("triton", source=source, text=text)
        elif level == "W":
            _log.warning("triton", source=source, text=text)
        else:
            _log.error("triton", source=source, text=text)


def _copied(chunk: bytes, copy: io.FileIO) -> io.FileIO | None:
    """Append to the copy; None once it cannot be written, as on a full disk."""
    try:
        copy.write(chunk)
    except OSError as error:
        _log.warning("triton_log_not_kept", file=str(copy.name), why=error.strerror or str(error))
        copy.close()
        return None
    return copy


def emptied(log_file: Path | None) -> Path | None:
    """The file, empty; None where it cannot be written, as in an image: the lines go to stderr anyway."""
    if log_file is None:
        return None
    try:
        log_file.write_bytes(b"")
    except OSError as error:
        _log.info("triton_log_not_kept", file=str(log_file), why=error.strerror or str(error))
        return None
    return log_file
