"""The process that decoder processes are forked from: small, of one thread, with all decoders imported.

A fork of it is ready in milliseconds and shares its memory; a new interpreter takes half a second and 50 MB.
It ends when the gateway does, and the kernel ends its children with it.

python -m service.media.isolation.host DESCRIPTOR
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import traceback

from service.media.isolation import child, wire

_PR_SET_PDEATHSIG = 1


def main(descriptor: int) -> None:
    """Fork a child for every message, which names its work and has its socket beside it; until the gateway
    closes the connection."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the gateway drains, and then closes the connection
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the children
    control = socket.socket(fileno=descriptor)
    host = os.getpid()
    while True:
        try:
            message, descriptors = wire.received(control)
        except wire.Gone:
            return
        try:
            forked = os.fork()
        except OSError:  # no room for another process: those at work go on, and the closed socket says it
            forked = -1
        if forked:
            wire.close(descriptors)
            continue
        code = 1
        try:
            control.close()
            _follow(host)
            child.main(socket.socket(fileno=descriptors[0]), message, descriptors[1:])
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)


def _follow(host: int) -> None:
    """Have the kernel end this process with its host."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != host:  # it ended before
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
