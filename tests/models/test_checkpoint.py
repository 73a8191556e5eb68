from __future__ import annotations

import hashlib
import pickletools
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from service.models.checkpoint import Module, read_checkpoint
from service.models.errors import CheckpointError
from service.models.graph_builder import Feature, GraphBuilder
from service.models.yolo_graph import build_graph
from service.models.yolo_layers import LayerWriter
from tests.models.torch_files import (
    Call,
    Name,
    Raw,
    opcodes,
    pickle_of,
    pickled,
    rewritten,
    torch_zip,
)

DATA = Path(__file__).resolve().parents[1] / "data"
TINY = DATA / "yolov8-pose-tiny.pt"
TINY_11 = DATA / "yolo11-pose-tiny.pt"
SEQUENTIAL = Name("torch.nn.modules.container", "Sequential")


def test_a_checkpoint_says_what_it_is() -> None:
    read = read_checkpoint(TINY_11)
    assert read.model.name == "ultralytics.nn.tasks.PoseModel"
    assert read.kpt_shape == (4, 3)
    assert read.names == {0: "person", 1: "class 1"}
    assert read.licence == "AGPL-3.0 License (https://ultralytics.com/license)"
    assert read.version == "8.4.190"
    assert read.train_args["task"] == "pose"
    assert read.sha256 == hashlib.sha256(TINY_11.read_bytes()).hexdigest()


def test_the_tree_of_layers_can_be_walked() -> None:
    layers = list(read_checkpoint(TINY).model.child("model").children())
    assert [layer.kind for layer in layers[:3]] == ["Conv", "Conv", "C2f"]
    assert layers[-1].kind == "Pose"
    assert layers[-1].ints("f") == (15, 18, 21)
    assert layers[-1].get("reg_max", int) == 16
    np.testing.assert_array_equal(layers[-1].tensor("stride"), [8, 16, 32])
    stem = layers[0].child("conv")
    assert (stem.pair("stride"), stem.pair("padding"), stem.get("groups", int)) == ((2, 2), (1, 1), 1)
    assert stem.tensor("weight").shape == (8, 3, 3, 3)
    assert stem.optional_tensor("bias") is None
    assert layers[0].child("bn").get("eps", float) == pytest.approx(1e-3)


