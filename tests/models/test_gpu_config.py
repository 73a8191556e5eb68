from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest

from service.core.model import Model
from service.models.commands.build import UNKNOWN
from service.models.configs import problems
from service.models.errors import EngineError, RepositoryError
from service.models.fetch import OFFICIAL, RELEASE, WHOLE_BODY
from service.models.gpu_config import (
    gpu_config_from,
    graph_problems,
    read_gpu_model,
    read_graph,
    with_plan_for,
)
from service.models.rtmw import Family, family_of, rewrite
from service.models.yolo_graph import build_graph
from service.skeletons import shipped
from service.triton.catalog import ModelCatalog
from service.triton.model_config import parse_config, read_config
from tests.models.simcc_networks import network
from tests.models.synthetic_yolo import yolov8_pose
from tests.models.tiny_graphs import top_down_graph

ROOT = Path(__file__).resolve().parents[2]
GPU = ROOT / "model_repository" / "gpu"
CPU = ROOT / "model_repository" / "cpu"
MODELS = sorted(path.parent.name for path in GPU.glob("*/config.pbtxt"))


@cache
def yolo_graph(precision: Any) -> onnx.ModelProto:
    return build_graph(yolov8_pose("n"), precision)


def parsed(name: str) -> Any:
    return parse_config((GPU / name / "config.pbtxt").read_text(encoding="utf-8"))


def test_the_models_of_the_issue_are_there() -> None:
    assert {"yolov8m_pose", "yolo11n_pose", "rtmw3d_x", "rtmw_l"} <= set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_every_configuration_keeps_the_contract_and_our_rules(name: str) -> None:
    assert list(problems(GPU / name / "config.pbtxt")) == []


@pytest.mark.parametrize("name", MODELS)
def test_every_configuration_is_for_tensorrt_with_a_profile_for_each_shape(name: str) -> None:
    config, model = parsed(name), read_gpu_model(GPU / name).model
    assert (config.backend, config.platform) == ("tensorrt", "tensorrt_plan")
    (group,) = config.instance_group
    assert group.kind == group.KIND_GPU
    assert (group.count, list(group.gpus)) == (1, [])  # on every GPU
    assert list(group.profile) == [
        str(index) for index in range(len(model.typical_hw) + bool(model.other_hw))
    ]


@pytest.mark.parametrize("name", MODELS)
def test_every_queue_is_bounded_and_rejects(name: str) -> None:
    batching = parsed(name).dynamic_batching
    policy = batching.default_queue_policy
    assert policy.timeout_action == policy.REJECT
    assert policy.max_queue_size == 64
    assert policy.default_timeout_microseconds == 10_000_000
    assert policy.allow_timeout_override
    assert list(batching.preferred_batch_size) == []
    assert batching.max_queue_delay_microseconds == 0


@pytest.mark.parametrize("name", MODELS)
def test_every_batch_size_of_every_shape_is_warmed_up(name: str) -> None:
    config, model = parsed(name), read_gpu_model(GPU / name).model
    (picture,) = config.input
    warmed = []
    for entry in config.model_warmup:
        ((tensor, value),) = entry.inputs.items()
        assert (tensor, value.data_type, value.zero_data) == (picture.name, picture.data_type, True)
        warmed.append((entry.batch_size, *value.dims[:2]))
    wanted = [(n, h, w) for h, w in model.typical_hw for n in range(1, model.max_batch_size + 1)]
    assert warmed == wanted


@pytest.mark.parametrize("name", ["yolov8m_pose", "yolo11n_pose"])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_yolo_configurations_have_the_tensors_of_the_real_graph(name: str, precision: Any) -> None:
    model = read_gpu_model(GPU / name)
    differences = list(graph_problems(yolo_graph(precision), model))
    other = [] if precision == model.model.precision else [f"it is {precision}, the configuration says fp16"]
    assert differences == other


@pytest.mark.parametrize(("name", "family"), [("rtmw3d_x", "rtmw3d"), ("rtmw_l", "rtmw")])
def test_the_whole_body_configurations_have_the_tensors_of_their_graphs(
    tmp_path: Path, name: str, family: Family
) -> None:
    path = tmp_path / "public.onnx"
    path.write_bytes(network(three=family == "rtmw3d").SerializeToString())
    assert family_of(path) == family
    assert list(graph_problems(rewrite(path, family), read_gpu_model(GPU / name))) == []


class Served:
    """A Triton that serves the whole repository for GPUs, by its configurations."""

    async def models(self) -> Sequence[Model]:
        found = [read_gpu_model(GPU / name).model for name in MODELS]
        return [replace(model, ready=True) for model in found]


