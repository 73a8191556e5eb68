from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.models.errors import EngineError
from service.models.manifest import Profile, add_to_manifest, read_manifest
from tests.models.plans import PLAN


def test_a_folder_without_a_manifest_has_no_plans(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) == {}


@pytest.mark.parametrize("accuracy", [PLAN.accuracy, None], ids=["compared", "not compared"])
def test_what_is_written_is_read_back(tmp_path: Path, accuracy: Any) -> None:
    plan = replace(PLAN, accuracy=accuracy)
    add_to_manifest(tmp_path, plan)
    assert read_manifest(tmp_path) == {"model.plan": plan}


def test_plans_for_other_gpus_stay(tmp_path: Path) -> None:
    other = replace(PLAN, file="model_sm80.plan", compute_capability="8.0")
    for plan in (PLAN, other, replace(PLAN, build_s=1.0)):
        add_to_manifest(tmp_path, plan)
    assert read_manifest(tmp_path) == {"model.plan": replace(PLAN, build_s=1.0), other.file: other}
    assert not list(tmp_path.glob("*.partial"))


def test_two_builders_may_write_at_once(tmp_path: Path) -> None:
    plans = [replace(PLAN, file=f"model_sm{index}.plan") for index in range(16)]
    threads = [threading.Thread(target=add_to_manifest, args=(tmp_path, plan)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_manifest(tmp_path)) == 16


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        '{"format": 2, "plans": {}}',
        '{"format": 1}',
        '{"format": 1, "plans": {"model.plan": {}}}',
        '{"format": 1, "plans": {"model.plan": 7}}',
        '{"format": 1, "plans": []}',
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(EngineError, match="build again"):
        read_manifest(tmp_path)
    add_to_manifest(tmp_path, PLAN)  # and a build puts it right
    assert read_manifest(tmp_path) == {"model.plan": PLAN}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sha256", 7),
        ("size", "7"),
        ("profiles", [{"min": 1}]),
        ("accuracy", {"body": [1]}),
        ("tensorrt", None),
    ],
)
def test_a_field_of_another_type_is_refused(tmp_path: Path, key: str, value: object) -> None:
    add_to_manifest(tmp_path, PLAN)
    content = json.loads((tmp_path / "manifest.json").read_text())
    content["plans"]["model.plan"][key] = value
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(EngineError, match="build again"):
        read_manifest(tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be written: No such file"):
        add_to_manifest(tmp_path / "none", PLAN)


@pytest.mark.parametrize(
    "change",
    [
        {"tensorrt": "10.14.1"},
        {"compute_capability": "8.0"},
        {"onnx_sha256": "00"},
        {"precision": "fp32"},
        {"tf32": False},
        {"optimisation_level": 5},
        {"hardware_compatibility": "ampere_plus"},
        {"version_compatible": True},
        {"profiles": (Profile((1,), (1,), (1,)),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_build_is_the_same_only_if_everything_that_goes_into_it_is(change: dict[str, Any]) -> None:
    assert PLAN.same_build(replace(PLAN, built_at="later", sha256="other", driver="1", accuracy=None))
    assert not PLAN.same_build(replace(PLAN, **change))
