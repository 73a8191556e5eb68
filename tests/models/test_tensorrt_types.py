"""mypy over the builder, with the interface of TensorRT as its type stubs have it.

The stubs (tensorrt-stubs) are generated, and five lines of them are no Python: those are put right in a copy.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.models.rtx import INSTALL, REQUIRED

ROOT = Path(__file__).resolve().parents[2]
CHECKED = ("engines", "runners", "cuda")
REPAIRS = (
    (re.compile(r"\bin: "), "in_: "),  # a keyword
    (re.compile(r"channel_axis: int\) -> IScaleLayer"), "channel_axis: int = ...) -> IScaleLayer"),
)


def stubs() -> Path | None:
    spec = find_spec("tensorrt_stubs")
    folder = Path(spec.origin).parent.parent if spec and spec.origin else None
    return folder if folder and (folder / "tensorrt_bindings" / "tensorrt.pyi").is_file() else None


@pytest.fixture
def stub_path(tmp_path: Path) -> Path:
    source = stubs()
    if source is None:
        assert not REQUIRED
        pytest.skip(f"tensorrt-stubs are not installed: {INSTALL}")
    for package in ("tensorrt", "tensorrt_bindings"):
        (tmp_path / package).mkdir()
        for stub in (source / package).glob("*.pyi"):
            text = stub.read_text(encoding="utf-8")
            for pattern, replacement in REPAIRS:
                text = pattern.sub(replacement, text)
            (tmp_path / package / stub.name).write_text(text, encoding="utf-8")
    return tmp_path


def mypy(stub_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    config = stub_path / "mypy.ini"
    config.write_text(
        "[mypy]\nstrict = True\nexplicit_package_bases = True\nfollow_imports = silent\n"
        f"mypy_path = {stub_path}:{ROOT}:{ROOT / 'protos'}\n"
        "[mypy-tensorrt.*,tensorrt_bindings.*]\nignore_errors = True\n"
        "[mypy-openvino.*,tritonclient.*,google.*]\nignore_missing_imports = True\n"
    )
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(config),
        "--cache-dir",
        str(stub_path / "cache"),
    ]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_builder_calls_tensorrt_by_its_interface(stub_path: Path) -> None:
    checked = mypy(stub_path, *(str(ROOT / "service" / "models" / f"{name}.py") for name in CHECKED))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_stubs_are_really_looked_at(stub_path: Path) -> None:
    wrong = stub_path / "wrong.py"
    wrong.write_text(
        "import tensorrt as api\n\n\ndef build(builder: api.Builder) -> None:\n    builder.build_plan(1)\n"
    )
    checked = mypy(stub_path, str(wrong))
    assert '"Builder" has no attribute "build_plan"' in checked.stdout, checked.stdout + checked.stderr