async def test_every_whole_body_model_is_paired_with_one_that_finds_people() -> None:
    catalog = ModelCatalog(Served(), shipped(), "yolov8m_pose")
    await catalog.refresh()
    assert sorted(model.name for model in catalog.models()) == MODELS
    pairs = {
        model.name: detector.name
        for model in catalog.models()
        if (detector := catalog.pose_model(model.name).detector) is not None
    }
    assert pairs == {"rtmw3d_x": "yolov8m_pose", "rtmw_l": "yolov8m_pose"}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_fetched_has_the_name_that_the_builder_looks_for(name: str) -> None:
    model = read_gpu_model(GPU / name).model
    stem, _, suffix = model.weights.rpartition(".")
    assert stem in {**OFFICIAL, **WHOLE_BODY}
    assert model.source == WHOLE_BODY.get(stem, f"{RELEASE}/{model.weights}")
    assert model.source.endswith(f".{suffix}")
    assert model.sha256 in (OFFICIAL.get(stem), UNKNOWN)


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (lambda: yolo_graph("fp32"), "family yolo_pose, the configuration says top_down"),
        (lambda: yolo_graph("fp32"), "no input 'crops'; there are images"),
        (lambda: yolo_graph("fp32"), "no output 'keypoints'; there are candidates"),
        (lambda: read_graph(top_down_graph(batch=1), ""), "batch fixed to 1: export it"),
        (lambda: read_graph(top_down_graph(keypoints=17), ""), "'keypoints' is [-1, 17, 2]"),
        (lambda: read_graph(top_down_graph(width=192), ""), "'crops' is [-1, 384, 192, 3]"),
    ],
)
def test_another_models_graph_is_refused_with_what_differs(graph: Any, said: str) -> None:
    assert said in "; ".join(graph_problems(graph(), read_gpu_model(GPU / "rtmw3d_x")))


def test_an_input_that_the_configuration_does_not_name_is_refused() -> None:
    graph = read_graph(top_down_graph(), "")
    graph.graph.input.add().CopyFrom(graph.graph.input[0])
    graph.graph.input[1].name = "more"
    assert "inputs that the configuration does not name" in "; ".join(
        graph_problems(graph, read_gpu_model(GPU / "rtmw3d_x"))
    )


@pytest.mark.parametrize("data", [b"", b"no graph", b"\x08\x08"], ids=["empty", "text", "no nodes"])
def test_a_file_that_is_no_onnx_is_refused(data: bytes) -> None:
    with pytest.raises(EngineError, match=r"this\.onnx is no ONNX file"):
        read_graph(data, "this.onnx")


def test_a_model_of_the_cpu_repository_is_described_for_the_gpu() -> None:
    text = gpu_config_from((CPU / "yolo11n_pose" / "config.pbtxt").read_text(encoding="utf-8"), "fp16")
    assert text == (GPU / "yolo11n_pose" / "config.pbtxt").read_text(encoding="utf-8")
    model = read_config(parse_config(text), "1")
    assert model is not None
    assert (model.precision, model.max_batch_size) == ("fp16", 8)


@pytest.mark.parametrize("text", ["nonsense {", 'name: "x"'])
def test_a_configuration_of_someone_else_is_refused(text: str) -> None:
    with pytest.raises(RepositoryError):
        gpu_config_from(text, "fp16")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('value { string_value: "fp16" }', 'value { string_value: "int8" }', "INT8 is not"),
        ('"tensorrt_plan"', '"onnxruntime_onnx"', "not for TensorRT"),
        ('"yolo_pose"', '"x"', "family 'x' is unknown"),
        ("dynamic_batching {", "dynamic_batching (", "config.pbtxt"),
        ('key: "family"', 'key: "kind"', "names no family"),
    ],
    ids=["int8", "platform", "family", "syntax", "no family"],
)
def test_a_configuration_that_cannot_be_built_says_why(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (GPU / "yolov8m_pose" / "config.pbtxt").read_text(encoding="utf-8")
    assert old in text
    text = text.replace(old, new).replace('backend: "tensorrt"\n', "")
    (tmp_path / "config.pbtxt").write_text(text)
    with pytest.raises(RepositoryError, match=said):
        read_gpu_model(tmp_path)


def test_a_model_that_is_not_there_says_how_to_add_it(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="posegate models add"):
        read_gpu_model(tmp_path / "none")


def test_a_fleet_has_one_entry_for_each_kind_of_gpu() -> None:
    text = (GPU / "yolov8m_pose" / "config.pbtxt").read_text(encoding="utf-8")
    assert with_plan_for(text, "8.9", "model.plan") == text
    once = with_plan_for(text, "8.9", "model_sm89.plan")
    both = with_plan_for(once, "8.0", "model_sm80.plan")
    assert with_plan_for(both, "8.9", "model_sm89.plan") == both
    other = with_plan_for(both, "8.0", "other.plan")
    assert dict(parse_config(other).cc_model_filenames) == {"8.9": "model_sm89.plan", "8.0": "other.plan"}
    assert other.startswith(text.rstrip("\n"))
