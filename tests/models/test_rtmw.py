"""Public RTMW3D and RTMW files become what the gateway asks."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
from numpy.typing import NDArray

from service.core.topdown import lift
from service.models import batch
from service.models.errors import CheckpointError, RepositoryError
from service.models.rtmw import Family, add_rtmw, describe, rewrite
from service.skeletons import shipped
from service.triton.model_config import parse_config, read_config
from tests.models.simcc_networks import (
    HEIGHT,
    KEYPOINTS,
    NAMES_2D,
    WIDTH,
    X_BINS,
    Y_BINS,
    Z_BINS,
    network,
    picture_of,
    reader,
    values_on,
)

SIZES = (X_BINS, Y_BINS, Z_BINS)
Z_RANGE_M = 2.1744869
Answer = dict[str, NDArray[np.float32]]


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def run(model: onnx.ModelProto, crops: NDArray[np.uint8]) -> Answer:
    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    results = compiled(crops)
    return {name: np.array(results[name]) for name in ("keypoints", "scores", "positions")}


def decode(axes: list[NDArray[np.float32]]) -> Answer:
    """mmpose's codec, derived again: peaks per axis, the lower of x and y as score, z from bins to metres."""
    bins = [values.argmax(1) for values in axes]
    scores = np.minimum(axes[0].max(1), axes[1].max(1))
    there = scores > 0
    keypoints = np.stack([bins[0] / 2.0, bins[1] / 2.0], axis=1)
    positions = np.full((len(scores), 3), np.nan)
    if len(axes) == 3:
        depth = axes[2].shape[1] / 2  # 288 steps
        positions[:, 2] = (bins[2] / 2 / (depth / 2) - 1) * Z_RANGE_M
    keypoints[~there], positions[~there] = np.nan, np.nan
    return {"keypoints": keypoints, "scores": scores, "positions": positions}


def same(found: Answer, expected: Answer) -> None:
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return rewrite(save(reader(), tmp_path_factory.mktemp("rtmw") / "rtmw3d.onnx"), "rtmw3d")


