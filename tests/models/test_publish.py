from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.core.poses import Floats
from service.evaluation.dataset import Dataset
from service.models.accuracy import shipped_samples
from service.models.average_precision import AnnotatedImages
from service.models.engines import Options
from service.models.errors import AccuracyError, EngineError, RepositoryError
from service.models.gpu_config import GpuModel
from service.models.gpus import Gpu
from service.models.manifest import ApLoss, EnginePlan, read_manifest
from service.models.publish import BuildRequest, Gate, build_model, describe, put_graph, timing_cache
from service.models.runners import Images, OpenVinoRunner
from service.models.verify import verify
from service.skeletons import shipped
from service.triton.model_config import parse_config
from tests.models.plans import A100, L4, TENSORRT
from tests.models.rtx import RTX, needs_rtx
from tests.models.test_engines import FakeTensorRT as FakeBuilder
from tests.models.tiny_graphs import top_down_graph

ROOT = Path(__file__).resolve().parents[2]


class TensorRT(FakeBuilder):
    """Its plan is the graph behind a plan's magic word, so that it can be run."""

    def __init__(self) -> None:
        self.builds = 0
        module = self

        class Parser(FakeBuilder.OnnxParser):
            def parse(self, data: bytes) -> bool:
                module.graph = data
                return True

        class Builder(FakeBuilder.Builder):
            def create_network(self, flags: int) -> Any:
                crops = type("Tensor", (), {"name": "crops", "shape": (-1, 384, 288, 3)})
                return type("Network", (), {"num_inputs": 1, "get_input": lambda self, index: crops})()

            def build_serialized_network(self, network: Any, config: Any) -> bytes:
                module.builds += 1
                return b"ftrt" + module.graph

        self.graph = b""
        self.OnnxParser = Parser
        self.Builder = Builder


class Bent:
    """A plan whose hands are off."""

    def __init__(self, plan: bytes) -> None:
        self.runner = OpenVinoRunner(plan[4:])

    def run(self, images: Images) -> Mapping[str, Floats]:
        outputs = {name: values.copy() for name, values in self.runner.run(images).items()}
        outputs["keypoints"][:, 91:] += 30
        return outputs


def gate(run_plan: Any = lambda plan: OpenVinoRunner(plan[4:]), reference: bytes | None = None) -> Gate:
    return Gate(run_plan, shipped_samples(), shipped()["coco_wholebody_133"], reference)


@pytest.fixture
def model(tmp_path: Path) -> GpuModel:
    folder = tmp_path / "gpu" / "rtmw3d_x"
    folder.mkdir(parents=True)
    shipped_config = ROOT / "model_repository" / "gpu" / "rtmw3d_x" / "config.pbtxt"
    (folder / "config.pbtxt").write_text(shipped_config.read_text(encoding="utf-8"))
    described = describe(tmp_path, "rtmw3d_x")
    put_graph(described, top_down_graph(), "here")
    return described


def build(
    model: GpuModel, tensorrt: Any, gpu: Gpu = L4, gated: Gate | None = None, **request: Any
) -> tuple[EnginePlan, bool]:
    return build_model(model, tensorrt, gpu, BuildRequest(**request), gated)


def test_a_plan_is_compared_and_published_with_its_manifest(model: GpuModel) -> None:
    tensorrt = TensorRT()
    plan, built = build(model, tensorrt, gated=gate())
    data = (model.folder / "1" / "model.plan").read_bytes()
    assert built
    assert data == b"ftrt" + top_down_graph()
    assert read_manifest(model.folder / "1") == {"model.plan": plan}
    assert plan.sha256 == hashlib.sha256(data).hexdigest()
    assert plan.onnx_sha256 == hashlib.sha256(top_down_graph()).hexdigest()
    assert plan.weights_sha256 == "ab" * 32
    assert (plan.tensorrt, plan.compute_capability, plan.gpu) == (TENSORRT, "8.9", "NVIDIA L4")
    assert plan.profiles[0].max == (16, 384, 288, 3)
    assert plan.accuracy is not None
    assert set(plan.accuracy) == {"body", "feet", "face", "hands", "depth"}
    findings = verify(model.folder.parent, [L4], TENSORRT)
    assert [finding.level for finding in findings] == ["ok"]
    assert not list(model.folder.rglob("*.partial"))


def test_what_is_there_and_fits_is_not_built_again(model: GpuModel) -> None:
    tensorrt = TensorRT()
    first, _ = build(model, tensorrt, gated=gate())
    assert build(model, tensorrt, gated=gate()) == (first, False)
    assert tensorrt.builds == 1
    assert build(model, tensorrt, gated=gate(), force=True)[1]
    assert build(model, tensorrt, gated=gate(), options=Options(tf32=False))[1]
    (model.folder / "1" / "model.plan").write_bytes(b"ftrt half of")
    assert build(model, tensorrt, gated=gate(), options=Options(tf32=False))[1]
    assert tensorrt.builds == 4


def test_a_plan_that_was_not_compared_is_built_again_to_be_compared(model: GpuModel) -> None:
    tensorrt = TensorRT()
    plan, _ = build(model, tensorrt)
    assert plan.accuracy is None
    assert not build(model, tensorrt)[1]
    assert build(model, tensorrt, gated=gate())[0].accuracy is not None


