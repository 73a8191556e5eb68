from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.models.cli import app
from service.models.commands.build import _progress
from tests.models.rtx import needs_rtx
from tests.models.simcc_networks import network
from tests.models.tiny_graphs import metadata, top_down_graph

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "data" / "yolov8-pose-tiny.pt"
AHEAD = ["--library", "tensorrt_rtx_bindings", "--for", "8.9", "--no-comparison"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("rtmw3d_x", "yolov8m_pose"):
        folder = tmp_path / "model_repository" / "gpu" / name
        folder.mkdir(parents=True)
        config = ROOT / "model_repository" / "gpu" / name / "config.pbtxt"
        (folder / "config.pbtxt").write_text(config.read_text(encoding="utf-8"))
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_the_commands_are_in_the_help() -> None:
    text = run("--help").stdout
    assert "build" in text
    assert "verify" in text


@needs_rtx
def test_a_models_own_checkpoint_becomes_a_plan_ahead_of_time(here: Path) -> None:
    added = run("add", str(TINY), "--name", "mine", "--skeleton", "coco_17")
    assert added.exit_code == 0, added.output
    built = run("build", "mine", "--weights", str(TINY), *AHEAD, "--level", "0")
    assert built.exit_code == 0, built.output
    assert "model.plan: " in built.stdout
    assert "fp16 for 8.9" in built.stdout
    assert "Triton loads plans of TensorRT only" in built.stderr
    version = here / "model_repository" / "gpu" / "mine" / "1"
    assert sorted(path.name for path in version.iterdir()) == [
        ".manifest.lock",
        "manifest.json",
        "model.onnx",
        "model.plan",
    ]
    plan = json.loads((version / "manifest.json").read_text())["plans"]["model.plan"]
    assert plan["accuracy"] is None
    assert metadata((version / "model.onnx").read_bytes())["precision"] == "fp16"
    again = run("build", "mine", "--weights", str(TINY), *AHEAD, "--level", "0")
    assert "model.plan: up to date" in again.stdout


@needs_rtx
@pytest.mark.parametrize("option", ["--onnx", "--weights"])
def test_a_whole_body_model_is_built_from_its_graph_or_its_public_file(here: Path, option: str) -> None:
    (here / "file.onnx").write_bytes(
        top_down_graph() if option == "--onnx" else network().SerializeToString()
    )
    built = run("build", "rtmw3d_x", option, "file.onnx", "--fleet", *AHEAD)
    assert built.exit_code == 0, built.output
    assert "model_sm89.plan: " in built.stdout
    config = here / "model_repository" / "gpu" / "rtmw3d_x" / "config.pbtxt"
    assert 'cc_model_filenames { key: "8.9" value: "model_sm89.plan" }' in config.read_text()


@needs_rtx
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "add the model first"),
        (
            ["yolov8m_pose"],
            "there is no .posegate/weights/yolov8m-pose.pt; get it with posegate models fetch",
        ),
        (["yolov8m_pose", "--weights", str(TINY)], "name the right file with --weights"),
        (["yolov8m_pose", "--weights", "none.pt"], "none.pt cannot be read: No such file"),
        (["yolov8m_pose", "--onnx", "none.onnx"], "none.onnx cannot be read: No such file"),
        (["yolov8m_pose", "--onnx", __file__], "is no ONNX file"),
        (["rtmw3d_x", "--weights", __file__], "is no ONNX file"),
        (["rtmw3d_x", "yolov8m_pose", "--onnx", "x.onnx"], "one model only"),
        (["rtmw3d_x", "--comparison"], "cannot be compared here: add --no-comparison"),
        (["rtmw3d_x", "--for", "7.7", "--onnx", "graph.onnx"], "does not know SM77"),
        (["rtmw3d_x", "--library", "tensorrt_that_is_not_there"], "pip install 'posegate[gpu]'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_line_on_stderr(here: Path, arguments: list[str], said: str) -> None:
    (here / "graph.onnx").write_bytes(top_down_graph())
    result = run("build", *AHEAD, *arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert said in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert not list(here.rglob("*.plan"))


def test_verify_exits_as_the_check_does(tmp_path: Path) -> None:
    assert run("verify", str(tmp_path / "none")).exit_code == 1
    assert run("verify", str(tmp_path / "none"), "--report-only").exit_code == 0


def test_progress_is_a_line_for_each_phase_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with _progress("m") as show:
        for done in range(3):
            show("Building engine", done, 2)
    assert capsys.readouterr().err == "m: Building engine (2 steps)\n"