def test_every_bin_of_every_axis_is_decoded_as_in_training(rewritten: onnx.ModelProto) -> None:
    every = [np.arange(-(-size // KEYPOINTS) * KEYPOINTS).reshape(-1, KEYPOINTS) % size for size in SIZES]
    count = max(len(rows) for rows in every)
    pictures = [picture_of([rows[i % len(rows)] for rows in every], SIZES) for i in range(count)]
    answer = run(rewritten, np.stack(pictures))
    for i, picture in enumerate(pictures):
        same({name: array[i] for name, array in answer.items()}, decode(values_on(picture, SIZES)))
        np.testing.assert_array_equal(answer["keypoints"][i, :, 0] * 2, every[0][i % len(every[0])])
        np.testing.assert_array_equal(answer["keypoints"][i, :, 1] * 2, every[1][i % len(every[1])])


@pytest.mark.parametrize(("z_bin", "z"), [(0, -2.1744869), (288, 0.0), (432, 1.0872434), (575, 2.1669367)])
def test_the_root_is_in_the_middle_and_a_bin_is_seven_and_a_half_millimetres(
    z_bin: int, z: float, rewritten: onnx.ModelProto
) -> None:
    """Not 144, the root's bin by a rule in use that divides by half the height instead of half the depth."""
    bins = [np.full(KEYPOINTS, value) for value in (100, 200, z_bin)]
    answer = run(rewritten, picture_of(bins, SIZES)[None])
    np.testing.assert_allclose(answer["positions"][0, :, 2], z, atol=1e-5)
    assert np.isnan(answer["positions"][0, :, :2]).all()


def test_known_points_in_3d_come_back(rewritten: onnx.ModelProto) -> None:
    rng = np.random.default_rng(3)
    xy = rng.uniform([0, 0], [WIDTH - 1, HEIGHT - 1], (KEYPOINTS, 2))
    z = rng.uniform(-2.1, 2.1, KEYPOINTS)
    bins = [
        np.round(xy[:, 0] * 2).astype(int),
        np.round(xy[:, 1] * 2).astype(int),
        np.round(2 * (z / Z_RANGE_M + 1) * 144).astype(int),
    ]
    answer = run(rewritten, picture_of(bins, SIZES)[None])
    assert np.abs(answer["keypoints"][0] - xy).max() <= 0.2501
    assert np.abs(answer["positions"][0, :, 2] - z).max() <= 0.5 * 2 * Z_RANGE_M / Z_BINS + 1e-6


def test_what_is_decoded_can_be_lifted_to_metres(rewritten: onnx.ModelProto) -> None:
    names = shipped()["coco_wholebody_133"].names
    h, scale = 1.70, 120.0  # px per metre
    metres = np.zeros((KEYPOINTS, 3))
    for side, x in (("left", 0.13), ("right", -0.13)):
        for name, y, z in (
            ("hip", 0, 0),
            ("shoulder", -0.288 * h, 0),
            ("elbow", -0.288 * h + 0.186 * h, 0),
            ("wrist", -0.288 * h + 0.186 * h + 0.146 * h * 0.8, -0.146 * h * 0.6),
            ("knee", 0.245 * h * 0.8, -0.245 * h * 0.6),
            ("ankle", 0.245 * h * 0.8 + 0.246 * h, -0.245 * h * 0.6),
        ):
            metres[names.index(f"{side}_{name}")] = (x, y, z)
    px = metres[:, :2] * scale + [WIDTH / 2, HEIGHT / 2]
    bins = [
        np.round(px[:, 0] * 2).astype(int),
        np.round(px[:, 1] * 2).astype(int),
        np.round(2 * (metres[:, 2] / Z_RANGE_M + 1) * 144).astype(int),
    ]
    answer = run(rewritten, picture_of(bins, SIZES)[None])
    keypoints = np.concatenate([answer["keypoints"], answer["scores"][..., None]], axis=2)
    lifted = lift(keypoints, answer["positions"], names)
    assert np.linalg.norm(lifted[0, 5:17] - metres[5:17], axis=1).max() < 0.02


def test_without_a_peak_nothing_is_there(rewritten: onnx.ModelProto) -> None:
    bins = [np.full(KEYPOINTS, value) for value in (10, 20, 30)]
    picture = picture_of(bins, SIZES)
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1)).reshape(-1)
    planes[: 7 * X_BINS] = 0  # no peak along x for the first seven
    picture = np.ascontiguousarray(planes.reshape(3, HEIGHT, WIDTH).transpose(1, 2, 0))
    answer = {name: array[0] for name, array in run(rewritten, picture[None]).items()}
    assert (answer["scores"][:7] <= 0).all()
    assert np.isnan(answer["keypoints"][:7]).all()
    assert np.isnan(answer["positions"][:7]).all()
    assert np.isfinite(answer["keypoints"][7:]).all()
    same(answer, decode(values_on(picture, SIZES)))


def test_the_score_is_the_lower_of_both_peaks_and_z_has_no_say(rewritten: onnx.ModelProto) -> None:
    rng = np.random.default_rng(5)
    picture = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    answer = {name: array[0] for name, array in run(rewritten, picture[None]).items()}
    same(answer, decode(values_on(picture, SIZES)))


def test_rgb_is_normalised_plane_by_plane(rewritten: onnx.ModelProto) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[...] = (200, 90, 30)
    expected = decode(values_on(picture, SIZES))["scores"]
    np.testing.assert_allclose(run(rewritten, picture[None])["scores"][0], expected, rtol=1e-5)
    assert expected[0] == pytest.approx((200 - 123.675) / 58.395, rel=1e-5)


@pytest.mark.parametrize("opset", [11, 13, 17, 18])
@pytest.mark.parametrize("names", [NAMES_2D, ("1", "0")])
def test_rtmw_in_2d_gives_no_positions(names: tuple[str, str], opset: int, tmp_path: Path) -> None:
    model = rewrite(save(reader(SIZES[:2], names, opset=opset), tmp_path / "rtmw.onnx"), "rtmw")
    rng = np.random.default_rng(6)
    crops = rng.integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    answer = run(model, crops)
    for i, crop in enumerate(crops):
        same({name: array[i] for name, array in answer.items()}, decode(values_on(crop, SIZES[:2])))
    assert np.isnan(answer["positions"]).all()


def test_outputs_are_told_apart_by_their_sizes_and_x_from_z_by_their_order() -> None:
    model = reader((Y_BINS, X_BINS, Z_BINS), ("a", "b", "c"))
    found = describe(model, "rtmw3d", "some.onnx")
    assert found.axes == ("b", "a", "c")
    assert (found.size_hw, found.depth_bins, found.keypoints) == ((384, 288), 576, 133)


def batch_of(model: onnx.ModelProto) -> str | int:
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    return dim.dim_param or dim.dim_value


@pytest.mark.parametrize(("three", "family"), [(True, "rtmw3d"), (False, "rtmw")])
def test_a_batch_of_one_is_freed_and_a_batch_equals_its_singles(
    three: bool, family: Family, tmp_path: Path
) -> None:
    original = network(three=three)
    model = rewrite(save(original, tmp_path / "net.onnx"), family)
    assert batch_of(model) == "batch"
    crops = np.random.default_rng(1).integers(0, 256, (5, HEIGHT, WIDTH, 3), np.uint8)
    together = run(model, crops)
    assert together["keypoints"].shape == (5, KEYPOINTS, 2)
    for i in range(5):
        single = run(model, crops[i : i + 1])
        same({name: array[i] for name, array in together.items()}, {n: a[0] for n, a in single.items()})
    assert np.abs(np.diff(together["scores"], axis=0)).max() > 1e-3  # they are not all the same


def test_the_freed_network_gives_what_the_original_gave(tmp_path: Path) -> None:
    original = network()
    model = rewrite(save(original, tmp_path / "net.onnx"), "rtmw3d")
    crops = np.random.default_rng(2).integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8)
    answer = run(model, crops)
    mean, deviation = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    for i, crop in enumerate(crops):
        planes = ((crop - np.array(mean)) / np.array(deviation)).transpose(2, 0, 1)[None].astype(np.float32)
        axes = [values[0] for values in batch.run(original, planes)]
        expected = decode(axes)
        np.testing.assert_allclose(answer["scores"][i], expected["scores"], rtol=1e-3, atol=1e-4)
        # A tie between two bins may fall otherwise when sums are taken in another order.
        agree = np.isclose(answer["keypoints"][i], expected["keypoints"], equal_nan=True).all(1)
        assert agree.mean() > 0.97