def test_a_plan_that_loses_ap_is_not_published_and_one_that_keeps_it_says_so(
    model: GpuModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = AnnotatedImages(model.folder, Dataset("coco", (), (), 1, (), "coco_17", ()))
    monkeypatch.setattr("service.models.publish.compare_ap", lambda *_: {"body": ApLoss(0.5, 0.45)})
    tensorrt = TensorRT()
    with pytest.raises(AccuracyError, match=r"body: AP 45\.0 instead of 50\.0"):
        build(model, tensorrt, gated=replace(gate(), annotated=on))
    assert not (model.folder / "1" / "model.plan").exists()
    build(model, tensorrt, gated=gate())
    monkeypatch.setattr("service.models.publish.compare_ap", lambda *_: {"body": ApLoss(0.5, 0.5)})
    plan, built = build(model, tensorrt, gated=replace(gate(), annotated=on))
    assert built  # what was published had not passed this gate
    assert plan.ap == {"body": ApLoss(0.5, 0.5)}
    assert read_manifest(model.folder / "1") == {"model.plan": plan}
    assert not build(model, tensorrt, gated=replace(gate(), annotated=on))[1]


def test_a_plan_that_bends_fingers_is_not_published(model: GpuModel) -> None:
    tensorrt = TensorRT()
    before, _ = build(model, tensorrt, gated=gate())
    with pytest.raises(
        AccuracyError, match=r"is not published.*hands: keypoints are off by .* Build it in fp32"
    ):
        build(model, tensorrt, gated=gate(Bent), force=True)
    assert read_manifest(model.folder / "1") == {"model.plan": before}
    assert [finding.level for finding in verify(model.folder.parent, [L4], TENSORRT)] == ["ok"]


def test_a_plan_is_held_against_another_graph_where_one_is_given(model: GpuModel) -> None:
    build(model, TensorRT(), gated=gate(reference=top_down_graph()))
    with pytest.raises(EngineError, match="its graph as"):
        build(model, TensorRT(), gated=gate(reference=top_down_graph(keypoints=17)), force=True)


def test_a_fleet_keeps_a_plan_for_each_kind_of_gpu(model: GpuModel) -> None:
    tensorrt = TensorRT()
    for gpu in (L4, A100):
        build(model, tensorrt, gpu, gated=gate(), fleet=True)
    config = (model.folder / "config.pbtxt").read_text(encoding="utf-8")
    wanted = {"8.9": "model_sm89.plan", "8.0": "model_sm80.plan"}
    assert dict(parse_config(config).cc_model_filenames) == wanted
    assert set(read_manifest(model.folder / "1")) == set(wanted.values())
    assert [finding.level for finding in verify(model.folder.parent, [L4, A100], TENSORRT)] == ["ok", "ok"]
    again = describe(model.folder.parents[1], "rtmw3d_x")
    assert not build(again, tensorrt, A100, gated=gate())[1]  # the configuration names its plan by now


def test_the_timing_cache_is_kept_for_the_next_build(model: GpuModel) -> None:
    assert timing_cache(model) == b""
    build(model, TensorRT())
    assert timing_cache(model) == b"measured, after "


def test_without_a_graph_the_error_says_how_to_name_one(model: GpuModel) -> None:
    (model.folder / "1" / "model.onnx").unlink()
    with pytest.raises(EngineError, match="--weights, or an ONNX file with --onnx"):
        build(model, TensorRT())


def test_another_models_graph_is_not_taken(model: GpuModel) -> None:
    with pytest.raises(EngineError, match=r"that\.onnx is not the graph of rtmw3d_x: its input 'crops'"):
        put_graph(model, top_down_graph(width=192), "that.onnx")
    assert (model.folder / "1" / "model.onnx").read_bytes() == top_down_graph()
    (model.folder / "1" / "model.onnx").write_bytes(top_down_graph(batch=1))
    with pytest.raises(EngineError, match="batch fixed to 1"):
        build(model, TensorRT())


def test_a_model_of_the_cpu_repository_gets_a_description_for_the_gpu(tmp_path: Path) -> None:
    (tmp_path / "cpu" / "yolo11n_pose").mkdir(parents=True)
    source = ROOT / "model_repository" / "cpu" / "yolo11n_pose" / "config.pbtxt"
    (tmp_path / "cpu" / "yolo11n_pose" / "config.pbtxt").write_text(source.read_text(encoding="utf-8"))
    described = describe(tmp_path, "yolo11n_pose")
    assert described.model.precision == "fp16"
    assert described.folder == tmp_path / "gpu" / "yolo11n_pose"
    with pytest.raises(RepositoryError, match="add the model first"):
        describe(tmp_path, "unknown")


@needs_rtx
@pytest.mark.parametrize("capability", ["8.0", "8.9"])
def test_a_real_engine_is_published_and_triton_would_not_get_it(model: GpuModel, capability: str) -> None:
    options = Options(compute_capability=capability)
    plan, built = build(model, RTX, Gpu("", capability, ""), options=options, best_batch=1)
    assert built
    assert plan.library == "tensorrt_rtx"
    assert (plan.gpu, plan.compute_capability, plan.tensorrt) == ("", capability, RTX.__version__)
    ((level, text),) = [
        (finding.level, finding.text)
        for finding in verify(model.folder.parent, [Gpu("x", capability, "")], RTX.__version__)
    ]
    assert level == "error"
    assert "TensorRT-RTX" in text
