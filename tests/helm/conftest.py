from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts import tools

REQUIRED = os.environ.get("POSEGATE_TEST_CHART") == "require"  # as in CI: nothing may be skipped


@pytest.fixture(scope="session", autouse=True)
def checkers() -> None:
    """The real programs; fetched once, offline from then on."""
    tools.prepare(say=lambda _: None)


@pytest.fixture(scope="session")
def promtool() -> Path:
    path = tools.path_of("promtool")
    if not path.is_file() and not REQUIRED:
        pytest.skip(tools.prepare_promtool(path, lambda _: None))
    assert path.is_file(), tools.prepare_promtool(path, lambda _: None)
    return path
