from __future__ import annotations

from pathlib import Path

import pytest

from scripts import tools


@pytest.fixture(scope="session", autouse=True)
def checkers() -> None:
    """The real programs; fetched once, offline from then on."""
    tools.prepare(say=lambda _: None)


@pytest.fixture(scope="session")
def promtool() -> Path:
    path = tools.path_of("promtool")
    if not path.is_file():
        pytest.skip(tools.prepare_promtool(path, lambda _: None))
    return path
