from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from service.models import repository
from service.models.checkpoint import read_checkpoint
from service.models.errors import CheckpointError, RepositoryError
from service.models.repository import (
    ServedModel,
    add_model,
    config_text,
    fill,
    prepared_for,
    shapes_for,
    spdx_licence,
)
from service.models.torch_file import TorchFile
from service.triton.model_config import read_config
from tests.models.torch_files import rewritten

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "data" / "yolov8-pose-tiny.pt"


def add(folder: Path, checkpoint: Path = TINY, **changes: Any) -> Path:
    wanted: dict[str, Any] = {"name": "tiny", "skeleton": "coco_17", "skeleton_keypoints": 17, **changes}
    return add_model(folder, read_checkpoint(checkpoint), **wanted)


def config(text: str) -> Any:
    return text_format.Parse(text, ModelConfig())


def parameters(text: str) -> dict[str, str]:
    return {key: value.string_value for key, value in config(text).parameters.items()}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_checkpoint_becomes_a_model_that_triton_can_load(tmp_path: Path) -> None:
    target = add(tmp_path, source="here")
    assert target == tmp_path / "cpu" / "tiny"
    assert files(tmp_path) == ["cpu/tiny/1/model.onnx", "cpu/tiny/config.pbtxt"]
    onnx.checker.check_model(target / "1" / "model.onnx")
    text = (target / "config.pbtxt").read_text()
    read = config(text)
    assert (read.name, read.backend, read.max_batch_size) == ("tiny", "openvino", 8)
    assert (read.input[0].name, list(read.input[0].dims)) == ("images", [-1, -1, 3])
    assert (read.output[0].name, list(read.output[0].dims)) == ("candidates", [1000, 56])
    assert list(read.dynamic_batching.preferred_batch_size) == [2]
    assert parameters(text) == {
        "family": "yolo_pose",
        "skeleton": "coco_17",
        "weights": "yolov8-pose-tiny.pt",
        "licence": "AGPL-3.0",
        "source": "here",
        "sha256": read_checkpoint(TINY).sha256,
        "precision": "bf16",
        "shapes": ",".join(f"{h}x{w}" for h, w in shapes_for(32)),
        "prepared_shapes": "640x640,480x640,640x480,448x640,640x448,384x640,640x384",
        "pad_value": "114",
    }
    warmed = [list(warmup.inputs["images"].dims) for warmup in read.model_warmup]
    assert warmed == [[640, 640, 3]]


def test_the_committed_model_is_described_as_this_code_would() -> None:
    text = (ROOT / "model_repository" / "cpu" / "yolo11n_pose" / "config.pbtxt").read_text()
    said = parameters(text)
    model = ServedModel(
        name="yolo11n_pose",
        skeleton="coco_17",
        keypoints=17,
        weights="yolo11n-pose.pt",
        licence="AGPL-3.0",
        source=said["source"],
        sha256="869e83fcdffdc7371fa4e34cd8e51c838cc729571d1635e5141e3075e9319dc0",
        precision="bf16",
        shapes_hw=shapes_for(32),
        prepared_hw=prepared_for(32),
    )
    assert config(text) == config(config_text(model))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "model name"),
        ({"name": "Tiny"}, "model name"),
        ({"name": "../tiny"}, "model name"),
        ({"name": "tiny\n"}, "model name"),
        ({"name": "ti-ny"}, "model name"),
        ({"name": "t" * 65}, "model name"),
        ({"skeleton": "halpe_26", "skeleton_keypoints": 26}, "17 keypoints and skeleton halpe_26 has 26"),
    ],
)
def test_a_name_or_skeleton_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RepositoryError, match=said):
        add(tmp_path, **changes)
    assert files(tmp_path) == []


def test_a_model_is_replaced_only_on_request(tmp_path: Path) -> None:
    target = add(tmp_path)
    (target / "config.pbtxt").write_text("mine")
    with pytest.raises(RepositoryError, match="--replace"):
        add(tmp_path)
    assert (target / "config.pbtxt").read_text() == "mine"
    add(tmp_path, replace=True, cpu_precision="f32")
    assert parameters((target / "config.pbtxt").read_text())["precision"] == "f32"
    assert files(tmp_path) == ["cpu/tiny/1/model.onnx", "cpu/tiny/config.pbtxt"]


