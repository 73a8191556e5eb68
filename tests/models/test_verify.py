from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.models.errors import EngineError
from service.models.gpus import Gpu
from service.models.manifest import add_to_manifest
from service.models.verify import foreign_prefix, main, plan_file, verify
from service.triton.model_config import parse_config
from tests.models.plans import A100, BYTES, CONFIG, H200, L4, PLAN, TENSORRT, model_folder

ROOT = Path(__file__).resolve().parents[2]


def said(repository: Path, *gpus: Gpu, tensorrt: str = TENSORRT) -> list[tuple[str, str]]:
    return [(found.level, found.text) for found in verify(repository, gpus or (L4,), tensorrt)]


def test_a_plan_for_this_gpu_and_this_tensorrt_is_fine(tmp_path: Path) -> None:
    model_folder(tmp_path)
    assert said(tmp_path) == [("ok", "model.plan fits NVIDIA L4 (8.9) and TensorRT 10.13.3.9")]
    assert said(tmp_path, L4, L4) == said(tmp_path)


@pytest.mark.parametrize(
    ("changes", "gpu", "tensorrt", "words"),
    [
        ({}, A100, TENSORRT, "built for compute capability 8.9 (NVIDIA L4), here is NVIDIA A100"),
        ({"hardware_compatibility": "same_compute_capability"}, A100, TENSORRT, "here is NVIDIA A100"),
        ({}, L4, "10.14.1.48", "built by TensorRT 10.13.3.9, here is 10.14.1.48"),
        ({"version_compatible": True}, L4, "10.9.0.34", "built by TensorRT 10.13.3.9, here is 10.9.0.34"),
        ({"sha256": "00" * 32}, L4, TENSORRT, "not the plan that its manifest describes"),
        ({"size": 9_000_000}, L4, TENSORRT, "1028 of 9000000 bytes: it was not written to its end"),
        ({"library": "tensorrt_rtx"}, L4, TENSORRT, "TensorRT-RTX, whose plans Triton does not load"),
    ],
    ids=[
        "gpu",
        "gpu, same capability",
        "tensorrt",
        "older tensorrt",
        "lying manifest",
        "half written",
        "rtx",
    ],
)
def test_what_does_not_fit_is_an_error_that_says_what_to_do(
    tmp_path: Path, changes: dict[str, Any], gpu: Gpu, tensorrt: str, words: str
) -> None:
    model_folder(tmp_path, **changes)
    ((level, text),) = said(tmp_path, gpu, tensorrt=tensorrt)
    assert level == "error"
    assert words in text
    assert "posegate models build m" in text


@pytest.mark.parametrize(
    ("changes", "gpu", "tensorrt"),
    [
        ({"hardware_compatibility": "ampere_plus", "gpu": ""}, A100, TENSORRT),
        ({"hardware_compatibility": "ampere_plus", "gpu": ""}, H200, TENSORRT),
        ({"version_compatible": True}, L4, "10.14.1.48"),
        ({"version_compatible": True}, L4, "11.4.0.106"),
        ({}, L4, "10.13.3"),
    ],
    ids=["8.0", "9.0", "newer", "next major", "build number unknown"],
)
def test_plans_that_were_built_to_fit_more_do(
    tmp_path: Path, changes: dict[str, Any], gpu: Gpu, tensorrt: str
) -> None:
    model_folder(tmp_path, **changes)
    assert [level for level, _ in said(tmp_path, gpu, tensorrt=tensorrt)] == ["ok"]


def test_turing_is_older_than_ampere(tmp_path: Path) -> None:
    model_folder(tmp_path, hardware_compatibility="ampere_plus")
    assert said(tmp_path, Gpu("Tesla T4", "7.5", "580"))[0][0] == "error"


def remove(model: Path) -> None:
    (model / "1" / "model.plan").unlink()


def forget(model: Path) -> None:
    (model / "1" / "manifest.json").unlink()


def garble(model: Path) -> None:
    (model / "1" / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (remove, "model.plan is not there"),
        (forget, "is not in the manifest"),
        (garble, "no manifest that this version reads"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, harm: Callable[[Path], None], words: str) -> None:
    harm(model_folder(tmp_path))
    ((level, text),) = said(tmp_path)
    assert level == "error"
    assert words in text


def ultralytics(plan: bytes) -> bytes:
    """An .engine as Ultralytics exports it: the length of its metadata, the metadata, the plan."""
    text = json.dumps({"description": "Ultralytics YOLOv8m-pose model", "stride": 32}).encode()
    return len(text).to_bytes(4, "little") + text + plan


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (ultralytics(BYTES), "bytes of JSON before the plan: it is an .engine that Ultralytics exported"),
        (ultralytics(b""), "and nothing that TensorRT knows follows"),
        (b"", "does not begin like a TensorRT plan: it is empty"),
        (b"PK\x03\x04", "does not begin like a TensorRT plan"),
        (b"\x02\x00\x00\x00{]", "does not begin like a TensorRT plan"),
        (b"\xff\xff\xff\x7f{}", "does not begin like a TensorRT plan"),
        (b"ft", "does not begin like a TensorRT plan"),
    ],
    ids=["ultralytics", "only metadata", "empty", "checkpoint", "broken json", "long json", "two bytes"],
)
def test_files_that_are_no_plan_are_recognised(tmp_path: Path, data: bytes, words: str) -> None:
    model = model_folder(tmp_path, data=data)
    assert words in str(foreign_prefix(model / "1" / "model.plan"))
    ((level, text),) = said(tmp_path)
    assert level == "error"
    assert words in text


