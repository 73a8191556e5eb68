"""The process that decoder processes are forked from: small, of one thread, with all decoders imported.

A fork of it is ready in milliseconds and shares its memory; a new interpreter takes half a second and 50 MB.
It ends when the gateway does, and the kernel ends its children with it.

python -m service.media.isolation.host DESCRIPTOR
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress

from service.media.isolation import child, wire
from service.media.niceness import step_back

_PR_SET_PDEATHSIG = 1
_KEPT = 64  # ends of children that were not asked for
_SETTLED_S = 0.1  # a child that has closed its socket is known to have ended by then


def main(descriptor: int) -> None:
    """Fork a child for every message that names its work and has its socket beside it, and tell how a child
    ended for every one that asks; until the gateway closes the connection."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the gateway drains, and then closes the connection
        signal.signal(number, signal.SIG_IGN)
    step_back(os.getppid())  # a host that is started again is the child of a thread that has stepped back
    ends = _Ends()
    control = socket.socket(fileno=descriptor)
    host = os.getpid()
    while True:
        ends.collect_until(control)
        try:
            message, descriptors = wire.received(control)
        except wire.Gone:
            return
        if "ended" in message:
            with suppress(wire.Gone), socket.socket(fileno=descriptors[0]) as answer:
                wire.send(answer, {"signal": ends.signal_of(int(message["ended"]))})
            continue
        try:
            forked = os.fork()
        except OSError:  # no room for another process: those at work go on, and the closed socket says it
            forked = -1
        if forked:
            wire.close(descriptors)
            continue
        code = 1
        try:
            ends.close()
            control.close()
            _follow(host)
            child.main(socket.socket(fileno=descriptors[0]), message, descriptors[1:])
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)


class _Ends:
    """How the last children ended."""

    def __init__(self) -> None:
        self._signals: dict[int, int] = {}
        self._child_ended, self._notes = socket.socketpair()
        for one in (self._child_ended, self._notes):
            one.setblocking(False)
        signal.set_wakeup_fd(self._notes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler nothing would be noted

    def close(self) -> None:
        """Give up the children, in one of them."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._child_ended.close()
        self._notes.close()

    def collect_until(self, connection: socket.socket) -> None:
        """Take note of children that end, until there is a message or the end of the connection."""
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        poll.register(self._child_ended, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self._child_ended.fileno() in ready:
                self._child_ended.recv(_KEPT)
                self._collect()
            if connection.fileno() in ready:
                return

    def signal_of(self, pid: int) -> int:
        """The signal that ended a child whose socket is closed; 0 where none did or it is not known."""
        until = time.monotonic() + _SETTLED_S
        self._collect()
        while pid not in self._signals and time.monotonic() < until:
            time.sleep(_SETTLED_S / 100)
            self._collect()
        return self._signals.pop(pid, 0)

    def _collect(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._signals.pop(ended[0], None)
                self._signals[ended[0]] = os.WTERMSIG(ended[1]) if os.WIFSIGNALED(ended[1]) else 0
        while len(self._signals) > _KEPT:
            del self._signals[next(iter(self._signals))]


def _follow(host: int) -> None:
    """Have the kernel end this process with its host."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != host:  # it ended before
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
