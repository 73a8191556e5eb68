"""Connections of callers, which gRPC for Python does not show: found among the descriptors of the process."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote


def close_connection(peer: str) -> bool:
    """End the TCP connection of a caller, and with it all of its calls; whether there was one.

    gRPC frees an answer that is not taken only with its connection.

    Args:
        peer: as `ServicerContext.peer` gives it: ipv4:ADDRESS:PORT or ipv6:[ADDRESS]:PORT.
    """
    kind, _, place = peer.partition(":")
    host, _, port = place.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return False
    sought = unquote(host).strip("[]").partition("%")[0], int(port)
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # a descriptor that was closed meanwhile, or is no socket
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as connection:
                if connection.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                name = connection.getpeername()
                if (name[0].removeprefix("::ffff:").partition("%")[0], name[1]) == sought:
                    connection.shutdown(socket.SHUT_RDWR)
                    return True
    return False
