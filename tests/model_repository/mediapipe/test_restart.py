"""When the whole-body backend compiles its networks; without a Triton and without the networks."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.model_repository.tiny_models import BACKENDS

ARGUMENTS = {
    "model_name": "m",
    "model_config": json.dumps({"parameters": {"threads": {"string_value": "1"}}}),
    "model_repository": "none",
    "model_version": "1",
}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], Any]:
    """Loads a model whose networks are compiled by a function."""
    triton = ModuleType("triton_python_backend_utils")
    triton.Logger = SimpleNamespace(log_info=lambda text: None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, triton.__name__, triton)
    spec = importlib.util.spec_from_file_location("mediapipe_backend", BACKENDS / "mediapipe" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def loaded(estimator: Callable[[Path, int], Any]) -> Any:
        monkeypatch.setattr(module, "verify", lambda folder, digests: None)
        monkeypatch.setattr(module, "Estimator", estimator)
        model = module.TritonPythonModel()
        with ThreadPoolExecutor(1) as thread:  # which has a priority of its own
            thread.submit(model.initialize, ARGUMENTS).result()
        return model

    return loaded


class Networks:
    """Compiled, or not: fails as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.compiled = threading.Event()
        self._failures = failures

    def __call__(self, folder: Path, threads: int) -> Any:
        if self._failures:
            self._failures -= 1
            raise RuntimeError("no memory")
        self.compiled.set()
        return SimpleNamespace(close=lambda: None)


def test_a_model_is_ready_after_its_networks_and_not_without_them(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POSEGATE_RESTARTED", raising=False)
    networks = Networks()
    model = load(networks)
    assert networks.compiled.is_set()
    model.finalize()
    with pytest.raises(RuntimeError, match="no memory"):
        load(Networks(failures=1))


def test_networks_leave_the_cpu_to_the_server_first(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSEGATE_RESTARTED", raising=False)
    networks, seen = Networks(), list[int]()

    def compiled(folder: Path, threads: int) -> Any:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return networks(folder, threads)

    load(compiled).finalize()
    assert seen == [min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)]


def test_after_a_crash_it_is_ready_before_them_and_a_request_has_them_compiled(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSEGATE_RESTARTED", "1")
    networks = Networks(failures=1)
    model = load(networks)
    assert not networks.compiled.is_set()
    with pytest.raises(RuntimeError, match="no memory"):
        model._begin().result()
    model._begin().result()  # what failed once is tried again
    assert networks.compiled.is_set()
    model.finalize()


def test_a_model_that_is_unloaded_before_its_networks_are_compiled_never_compiles_them(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSEGATE_RESTARTED", "1")
    networks = Networks()
    model = load(networks)
    model.finalize()
    model._later.join(30)
    assert not model._later.is_alive()
    assert not networks.compiled.is_set()
