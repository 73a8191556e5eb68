"""What tests of every part share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.running import Service, running


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A running service with the usual limits of tests."""
    async with running() as service:
        yield service