def test_averaged_weights_come_before_the_last_ones(tmp_path: Path) -> None:
    pickle = pickle_of(TINY)
    steps = pickletools.genops(pickle)
    next(step for step in steps if step[0].name == "NEWOBJ")  # the model, the first instance in the file
    memo = int(str(next(steps)[1]))
    other = Call(Name("ultralytics.nn.tasks", "DetectionModel"), (), {})
    added = opcodes("ema") + b"h%cs" % memo + opcodes("model") + opcodes(other) + b"s."
    path = tmp_path / "ema.pt"
    path.write_bytes(rewritten(TINY, (pickle, pickle[:-1] + added)))
    assert read_checkpoint(path).model.kind == "PoseModel"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            [(b"tasks\nPoseModel\n", b"tasks\nDetectionModel\n"), (b"head\nPose\n", b"head\nDetect\n")],
            "DetectionModel",
        ),
        (
            [(b"tasks\nPoseModel\n", b"tasks\nSegmentationModel\n"), (b"head\nPose\n", b"head\nSegment\n")],
            "Segmentation",
        ),
        ([(b"head\nPose\n", b"head\nPose26\n")], "Pose26"),
        ([(b"block\nC2f\n", b"block\nC3\n")], "C3"),
        ([(b"block\nC2f\n", b"block\nA2C2f\n")], "A2C2f"),
        ([(b"ultralytics.nn.tasks\nPoseModel\n", b"models.yolo\nModel\n")], "models.yolo.Model"),
        ([(b"ultralytics.nn.tasks\nPoseModel\n", b"torch.nn.modules.container\nSequential\n")], "Sequential"),
        ([(b"activation\nSiLU\n", b"activation\nSoftplus\n")], "Softplus"),
        ([(b"batchnorm\nBatchNorm2d\n", b"instancenorm\nInstanceNorm2d\n")], "InstanceNorm2d"),
        ([(b"torch\nHalfStorage\n", b"torch\nUntypedStorage\n")], "UntypedStorage"),
        ([(b"torch\nHalfStorage\n", b"torch\nDoubleStorage\n")], "bytes for"),
        ([(b"X\x09\x00\x00\x00kpt_shape", b"X\x09\x00\x00\x00kpt_shabe")], "kpt_shape"),
        ([(b"X\x07\x00\x00\x00reg_max", b"X\x07\x00\x00\x00rag_max")], "reg_max"),
        ([(b"X\x0c\x00\x00\x00running_mean", b"X\x0c\x00\x00\x00running_bean")], "running_mean"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_a_yolov8_or_yolo11_pose_model_is_refused_by_name(
    tmp_path: Path, changes: list[tuple[bytes, bytes]], said: str
) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(rewritten(TINY, *changes))
    with pytest.raises(CheckpointError, match=said):
        build_graph(read_checkpoint(path))


@pytest.mark.parametrize(
    "root",
    [
        None,
        [],
        {},
        {"model": None, "ema": None},
        {"model": {"0.weight": 1}},
        {"model": Call(Name("ultralytics.nn.tasks", "PoseModel"))},
        {"model": Call(Name("ultralytics.nn.tasks", "PoseModel"), (), {})},
        {"model": Call(Name("ultralytics.nn.tasks", "PoseModel"), (), {"kpt_shape": [17, 4]})},
        {
            "model": Call(
                Name("ultralytics.nn.tasks", "PoseModel"), (), {"kpt_shape": [17, 3], "_modules": []}
            )
        },
        {"model": Call(Name("torch.nn.modules.container", "Sequential"), (), {"x": 1})},
    ],
    ids=lambda root: repr(root)[:60],
)
def test_a_file_without_a_model_is_refused(tmp_path: Path, root: object) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(torch_zip(pickled(root)))
    with pytest.raises(CheckpointError):
        build_graph(read_checkpoint(path))


def _layer(tmp_path: Path, layer: object) -> Module:
    state = {"kpt_shape": [17, 3], "_modules": {"model": layer}}
    path = tmp_path / "layer.pt"
    path.write_bytes(
        torch_zip(pickled({"model": Call(Name("ultralytics.nn.tasks", "PoseModel"), (), state)}))
    )
    return read_checkpoint(path).model.child("model")


def test_a_layer_that_contains_itself_is_refused(tmp_path: Path) -> None:
    itself = opcodes({"_modules": {"0": Raw(b"h\x09")}})
    layer = _layer(tmp_path, Raw(opcodes(Call(SEQUENTIAL)) + b"q\x09" + itself + b"b"))
    with pytest.raises(CheckpointError, match="deep"):
        LayerWriter(GraphBuilder(half=False)).write(layer, Feature("x", 3))


def test_layers_that_share_their_children_again_and_again_are_refused(tmp_path: Path) -> None:
    layer: object = Call(SEQUENTIAL, (), {"_modules": {}})
    for _ in range(30):
        shared = Raw(opcodes(layer) + b"q\x090h\x09")
        layer = Call(SEQUENTIAL, (), {"_modules": {"0": shared, "1": Raw(b"h\x09")}})
    with pytest.raises(CheckpointError, match="layers"):
        LayerWriter(GraphBuilder(half=False)).write(_layer(tmp_path, layer), Feature("x", 3))


def _read(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with suppress(CheckpointError):
        build_graph(read_checkpoint(path))


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    data = TINY.read_bytes()
    path = tmp_path / "cut.pt"
    for length in np.random.default_rng(1).integers(0, len(data) - 1, 60):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


def test_a_file_with_changed_bytes_is_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    data = TINY.read_bytes()
    random = np.random.default_rng(2)
    for _ in range(25):
        changed = bytearray(data)
        # Half of them in the central directory at the end, where a zip is most fragile.
        low = 0 if random.random() < 0.5 else len(data) - 30_000
        for position in random.integers(low, len(data), random.integers(1, 9)):
            changed[position] = random.integers(256)
        _read(tmp_path / "changed.pt", bytes(changed))


def test_a_changed_pickle_is_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    pickle = pickle_of(TINY)
    random = np.random.default_rng(3)
    for _ in range(40):
        changed = bytearray(pickle)
        for position in random.integers(0, len(pickle), random.integers(1, 9)):
            changed[position] = random.integers(256)
        _read(tmp_path / "changed.pt", rewritten(TINY, (pickle, bytes(changed))))
