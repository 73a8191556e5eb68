"""The networks, compiled once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model_repository.mediapipe.holistic import WEIGHTS
from wholebody.estimator import Estimator
from wholebody.networks import Networks, compile_networks


@pytest.fixture(scope="session")
def networks() -> Networks:
    """One of each network on one core."""
    return compile_networks(WEIGHTS, 1).sets[0]


@pytest.fixture(scope="session")
def estimator() -> Iterator[Estimator]:
    """As it serves on two cores."""
    estimator = Estimator(WEIGHTS, 2)
    yield estimator
    estimator.close()