def test_a_free_batch_stays_free(tmp_path: Path) -> None:
    freed = batch.free_batch(network())
    assert freed is not None
    assert batch_of(rewrite(save(freed, tmp_path / "free.onnx"), "rtmw3d")) == "batch"


@pytest.mark.parametrize("spoil", ["squeeze", "mix"])
def test_a_network_that_cannot_be_freed_is_served_one_by_one(spoil: str, tmp_path: Path) -> None:
    path = save(network(spoil=spoil), tmp_path / "spoilt.onnx")
    assert batch.free_batch(network(spoil=spoil)) is None
    model = rewrite(path, "rtmw3d")
    assert batch_of(model) == 1
    crop = np.random.default_rng(1).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    assert run(model, crop)["keypoints"].shape == (1, KEYPOINTS, 2)
    folder = add_rtmw(tmp_path / "models", path, name="spoilt", family="rtmw3d")
    assert "max_batch_size: 1\n" in (folder / "config.pbtxt").read_text(encoding="utf-8")


def test_without_openvino_the_reference_of_onnx_proves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    picture = np.random.default_rng(7).standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32)
    by_openvino = batch.run(model, picture)
    monkeypatch.setitem(sys.modules, "openvino", None)
    for found, expected in zip(batch.run(model, picture), by_openvino, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_network_deaf_to_its_input_proves_nothing() -> None:
    model = network()
    for node in model.graph.node:
        if node.op_type == "Conv" and "input" in node.input:
            weights = {tensor.name: tensor for tensor in model.graph.initializer}
            tensor = weights[node.input[1]]
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((8, 3, 32, 32), np.float32), tensor.name))
    assert batch.free_batch(model) is None


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}


def test_in_fp16_the_convolutions_are_half_and_norm_attention_and_decoding_are_not(tmp_path: Path) -> None:
    path = save(network(), tmp_path / "net.onnx")
    half, full = rewrite(path, "rtmw3d", "fp16"), rewrite(path, "rtmw3d")
    types = types_of(half)
    for node in half.graph.node:
        if node.op_type == "Conv":
            assert types[node.output[0]] == onnx.TensorProto.FLOAT16
        if node.op_type in ("Sqrt", "Div", "MatMul", "Gemm", "Softmax", "ReduceSum", "ReduceMax", "ArgMax"):
            inputs = [types[name] for name in node.input if name in types]
            assert onnx.TensorProto.FLOAT16 not in inputs
    squares = [n for n in half.graph.node if n.op_type == "Mul" and len(set(n.input)) == 1]
    assert [types[node.output[0]] for node in squares] == [onnx.TensorProto.FLOAT]
    assert len(half.SerializeToString()) < len(full.SerializeToString())
    crops = np.random.default_rng(4).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    a, b = run(half, crops), run(full, crops)
    np.testing.assert_allclose(a["scores"], b["scores"], rtol=0.02, atol=0.02)


