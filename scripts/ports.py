"""Ports for processes that demo, benchmarks and tests are about to start.

python -m scripts.ports [PORT]    # prints a free address: PORT of 127.0.0.1 where that is free
"""

from __future__ import annotations

import random
import socket
import sys

_LOWEST = 10_000
# Linux takes ports of outgoing connections from 32768 on: one of those may be gone before a process listens.
_BEYOND = 32_768

_given: set[int] = set()
_random = random.SystemRandom()


def free_port(wanted: int | None = None) -> int:
    """A port of 127.0.0.1 that nothing uses, and that this process was never given before.

    Args:
        wanted: the port to take where it is free.
    """
    port = wanted or _drawn()
    while port in _given or not _is_free(port):
        port = _drawn()
    _given.add(port)
    return port


def free_address(wanted: int | None = None) -> str:
    """The same as `127.0.0.1:PORT`."""
    return f"127.0.0.1:{free_port(wanted)}"


def _drawn() -> int:
    return _random.randrange(_LOWEST, _BEYOND)


def _is_free(port: int) -> bool:
    try:
        # Unlike a bare bind, it passes over what is left of connections that have ended, as servers do.
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    print(free_address(*map(int, sys.argv[1:])))
