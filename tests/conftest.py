"""What tests of every part share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import structlog
from hypothesis import settings

from tests.running import Service, running

# A loaded machine is no bug: no example has to be done within a time.
settings.register_profile("posegate", deadline=None)
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


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A running service with the usual limits of tests."""
    async with running() as service:
        yield service