@pytest.mark.parametrize("magic", [b"ftrt", b"vtrt"])
def test_plans_begin_with_a_magic_word(tmp_path: Path, magic: bytes) -> None:
    assert magic != b"ftrt" or int.from_bytes(magic, "little") == 1953657958  # what Triton's message expects
    (tmp_path / "model.plan").write_bytes(magic + b"...")
    assert foreign_prefix(tmp_path / "model.plan") is None


def test_what_may_be_served_and_should_be_known_is_a_warning(tmp_path: Path) -> None:
    model = model_folder(tmp_path, accuracy=None, gpu="NVIDIA L40S")
    (model / "1" / "model.onnx").write_bytes(b"another graph")
    findings = said(tmp_path)
    assert [level for level, _ in findings] == ["warning", "warning", "warning", "ok"]
    texts = " ".join(text for _, text in findings)
    for words in ("another graph", "tuned on NVIDIA L40S", "never compared"):
        assert words in texts


def test_in_a_fleet_every_gpu_has_its_own_plan(tmp_path: Path) -> None:
    entry = 'cc_model_filenames { key: "8.0" value: "model_sm80.plan" }\n'
    model = model_folder(tmp_path, config=CONFIG + entry)
    assert "model_sm80.plan is not there" in said(tmp_path, A100)[0][1]
    assert "There are plans for 8.9; add --fleet" in said(tmp_path, A100)[0][1]
    (model / "1" / "model_sm80.plan").write_bytes(BYTES)
    add_to_manifest(
        model / "1",
        PLAN.__class__(**{**PLAN.__dict__, "file": "model_sm80.plan", "compute_capability": "8.0"}),
    )
    assert [level for level, _ in said(tmp_path, L4, A100)] == ["ok", "warning", "ok"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        'default_model_filename: "other.plan"',
        'cc_model_filenames { key: "8.9" value: "a" }\ncc_model_filenames { key: "8.0" value: "b" }',
        'cc_model_filenames [ { key: "8.9" value: "a.plan" }, { key: "8.0", value: "b.plan" } ]',
        'cc_model_filenames { key: "8.0" value: "b.plan" } default_model_filename: "other.plan"',
        '# cc_model_filenames { key: "8.9" value: "a.plan" }',
        'parameters { key: "x#8.9" value { string_value: "#" } }\ndefault_model_filename: "other.plan"',
    ],
)
def test_the_file_that_triton_loads_is_found_without_protobuf(text: str) -> None:
    config = parse_config(CONFIG + text)
    for capability in ("8.0", "8.9", "9.0"):
        by_capability = dict(config.cc_model_filenames)
        wanted = by_capability.get(capability) or config.default_model_filename or "model.plan"
        assert plan_file(CONFIG + text, capability) == wanted


def test_models_of_other_backends_are_left_alone(tmp_path: Path) -> None:
    model_folder(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.pbtxt").write_text(
        'name: "other" backend: "openvino" # backend: "tensorrt"'
    )
    assert len(said(tmp_path)) == 1


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_tensorrt_models_is_an_error(tmp_path: Path, exists: bool) -> None:
    with pytest.raises(EngineError, match="holds no TensorRT model"):
        verify(tmp_path if exists else tmp_path / "none", [L4], TENSORRT)


@pytest.mark.parametrize(
    ("gpu", "options", "code"), [(L4, [], 0), (A100, [], 1), (A100, ["--report-only"], 0)]
)
def test_the_exit_code_says_whether_triton_may_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gpu: Gpu, options: list[str], code: int
) -> None:
    model_folder(tmp_path)
    assert main([str(tmp_path), *options], gpus=lambda: (gpu,), tensorrt=lambda: TENSORRT) == code
    output = capsys.readouterr()
    assert output.out.startswith("m: model.plan fits") == (gpu is L4)
    assert output.err.startswith("error: m: ") == (gpu is A100)


def test_it_runs_in_tritons_image_which_has_none_of_our_packages(tmp_path: Path) -> None:
    model_folder(tmp_path)
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); "]
    command[-1] += "import runpy; runpy.run_module('service.models.verify', run_name='__main__')"
    ran = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, env={"PATH": os.defpath})
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"error: {tmp_path}: no NVIDIA")
    assert "Traceback" not in ran.stderr