def test_a_refused_checkpoint_leaves_nothing_behind(tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    other.write_bytes(rewritten(TINY, (b"block\nC2f\n", b"block\nC3\n")))
    with pytest.raises(CheckpointError):
        add(tmp_path / "models", other)
    assert not (tmp_path / "models").exists()


def test_a_full_disk_leaves_the_old_model_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = add(tmp_path)
    before = (target / "config.pbtxt").read_bytes(), (target / "1" / "model.onnx").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repository, "_write_graph", full)
    with pytest.raises(RepositoryError, match="No space left"):
        add(tmp_path, replace=True)
    assert files(tmp_path) == ["cpu/tiny/1/model.onnx", "cpu/tiny/config.pbtxt"]
    assert before == ((target / "config.pbtxt").read_bytes(), (target / "1" / "model.onnx").read_bytes())


def test_leftovers_of_a_killed_run_do_not_stop_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "tiny.partial" / "1").mkdir(parents=True)
    (tmp_path / "tiny.partial" / "1" / "model.onnx").write_bytes(b"half")
    add(tmp_path)
    assert files(tmp_path) == ["cpu/tiny/1/model.onnx", "cpu/tiny/config.pbtxt"]


def test_a_model_of_a_larger_stride_allows_its_multiples() -> None:
    assert len(shapes_for(32)) == 39
    assert shapes_for(32)[:3] == [(640, 640), (608, 640), (640, 608)]
    assert shapes_for(32)[-2:] == [(32, 640), (640, 32)]
    assert len(shapes_for(64)) == 19
    assert prepared_for(64) == [(640, 640), (448, 640), (640, 448), (384, 640), (640, 384)]


def test_fill_writes_the_graph_once(tmp_path: Path) -> None:
    target = add(tmp_path)
    shutil.rmtree(target / "1")
    assert fill(tmp_path, TINY, "tiny")
    written = (target / "1" / "model.onnx").stat().st_mtime_ns
    assert not fill(tmp_path, TINY, "tiny")
    assert (target / "1" / "model.onnx").stat().st_mtime_ns == written
    assert files(tmp_path) == ["cpu/tiny/1/model.onnx", "cpu/tiny/config.pbtxt"]


def test_fill_writes_again_what_is_damaged_or_older_code_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = add(tmp_path) / "1" / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:1000])
    assert fill(tmp_path, TINY, "tiny")
    assert graph.read_bytes() == whole
    monkeypatch.setattr(repository, "writer_digest", lambda: "another")
    assert fill(tmp_path, TINY, "tiny")


def test_fill_refuses_other_weights_and_models_that_are_not_there(tmp_path: Path) -> None:
    add(tmp_path)
    with pytest.raises(RepositoryError, match="there is no"):
        fill(tmp_path, TINY, "other")
    with pytest.raises(RepositoryError, match="there is no"):
        fill(tmp_path, tmp_path / "none.pt", "tiny")
    with pytest.raises(RepositoryError, match="SHA-256"):
        fill(tmp_path, TINY.with_name("yolo11-pose-tiny.pt"), "tiny")


@pytest.mark.parametrize("text", ['a "quoted" \\ text', "line\nbreak\0", "naïve × 漢字", "", "'"])
def test_any_text_can_be_in_the_configuration(text: str) -> None:
    model = ServedModel("m", "s", 1, text, text, text, "0", "f32", [(32, 32)], [(32, 32)])
    printable = re.sub(r"[\n\0]", "", text)
    assert parameters(config_text(model))["licence"] == printable


def test_the_licence_of_a_checkpoint_is_an_spdx_name() -> None:
    assert spdx_licence("AGPL-3.0 License (https://ultralytics.com/license)") == "AGPL-3.0"
    assert spdx_licence("") == ""
    assert TorchFile(TINY).root["license"].startswith("AGPL-3.0")


def test_a_model_of_a_tenant_says_whose_it_is(tmp_path: Path) -> None:
    text = (add(tmp_path, tenant="acme") / "config.pbtxt").read_text()
    assert parameters(text)["tenant"] == "acme"
    found = read_config(config(text), "1")
    assert found is not None
    assert found.tenant == "acme"
    with pytest.raises(RepositoryError, match="no name of a tenant"):
        add(tmp_path, name="other", tenant="Acme Inc.")
