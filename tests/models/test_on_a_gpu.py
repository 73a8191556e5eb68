"""What only a GPU can show: a plan is built, compared with its graph, and fits the machine it was built on.

Skipped without an NVIDIA GPU and TensorRT (pip install 'posegate[gpu]').
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.models.accuracy import shipped_samples
from service.models.checkpoint import read_checkpoint
from service.models.cuda import Cuda
from service.models.engines import Options, load_tensorrt
from service.models.errors import EngineError
from service.models.gpus import Gpu, visible_gpus
from service.models.publish import BuildRequest, Gate, build_model, describe, put_graph
from service.models.runners import TensorRtRunner
from service.models.verify import verify
from service.models.yolo_graph import Precision, build_graph
from service.skeletons import shipped

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / ".posegate" / "weights" / "yolo11n-pose.pt"


def machine() -> tuple[Gpu, Any] | None:
    try:
        return visible_gpus()[0], load_tensorrt("tensorrt")
    except EngineError:
        return None


pytestmark = pytest.mark.skipif(machine() is None, reason="needs an NVIDIA GPU and the package tensorrt")


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_plan_for_this_gpu_gives_what_its_graph_gives(tmp_path: Path, precision: Precision) -> None:
    found = machine()
    assert found is not None
    gpu, tensorrt = found
    source = ROOT / "model_repository" / "gpu" / "yolo11n_pose" / "config.pbtxt"
    folder = tmp_path / "gpu" / "yolo11n_pose"
    folder.mkdir(parents=True)
    text = source.read_text(encoding="utf-8").replace('string_value: "fp16"', f'string_value: "{precision}"')
    (folder / "config.pbtxt").write_text(text)
    model = describe(tmp_path, "yolo11n_pose")
    checkpoint = read_checkpoint(WEIGHTS)
    put_graph(model, build_graph(checkpoint, precision).SerializeToString(), "here")
    gate = Gate(
        run_plan=lambda plan: TensorRtRunner(tensorrt, plan, Cuda()),
        samples=shipped_samples(),
        skeleton=shipped()["coco_17"],
        reference=build_graph(checkpoint, "fp32").SerializeToString(),
    )
    plan, built = build_model(model, tensorrt, gpu, BuildRequest(Options(optimisation_level=1)), gate)
    assert built
    assert plan.accuracy is not None
    print(f"{gpu.name}, TensorRT {plan.tensorrt}, {precision}: {plan.build_s} s, {plan.accuracy}")
    findings = verify(tmp_path / "gpu", [gpu], str(tensorrt.__version__))
    assert [finding.level for finding in findings] == ["ok"]