def test_weights_too_large_for_fp16_are_refused(tmp_path: Path) -> None:
    model = network()
    tensor = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [8, 8, 1, 1])
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.full((8, 8, 1, 1), 1e5, np.float32), tensor.name))
    with pytest.raises(CheckpointError, match="exceed fp16; choose precision fp32"):
        rewrite(save(model, tmp_path / "net.onnx"), "rtmw3d", "fp16")


def test_a_zip_as_mmdeploy_packs_it_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "sdk.zip", "w") as archive:
        archive.writestr("20231122/rtmw/pipeline.json", "{}")
        archive.writestr("20231122/rtmw/end2end.onnx", network(three=False).SerializeToString())
    model = rewrite(tmp_path / "sdk.zip", "rtmw")
    assert {entry.key: entry.value for entry in model.metadata_props}["source"] == "sdk.zip"


def make_bad(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.onnx"
    models: dict[str, Any] = {
        "two axes": lambda: reader(SIZES[:2], NAMES_2D),
        "other bins": lambda: reader((X_BINS, Y_BINS - 2, Z_BINS)),
        "old": lambda: reader(opset=10),
    }
    if kind in models:
        return save(models[kind](), path)
    if kind == "no picture":
        model = reader()
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
        return save(model, path)
    if kind == "weights elsewhere":
        model = network()
        model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
        return save(model, path)
    if kind == "empty zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "nothing")
    elif kind == "no onnx":
        path.write_bytes(b"<html>a proxy's page</html>")
    elif kind == "empty":
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("two axes", r"gives simcc_x .*; rtmw3d gives 3 tensors"),
        ("other bins", r"576 bins along x and 768 along y"),
        ("old", r"has opset 10; export it with 11 or later"),
        ("no picture", r"takes input \[1, 4, 384, 288\], not one image"),
        ("weights elsewhere", r"keeps its weights in another file"),
        ("empty zip", r"holds 0 ONNX files instead of one"),
        ("no onnx", r"is no ONNX file"),
        ("empty", r"is no ONNX file"),
        ("absent", r"cannot be read: No such file"),
    ],
)
def test_what_is_no_such_model_is_refused_with_what_it_is(kind: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=says):
        rewrite(make_bad(tmp_path, kind), "rtmw3d")


def test_it_is_put_into_the_repository_by_the_contract(tmp_path: Path) -> None:
    path = save(network(), tmp_path / "rtmw3d-x.onnx")
    folder = add_rtmw(
        tmp_path / "models", path, name="rtmw3d_x", family="rtmw3d", source="https://example.org/x"
    )
    assert {item.name for item in folder.iterdir()} == {"1", "config.pbtxt"}
    config = parse_config((folder / "config.pbtxt").read_text(encoding="utf-8"))
    model = read_config(config, "1")
    assert model is not None
    assert (model.family, model.skeleton, model.keypoint_count) == ("top_down", "coco_wholebody_133", 133)
    assert (model.shapes_hw, model.max_batch_size, model.licence) == (((384, 288),), 8, "Apache-2.0")
    assert model.source == "https://example.org/x"
    assert config.parameters["first_stage"].string_value == "yolo11n_pose"
    onnx.checker.check_model(onnx.load(folder / "1" / "model.onnx"))
    with pytest.raises(RepositoryError, match="exists"):
        add_rtmw(tmp_path / "models", path, name="rtmw3d_x", family="rtmw3d")
    add_rtmw(tmp_path / "models", path, name="rtmw3d_x", family="rtmw3d", replace=True)


def test_a_skeleton_with_another_number_of_points_is_refused(tmp_path: Path) -> None:
    path = save(network(), tmp_path / "net.onnx")
    with pytest.raises(CheckpointError, match="has 133 keypoints and skeleton coco_17 has 17"):
        add_rtmw(
            tmp_path / "models", path, name="net", family="rtmw3d", skeleton="coco_17", skeleton_keypoints=17
        )
    assert not (tmp_path / "models").exists()
