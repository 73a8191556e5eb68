"""Connections are found by the peer that gRPC names."""

import socket

import pytest

from service.server.connections import close_connection


@pytest.mark.parametrize(
    ("family", "address", "peer"),
    [
        (socket.AF_INET, "127.0.0.1", "ipv4:127.0.0.1:{}"),
        (socket.AF_INET6, "::1", "ipv6:[::1]:{}"),
        (socket.AF_INET6, "::1", "ipv6:%5B::1%5D:{}"),
    ],
)
def test_the_connection_of_a_peer_is_ended_and_no_other(
    family: socket.AddressFamily, address: str, peer: str
) -> None:
    with socket.create_server((address, 0), family=family) as server:
        place = server.getsockname()[:2]
        with socket.create_connection(place) as one, socket.create_connection(place) as other:
            accepted = [server.accept()[0] for _ in range(2)]
            assert close_connection(peer.format(one.getsockname()[1]))
            assert one.recv(1) == b""
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(1)
            for connection in accepted:
                connection.close()


@pytest.mark.parametrize("peer", ["", "unix:", "unix:/run/posegate", "ipv4:127.0.0.1:1", "ipv4:x", "fd:7"])
def test_a_peer_without_a_connection_here_is_none(peer: str) -> None:
    assert not close_connection(peer)
