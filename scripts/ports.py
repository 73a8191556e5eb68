"""Ports for processes that benchmarks and tests are about to start."""

from __future__ import annotations

import random
import socket

_LOWEST = 10_000
# Linux takes ports of outgoing connections from 32768 on: one of those may be gone before a process listens.
_BEYOND = 32_768

_given: set[int] = set()
_random = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing uses, and that this process was never given before."""
    while True:
        port = _random.randrange(_LOWEST, _BEYOND)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def free_address() -> str:
    """The same as `127.0.0.1:PORT`."""
    return f"127.0.0.1:{free_port()}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
