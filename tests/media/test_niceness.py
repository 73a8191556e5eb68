"""Priority of what computes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest

from service.media.niceness import step_back


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_thread_steps_back_with_what_it_starts_and_no_other_does() -> None:
    before = priority()
    lower = min(19, before + 5)
    with ThreadPoolExecutor(1, initializer=step_back) as threads:
        assert threads.submit(priority).result() == lower
        child = [sys.executable, "-c", "import os; print(os.nice(0))"]
        assert int(threads.submit(subprocess.check_output, child).result()) == lower
    assert priority() == before


def test_where_it_is_forbidden_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(by: int) -> NoReturn:
        raise PermissionError

    monkeypatch.setattr(os, "nice", forbidden)
    with ThreadPoolExecutor(1, initializer=step_back) as threads:
        assert threads.submit(int, "7").result() == 7
