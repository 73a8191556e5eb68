"""The lock files of `scripts/lock`."""

from __future__ import annotations

import re

import pytest

from scripts.runtime import REPOSITORY


@pytest.mark.parametrize("name", ["requirements.lock", "service/gateway.lock", "service/cpu.lock"])
def test_every_python_gets_the_same_versions(name: str) -> None:
    """What passes the tests on one Python is what the images run on another."""
    text = (REPOSITORY / name).read_text("utf-8")
    locked = re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==(\S+)", text, re.MULTILINE)
    assert len(locked) > 30
    assert len({package for package, _ in locked}) == len(locked)
    assert "python_full_version" not in text
