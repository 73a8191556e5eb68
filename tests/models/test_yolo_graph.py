from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov
import pytest
from onnx import TensorProto, shape_inference
from PIL import Image

from service.core.geometry import letterbox
from service.models.checkpoint import Checkpoint, read_checkpoint
from service.models.errors import CheckpointError
from service.models.yolo_graph import Precision, build_graph, pose_head
from tests.models.torch_files import rewritten

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
WEIGHTS = ROOT / ".posegate" / "weights" / "yolo11n-pose.pt"

Floats = npt.NDArray[Any]


def compiled(checkpoint: Checkpoint, precision: Precision = "fp32", shape: list[int] | None = None) -> Any:
    """The graph in OpenVINO, pinned to float32 arithmetic."""
    core = ov.Core()
    model = core.read_model(build_graph(checkpoint, precision).SerializeToString())
    if shape is not None:
        model.reshape({0: shape})
    compiled_model = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled_model(images)[0]


@cache
def tiny(name: str) -> tuple[Checkpoint, Any, Floats, Floats]:
    """A small checkpoint, its graph, pictures, and the rows that PyTorch gives for them, sorted by score."""
    checkpoint = read_checkpoint(DATA / f"{name}-pose-tiny.pt")
    stored = np.load(DATA / f"{name}-pose-tiny.npz")
    return checkpoint, compiled(checkpoint), stored["image"], sorted_rows(stored["output"], checkpoint)


def sorted_rows(dense: Floats, checkpoint: Checkpoint) -> Floats:
    """(N, 4 + classes + values, cells) → (N, cells, 5 + 3K), best score first."""
    shape = pose_head(checkpoint)
    rows = dense.transpose(0, 2, 1)
    score = rows[..., 4 : 4 + shape.classes].max(-1, keepdims=True)
    rows = np.concatenate([rows[..., :4], score, rows[..., 4 + shape.classes :]], -1)
    order = np.argsort(-rows[..., 4], axis=1, kind="stable")
    return np.take_along_axis(rows, order[..., None], 1)


def differences(rows: Floats, wanted: Floats) -> tuple[float, float, float]:
    """Largest difference of px, score and keypoint score; rows of nearly the same score may change places."""
    px = score = keypoint_score = 0.0
    for row in rows:
        near = wanted[np.abs(wanted[:, 4] - row[4]) < 1e-4]
        apart = np.abs(near - row)
        apart = apart[apart[:, :4].max(1).argmin()]
        keypoints = apart[5:].reshape(-1, 3)
        px = max(px, apart[:4].max(), keypoints[:, :2].max())
        score = max(score, apart[4])
        keypoint_score = max(keypoint_score, keypoints[:, 2].max())
    return px, score, keypoint_score


@pytest.mark.parametrize("name", ["yolov8", "yolo11"])
def test_the_graph_gives_the_best_rows_of_pytorch(name: str) -> None:
    _, run, images, wanted = tiny(name)
    candidates = run(images)
    cells = min(wanted.shape[1], 1000)
    assert candidates.shape == (len(images), 1000, wanted.shape[2])
    assert candidates.dtype == np.float32
    assert (np.diff(candidates[..., 4], axis=1) <= 0).all()
    for rows, expected in zip(candidates, wanted, strict=True):
        np.testing.assert_allclose(rows[:cells, 4], expected[:cells, 4], atol=1e-4)
        px, score, keypoint_score = differences(rows[:cells], expected)
        assert px < 1e-2
        assert score < 1e-4
        assert keypoint_score < 1e-4


@pytest.mark.parametrize("size_hw", [(32, 32), (128, 128), (64, 256), (160, 192)])
def test_a_picture_with_fewer_cells_ends_in_rows_of_zeros(size_hw: tuple[int, int]) -> None:
    _, run, images, _ = tiny("yolov8")
    height, width = size_hw
    cells = height * width // 64 + height * width // 256 + height * width // 1024
    candidates = run(np.ascontiguousarray(images[:1, :height, :width]))[0]
    assert (candidates[:cells, 4] > 0).all()
    assert (candidates[:cells, 2:4] > 0).all()
    assert (candidates[cells:] == 0).all()


@pytest.mark.parametrize("name", ["yolov8", "yolo11"])
def test_every_picture_of_a_batch_gets_what_it_gets_alone(name: str) -> None:
    _, run, images, _ = tiny(name)
    batch = np.concatenate([images, images[:1, ::-1], np.zeros_like(images[:1])])
    together = run(batch)
    for picture, rows in zip(batch, together, strict=True):
        np.testing.assert_allclose(run(picture[None])[0, :50], rows[:50], atol=1e-3)


def test_a_graph_fixed_to_one_shape_gives_the_same() -> None:
    checkpoint, run, images, _ = tiny("yolov8")
    fixed = compiled(checkpoint, shape=[1, *images.shape[1:]])
    np.testing.assert_allclose(fixed(images[:1])[0, :100], run(images[:1])[0, :100], atol=1e-3)


