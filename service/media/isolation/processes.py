"""The gateway's side of the decoder processes: starts, bounds and ends them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Literal

import structlog

from service.core.cancellation import checkpoint
from service.media.isolation import wire

_log = structlog.get_logger()

_START_S = 30.0  # of a busy machine; it takes half a second
_TOLD_S = 5.0  # for a host that forks meanwhile
_ATTEMPTS = 3  # of a fork: a host that ended may be noticed at its second one
_LOOK_S = 0.05  # between two looks whether the caller is still there


End = Literal["by the machine", "crashed", "at a limit"]


class NoAnswer(Exception):
    """A process took longer than it may, or has ended; `ended` says which."""

    def __init__(self, *, ended: bool) -> None:
        super().__init__()
        self.ended = ended


class DecoderError(Exception):
    """A decoder process met an error that it should not have."""


class DecoderProcess:
    """One decoder process, used by one thread at a time.

    Args:
        connection: to it.
        process: descriptor of it.
        pid: its number.
        host: of the process.
    """

    def __init__(
        self, connection: socket.socket, process: int, pid: int, host: subprocess.Popen[bytes] | None
    ) -> None:
        self._connection = connection
        self._process: int | None = process
        self._lock = threading.Lock()
        self.pid = pid
        self.host = host

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._process is None

    def ask(
        self,
        message: wire.Message,
        descriptors: Sequence[int],
        patience_s: float,
        left: Callable[[], bool] = lambda: False,
    ) -> tuple[wire.Message, list[int]]:
        """Send a message and wait for the answer, until `left` says that it is not needed. An error leaves
        the process ended.

        Raises:
            NoAnswer: none came in time, or the process ended.
            DecoderError: an error that is no fault of the file.
            Stopped: the caller of this thread's work has gone.
        """
        try:
            wire.send(self._connection, message, descriptors)
            until = monotonic() + patience_s
            while (left_s := until - monotonic()) > 0:
                answer = wire.receive(self._connection, min(_LOOK_S, left_s))
                if answer is not None:
                    if "internal" in answer[0]:
                        raise DecoderError(answer[0]["internal"])
                    return answer
                checkpoint()
                if left():
                    break
        except wire.Gone as error:
            self.end()
            raise NoAnswer(ended=True) from error
        except BaseException:
            self.end()
            raise
        self.end()
        raise NoAnswer(ended=False)

    def is_there(self) -> bool:
        """Whether it has not ended, as far as can be seen. For a process that is not at work."""
        try:
            return wire.receive(self._connection, 0) is None
        except wire.Gone:
            return False

    def end(self) -> None:
        """End the process, whatever it does; idempotent, for any thread."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)
        self._connection.close()


class DecoderHost:
    """Starts decoder processes, by forks of one that has the decoders imported. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._host: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._closed = False
        self._processes: list[DecoderProcess] = []

    def pids(self) -> list[int]:
        """Numbers of the processes, the host's own among them, for a look at what they hold."""
        with self._lock:
            self._processes = [process for process in self._processes if not process.ended]
            host = [] if self._host is None else [self._host.pid]
            return [*host, *(process.pid for process in self._processes)]

    def start(self) -> None:
        """Start the host if it does not run; does not wait until it is ready."""
        with self._lock:
            self._start()

    def fork(self, config: wire.Message, files: Sequence[int] = ()) -> DecoderProcess:
        """A new decoder process. `config` says what it does, and `memory_bytes` what it may allocate.

        Raises:
            NoAnswer: none can be started.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._fork(config, files)
            except NoAnswer as error:
                if not error.ended:  # it takes long: another attempt would only add to that
                    raise
        return self._fork(config, files)

    def end_of(self, process: DecoderProcess) -> End:
        """Why a process that gave no answer has ended: the machine ended it, where its host has ended too or
        SIGKILL came from elsewhere, as the kernel sends it where memory is short; it crashed; or it reached
        one of its limits."""
        with self._lock:
            if self._host is None or self._host is not process.host or self._host.poll() is not None:
                return "by the machine"
        try:
            ours, theirs = wire.pair()
            with ours:
                with theirs, self._lock:
                    self._ask_host({"ended": process.pid}, [theirs.fileno()])
                answer = wire.receive(ours, _TOLD_S)
        except (wire.Gone, OSError):
            return "by the machine"
        match 0 if answer is None else answer[0].get("signal"):
            case signal.SIGKILL:
                return "by the machine"
            case signal.SIGSEGV | signal.SIGBUS | signal.SIGILL | signal.SIGFPE:
                return "crashed"
        return "at a limit"

    def close(self) -> None:
        """End the host and all its processes; idempotent."""
        with self._lock:
            self._closed = True
        self._drop()

    def _fork(self, config: wire.Message, files: Sequence[int]) -> DecoderProcess:
        try:
            ours, theirs = wire.pair()
        except OSError as error:  # no descriptors are left
            raise NoAnswer(ended=False) from error
        try:
            with theirs, self._lock:
                self._ask_host(config, [theirs.fileno(), *files])
                host = self._host
            hello = wire.receive(ours, _START_S)
        except (wire.Gone, OSError) as error:
            ours.close()
            raise NoAnswer(ended=True) from error
        if hello is None:
            ours.close()
            raise NoAnswer(ended=False)
        message, descriptors = hello
        process = DecoderProcess(ours, descriptors[0], int(message["pid"]), host)
        with self._lock:
            self._processes.append(process)
        return process

    def _ask_host(self, config: wire.Message, files: Sequence[int]) -> None:
        """Ask the host for a fork. One that has ended is forgotten, so that the next attempt starts another;
        one that runs is never ended for a fork that failed, because the processes at work would end too."""
        control = self._start()
        try:
            wire.send(control, config, files)
        except wire.Gone:
            if self._host is not None:
                _log.error("decoder_host_restarts")
                control.close()
                self._host.kill()
                self._host.wait()
                self._host = self._control = None
            raise

    def _start(self) -> socket.socket:
        if self._closed:
            raise wire.Gone
        if self._control is None:
            ours, theirs = wire.pair()
            with theirs:
                # One thread for each library: what forks must have no other.
                threads: dict[str, Any] = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
                self._host = subprocess.Popen(  # noqa: S603 - this interpreter
                    [sys.executable, "-m", "service.media.isolation.host", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, **threads},
                    start_new_session=True,  # Ctrl-C is for the gateway, which drains first
                )
            self._control = ours
        return self._control

    def _drop(self) -> None:
        with self._lock:
            host, control = self._host, self._control
            self._host = self._control = None
        if control is not None:
            control.close()
        if host is not None:
            host.kill()
            host.wait()
