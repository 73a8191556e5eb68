from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from service.models import configs
from service.models.cli import app
from tests.models.simcc_networks import network
from tests.models.test_fetch import BODY, DIGEST, UNKNOWN

DATA = Path(__file__).resolve().parents[1] / "data"
TINY, FOUR = DATA / "yolov8-pose-tiny.pt", DATA / "yolo11-pose-tiny.pt"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_add_makes_a_model_and_names_its_licence(here: Path) -> None:
    result = CliRunner().invoke(app, ["add", str(TINY), "--name", "tiny", "--skeleton", "coco_17"])
    assert result.exit_code == 0, result.output
    assert "AGPL-3.0" in result.stdout
    assert "source" in result.stdout
    assert (here / "model_repository" / "cpu" / "tiny" / "1" / "model.onnx").is_file()
    last = result.stdout.splitlines()[-1]
    assert last.startswith("Next: a Triton that is running does not serve it yet.")
    assert "POST /v2/repository/models/tiny/load" in last
    again = CliRunner().invoke(app, ["fill", str(TINY), "--name", "tiny"])
    assert again.stdout == "tiny: up to date\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "none.pt", "--name", "x", "--skeleton", "coco_17"], "none.pt cannot be read"),
        (["add", str(TINY), "--name", "x", "--skeleton", "none"], "there is no skeleton 'none'"),
        (["add", str(TINY), "--name", "X", "--skeleton", "coco_17"], "no model name"),
        (["add", __file__, "--name", "x", "--skeleton", "coco_17"], "no PyTorch checkpoint"),
        (["fetch", "yolo99-pose"], "not an official"),
        (["fetch", "yolov8n-pose", "yolov8s-pose", "--sha256", "00"], "one name only"),
        (["fill"], "there is no"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_an_error_is_one_line_on_stderr(here: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_fetch_says_when_there_is_no_digest_to_compare_with(here: Path) -> None:
    (here / f"{UNKNOWN}.pt").write_bytes(BODY)  # there already, so nothing is downloaded
    result = CliRunner().invoke(app, ["fetch", UNKNOWN, "--to", "."])
    assert result.exit_code == 0, result.output
    assert DIGEST in result.stdout
    assert "none is known" in result.stdout
    assert "posegate models add" in result.stdout
    assert "AGPL-3.0" in result.stdout


def test_a_checkpoint_with_points_of_its_own_brings_its_template(tmp_path: Path) -> None:
    template = tmp_path / "four.json"
    points = [{"name": f"p{number}"} for number in range(4)]
    template.write_text(json.dumps({"name": "four", "title": "Four", "keypoints": points}), encoding="utf-8")
    repository = tmp_path / "repository"
    command = ["add", str(FOUR), "--name", "four_points", "--repository", str(repository)]
    result = CliRunner().invoke(app, [*command, "--skeleton", str(template)])
    assert result.exit_code == 0, result.output
    assert (repository / "skeletons" / "four.json").read_text() == template.read_text()
    assert configs.main(repository) == 0
    again = CliRunner().invoke(app, [*command, "--skeleton", "four", "--replace"])
    assert again.exit_code == 0, again.output


def test_a_template_that_is_none_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    template = tmp_path / "bad.json"
    template.write_text('{"name": "coco_17", "title": "", "keypoints": [{"name": "a"}]}', encoding="utf-8")
    repository = tmp_path / "repository"
    command = ["add", str(FOUR), "--name", "x", "--repository", str(repository), "--skeleton", str(template)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "choose another" in result.output
    assert not repository.exists()


@pytest.mark.parametrize("family", ["rtmw3d", "rtmw"])
def test_a_whole_body_model_is_added_by_its_family(tmp_path: Path, family: str) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(network(three=family == "rtmw3d"), file)
    repository = tmp_path / "repository"
    command = ["add", str(file), "--name", "whole", "--family", family, "--repository", str(repository)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert configs.main(repository) == 0


def test_a_checkpoint_without_a_skeleton_is_refused(tmp_path: Path) -> None:
    command = ["add", str(TINY), "--name", "x", "--repository", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "--skeleton is missing" in result.output


def test_names_with_underscores_are_fetched_too(tmp_path: Path) -> None:
    (tmp_path / "rtmw3d-x.onnx").write_bytes(b"there")
    result = CliRunner().invoke(app, ["fetch", "rtmw3d_x", "--to", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "--family rtmw3d" in result.output