@pytest.mark.parametrize("name", ["yolov8", "yolo11"])
def test_fp16_is_a_valid_graph_that_finds_about_the_same(name: str) -> None:
    checkpoint, _, images, wanted = tiny(name)
    model = build_graph(checkpoint, "fp16")
    float32 = [
        w.name for w in model.graph.initializer if w.data_type == TensorProto.FLOAT and len(w.dims) > 1
    ]
    assert not float32
    candidates = compiled(checkpoint, "fp16")(images)
    np.testing.assert_allclose(candidates[0, :300, 4], wanted[0, :300, 4], atol=1e-2)
    nearest = [np.abs(wanted[0] - row)[:, :4].max(1).min() for row in candidates[0, :300]]
    assert np.median(nearest) < 0.2  # px; random weights make much of little


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["yolov8", "yolo11"])
def test_the_graph_keeps_the_tensor_contract(name: str, precision: Precision) -> None:
    checkpoint, _, _, _ = tiny(name)
    model = build_graph(checkpoint, precision)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert [opset.version for opset in model.opset_import] == [17]
    assert not {node.op_type for node in model.graph.node} & {"If", "Loop", "Scan", "NonMaxSuppression"}
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    (images,), (candidates,) = inferred.input, inferred.output
    keypoints = pose_head(checkpoint).keypoints
    assert (images.name, images.type.tensor_type.elem_type) == ("images", TensorProto.UINT8)
    assert [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim] == [
        "batch",
        "height",
        "width",
        3,
    ]
    assert (candidates.name, candidates.type.tensor_type.elem_type) == ("candidates", TensorProto.FLOAT)
    assert [d.dim_param or d.dim_value for d in candidates.type.tensor_type.shape.dim] == [
        "batch",
        1000,
        5 + 3 * keypoints,
    ]
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["family"] == "yolo_pose"
    assert about["sha256"] == checkpoint.sha256
    assert about["kpt_shape"] == f"[{keypoints}, 3]"
    assert about["names"].startswith("person")
    assert about["precision"] == precision


def test_keypoints_of_a_model_without_keypoint_scores_have_score_one(tmp_path: Path) -> None:
    # The 12 values of [4, 3] read as [6, 2]: the first point stays, what follows means something else.
    path = tmp_path / "pairs.pt"
    path.write_bytes(rewritten(DATA / "yolo11-pose-tiny.pt", (b"(K\x04K\x03e", b"(K\x06K\x02e")))
    _, _, images, wanted = tiny("yolo11")
    candidates = compiled(read_checkpoint(path))(images)[0]
    assert candidates.shape == (1000, 5 + 3 * 6)
    rows = candidates[:420]
    assert (rows[:, 7::3] == 1).all()
    assert (candidates[420:] == 0).all()
    assert differences(np.concatenate([rows[:, :7], rows[:, 7:8]], 1), _first_point(wanted[0]))[0] < 1e-2


def _first_point(rows: Floats) -> Floats:
    return np.concatenate([rows[:, :7], np.ones_like(rows[:, :1])], 1)


def test_the_score_of_several_classes_is_that_of_the_best() -> None:
    checkpoint, run, images, _ = tiny("yolo11")
    assert pose_head(checkpoint).classes == 2
    dense = np.load(DATA / "yolo11-pose-tiny.npz")["output"]
    best = np.sort(dense[0, 4:6].max(0))[::-1]
    np.testing.assert_allclose(run(images)[0, :420, 4], best, atol=1e-4)


def test_a_layer_of_another_family_is_named_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(rewritten(DATA / "yolov8-pose-tiny.pt", (b"block\nC2f\n", b"block\nGhostBottleneck\n")))
    with pytest.raises(CheckpointError, match=r"layer model\.2 \(GhostBottleneck\) is not supported"):
        build_graph(read_checkpoint(path))


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="no weights: run scripts/setup")
@pytest.mark.parametrize("picture", ["single_person.jpg", "two_people.jpg", "astronaut.png"])
def test_the_official_model_finds_what_ultralytics_finds(picture: str) -> None:
    found = json.loads((DATA / "yolo11n_pose_reference.json").read_text())["images"][picture]["square"]
    with Image.open(DATA / picture) as file:
        image = np.asarray(file.convert("RGB"))
    boxed, affine = letterbox(image, (640, 640))
    candidates = official()(boxed[None])[0]
    assert found["boxes_xyxy"]
    for box, score, keypoints in zip(
        found["boxes_xyxy"], found["scores"], np.array(found["keypoints_xys"], np.float32), strict=True
    ):
        corners = affine.apply(np.array(box, np.float32).reshape(2, 2))
        wanted = np.concatenate([corners.mean(0), corners[1] - corners[0]])
        likely = candidates[np.abs(candidates[:, 4] - score) < 1e-3]
        best = likely[np.abs(likely[:, :4] - wanted).max(1).argmin()]
        assert np.abs(best[:4] - wanted).max() < 0.1  # the reference is clipped to the picture and rounded
        seen = keypoints[:, 2] > 0.5
        apart = np.linalg.norm(best[5:].reshape(17, 3)[seen, :2] - affine.apply(keypoints[seen, :2]), axis=1)
        assert np.median(apart) <= 0.01
        assert apart.max() <= 0.05


@cache
def official() -> Any:
    return compiled(read_checkpoint(WEIGHTS), shape=[1, 640, 640, 3])
