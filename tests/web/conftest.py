"""A door in front of a fake gateway, and one in front of the real servicers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.running import Service
from tests.web.running import FakeGateway, RunningDoor, running_door, running_fake


@pytest.fixture
async def fake() -> AsyncIterator[FakeGateway]:
    """A gateway that answers what the test wants."""
    async with running_fake() as gateway:
        yield gateway


@pytest.fixture
async def faked(fake: FakeGateway) -> AsyncIterator[RunningDoor]:
    """A door in front of the fake gateway."""
    async with running_door(fake.address) as door:
        yield door


@pytest.fixture
async def door(service: Service) -> AsyncIterator[RunningDoor]:
    """A door in front of the real servicers."""
    async with running_door(service.address) as running:
        yield running
