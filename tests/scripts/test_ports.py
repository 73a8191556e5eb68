"""Ports for processes that are started in a moment."""

from __future__ import annotations

import socket

import pytest

from scripts import ports


def test_no_port_is_given_twice_though_nothing_listens_at_it_yet() -> None:
    given = [ports.free_port() for _ in range(300)]
    assert len(set(given)) == len(given)


def test_a_port_in_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        in_use, free = taken.getsockname()[1], ports.free_port()
        draws = iter((in_use, free, free, ports.free_port()))
        monkeypatch.setattr(ports, "_given", set())
        monkeypatch.setattr(ports._random, "randrange", lambda *_: next(draws))
        assert ports.free_address() == f"127.0.0.1:{free}"
        assert ports.free_port() not in {in_use, free}


def test_a_wanted_port_is_taken_only_where_it_is_free() -> None:
    free = ports.free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert ports.free_port(taken.getsockname()[1]) != taken.getsockname()[1]
    assert ports.free_port(free) != free, "it was given before"
    ports._given.discard(free)
    assert ports.free_port(free) == free
