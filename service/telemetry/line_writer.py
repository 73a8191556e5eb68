"""Log lines on their way to a stream: those of calls are written by a thread."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

_PAUSE_S = 0.05  # between two writes: one for all calls that end meanwhile
_MOST = 10_000  # lines that wait; from then on each is written where it is logged, as fast as they are read


class LineWriter:
    """Writes lines to a stream, in their order, at once or soon.

    A write takes longer than all the rest of a log line, and as long as it likes where the other end of a
    pipe is slow: for a line of every call the event loop must not wait.

    Args:
        stream: text, such as sys.stderr.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: deque[str] = deque()
        self._lock = threading.Lock()
        self._awake = threading.Event()
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Write a line now, after those that wait."""
        self._waiting.append(line)
        self.flush()

    def write_soon(self, line: str) -> None:
        """Have a line written by the thread."""
        self._waiting.append(line)
        if len(self._waiting) > _MOST:
            self.flush()
        elif not self._awake.is_set():
            self._awake.set()
            if self._thread is None:
                self._start()

    def flush(self) -> None:
        """Write the lines that wait."""
        with self._lock:
            lines = []
            while self._waiting:
                lines.append(self._waiting.popleft())
            if lines:
                # A closed stream, a full disk: nothing is left to tell it to, and the thread must go on.
                with suppress(ValueError, OSError):
                    self._stream.write("\n".join(lines) + "\n")
                    self._stream.flush()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.flush)

    def _run(self) -> None:
        while True:
            self._awake.wait()
            time.sleep(_PAUSE_S)
            self._awake.clear()
            self.flush()


class Lines:
    """A logger for structlog that hands every line to one function, whatever its level."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = write
