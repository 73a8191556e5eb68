"""The examples of protos/examples as a reader runs them: whole programs, against the real service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import tools
from tests.e2e.conftest import ROOT, Service

EXAMPLES = ROOT / "protos" / "examples"
REQUIRED = os.environ.get("POSEGATE_TEST_EXAMPLES") == "require"  # as in CI: nothing may be skipped

pytestmark = pytest.mark.e2e

# What each prints on the images and videos that it takes by default.
PYTHON = {
    "account": ("3 persons; calls left this month: unlimited", "tenant default, plan none, 32 a batch"),
    "analyze_video": ("17 frames analyzed", "100 %", "tracks [1, 2, 3]"),
    "batch": ("single_person.jpg: 2 persons", "two_people.jpg: 3 persons", "README.md: The bytes are not"),
    "detect": ("person 0.9", "nose at ("),
    "errors": ("INVALID_ARGUMENT", "reason INVALID_REQUEST", "min_score: ", "iou_threshold: "),
    "measure_angles": ("shoulder_abduction left ", "knee_flexion right ", " ± ", "ANGLE_STATUS_"),
    "render_and_export": ("annotations.json", "results.json"),
    "server_info": ("default model yolo11n_pose", "weights under AGPL-3.0", "32 a batch"),
    "skeletons": ("created example_upper_body", "listed ", "updated Nose, neck and shoulders", "deleted"),
    "stream_poses": ("two_people.jpg: 3 persons", "2 of 2 images"),
}
NODE = {
    "account": ("3 persons; calls left this month: unlimited",),
    "analyze_video": ("17 frames analyzed", "frame 0: 3 persons"),
    "detect": ("person 0.9", "nose at ("),
}


def run(service: Service, *command: str | Path, **environment: str) -> str:
    """What it prints; AssertionError if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, "POSEGATE_ADDRESS": service.address, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def missing(what: str) -> None:
    """Skip, or fail where nothing may be skipped."""
    if REQUIRED:
        pytest.fail(what)
    pytest.skip(what)


def test_every_example_is_run_by_a_test() -> None:
    assert {path.stem for path in (EXAMPLES / "python").glob("*.py")} == set(PYTHON)
    assert {path.stem for path in (EXAMPLES / "node").glob("*.mjs")} - {"client"} == set(NODE)
    assert {path.stem for path in (EXAMPLES / "grpcurl").glob("*.sh")} == {
        "detect",
        "describe",
        "measure_angles",
    }


@pytest.mark.parametrize("name", sorted(PYTHON))
def test_a_python_example_runs_as_it_stands(service: Service, name: str, tmp_path: Path) -> None:
    arguments: list[str | Path] = (
        ["tests/data/two_people.jpg", tmp_path] if name == "render_and_export" else []
    )
    printed = run(service, sys.executable, EXAMPLES / "python" / f"{name}.py", *arguments)
    for text in PYTHON[name]:
        assert text in printed
    if name == "render_and_export":
        assert (tmp_path / "canvas.png").read_bytes().startswith(b"\x89PNG")
        assert len(json.loads((tmp_path / "annotations.json").read_text("utf-8"))["annotations"]) == 3


def test_the_skeleton_file_is_taken_by_the_command_line(service: Service) -> None:
    posegate = (sys.executable, "-m", "service", "skeletons")
    run(service, *posegate, "create", EXAMPLES / "upper_body.json")
    try:
        assert "neck" in run(service, *posegate, "show", "upper_body")
    finally:
        run(service, *posegate, "delete", "upper_body")


@pytest.fixture(scope="module")
def node() -> str:
    program = shutil.which("node")
    if program is None:
        missing("node is not installed")
    elif not (EXAMPLES / "node" / "node_modules").is_dir():
        missing("run npm ci --ignore-scripts --prefix protos/examples/node")
    return str(program)


@pytest.mark.parametrize("name", sorted(NODE))
def test_a_node_example_runs_as_it_stands(service: Service, node: str, name: str) -> None:
    printed = run(service, node, EXAMPLES / "node" / f"{name}.mjs")
    for text in NODE[name]:
        assert text in printed


def test_a_node_example_fails_when_the_service_cannot_be_reached(service: Service, node: str) -> None:
    with pytest.raises(AssertionError, match="4 Deadline exceeded"):
        run(service, node, EXAMPLES / "node" / "detect.mjs", POSEGATE_ADDRESS="127.0.0.1:1")


@pytest.fixture(scope="module")
def grpcurl() -> str:
    program = tools.path_of("grpcurl")
    if not program.is_file():
        missing("run python -m scripts.tools grpcurl")
    return str(program)


def test_grpcurl_detects_with_an_image_of_any_size(service: Service, grpcurl: str) -> None:
    answer = json.loads(run(service, EXAMPLES / "grpcurl" / "detect.sh", GRPCURL=grpcurl))
    assert len(answer["persons"]) == 3
    assert len(answer["persons"][0]["keypoints"]) == 17


def test_grpcurl_measures_angles(service: Service, grpcurl: str) -> None:
    answer = json.loads(run(service, EXAMPLES / "grpcurl" / "measure_angles.sh", GRPCURL=grpcurl))
    [measured] = answer["persons"][0]["measurements"]
    assert measured["name"] == "knee_flexion"


def test_grpcurl_describes_the_contract_by_reflection(service: Service, grpcurl: str) -> None:
    printed = run(service, EXAMPLES / "grpcurl" / "describe.sh", GRPCURL=grpcurl)
    for text in (
        "posegate.v1.SkeletonService",
        "message DetectPosesRequest",
        '"default_model"',
        "AGPL-3.0",
        "SERVING",
    ):
        assert text in printed
