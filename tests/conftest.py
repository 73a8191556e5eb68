"""What tests of every part share."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog
from grpc import _common
from grpc._cython import cygrpc
from grpc.aio import _call, _channel
from hypothesis import HealthCheck, settings

from tests.running import Service, running
from tests.store.postgres import postgres as postgres  # a fixture, here so that one server does for all

# Begun in the background of a shell, a process ignores Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine is no bug: no example has to be made or done within a time. And the same examples at every
# run: what they find is met by whoever changed the code, and not by somebody else by chance.
settings.register_profile(
    "posegate", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
# New ones: pytest --hypothesis-profile explore
settings.register_profile("explore", settings.get_profile("posegate"), derandomize=False)
settings.load_profile("posegate")

# Plain lines: structlog's default for a desk draws every exception with its local variables, which
# takes longer than most tests. Loggers are not cached, so that tests can capture what is logged.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ],
    cache_logger_on_first_use=False,
)
_LOGGING = structlog.get_config()


@pytest.fixture(autouse=True)
def log_configuration() -> Iterator[None]:
    """A command that a test runs in this process configures logging, to a stderr that ends with the test."""
    yield
    structlog.configure(**_LOGGING)


_write = _call._StreamRequestMixin._write


async def _write_or_status(self: Any, request: object) -> None:
    """grpc.aio's own, but that a caller who is refused while he still sends reads why. As it is, "Internal
    error from Core" takes the place of the status now and then: https://github.com/grpc/grpc/issues/36066."""
    send = self._cython_call.send_serialized_message
    try:
        if self.done() or self._done_writing_flag:
            await _write(self, request)
            return
        await self._metadata_sent.wait()
        await send(_common.serialize(request, self._request_serializer))
    except cygrpc.InternalError:
        async with asyncio.timeout(120):
            await self._cython_call.status()
        await self._raise_for_status()


_call._StreamRequestMixin._write = _write_or_status  # type: ignore[method-assign]


_open = _channel.Channel.__init__


def _open_alone(self: Any, target: str, options: Any, *others: Any) -> None:
    """grpc.aio's own, but that channels share no connections. As it is, a channel to a port on which another
    server listened a moment ago may find that one's connection, refused and waiting for its next attempt."""
    _open(self, target, (*(options or ()), ("grpc.use_local_subchannel_pool", 1)), *others)


_channel.Channel.__init__ = _open_alone  # type: ignore[assignment,method-assign]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call with a timeout of 60 s waits for a Triton that is away for half a second. By itself the gateway
    tells of it 0.2 s before the deadline, and a loaded machine may stand still for longer."""
    monkeypatch.setattr("service.pipeline.estimator._ANSWER_S", 59.5)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A running service with the usual limits of tests."""
    async with running() as service:
        yield service
