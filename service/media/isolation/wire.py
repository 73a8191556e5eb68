"""Messages between the gateway and its decoder processes: small JSON objects, and file descriptors.

JSON, and no pickle: a decoder that was taken over by the file it decodes must not run code in the gateway.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
from collections.abc import Mapping, Sequence
from typing import Any

_MAX_BYTES = 1 << 16
_MAX_DESCRIPTORS = 2

Message = dict[str, Any]


class Gone(Exception):
    """The other side has ended."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that keep messages apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(to: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send a message, with copies of descriptors; raises Gone."""
    ancillary = []
    if descriptors:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    try:
        to.sendmsg([json.dumps(message).encode()], ancillary)
    except OSError as error:
        raise Gone from error


def receive(of: socket.socket, patience_s: float | None = None) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors, which the caller closes; None if there is none in time.

    Raises:
        Gone: there will be none.
    """
    if patience_s is not None:
        poll = select.poll()  # select() takes no descriptor above 1023
        poll.register(of, select.POLLIN)
        if not poll.poll(max(patience_s, 0.0) * 1e3):
            return None
    try:
        content, descriptors, _, _ = socket.recv_fds(of, _MAX_BYTES, _MAX_DESCRIPTORS)
    except OSError as error:
        raise Gone from error
    if not content:
        raise Gone
    try:
        message = json.loads(content)
    except ValueError as error:
        close(descriptors)
        raise Gone from error
    if not isinstance(message, dict):
        close(descriptors)
        raise Gone
    return message, descriptors


def received(of: socket.socket) -> tuple[Message, list[int]]:
    """The next message and its descriptors, however long it takes; raises Gone."""
    message = receive(of)
    assert message is not None  # noqa: S101 - without a time limit there is one
    return message


def close(descriptors: Sequence[int]) -> None:
    """Close descriptors that were received."""
    for descriptor in descriptors:
        os.close(descriptor)
