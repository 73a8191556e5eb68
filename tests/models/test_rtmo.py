"""Public RTMO files become models of the family `yolo_pose`."""

from __future__ import annotations

import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from service.models.batch import run
from service.models.cli import app
from service.models.engines import Options, build_plan, profiles_for
from service.models.errors import CheckpointError, RepositoryError
from service.models.rtmo import RewrittenRtmo, add_rtmo, describe, rewrite
from service.models.yolo_graph import Precision
from service.triton.model_config import parse_config, read_config
from tests.models.rtmo_networks import KEYPOINTS, network, persons_in, persons_on
from tests.models.rtx import RTX, needs_rtx
from tests.models.simcc_networks import network as whole_body_network

WIDTH = 5 + 3 * KEYPOINTS


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 20, 20, 3), np.uint8).repeat(32, 1).repeat(32, 2)


@lru_cache(maxsize=1)
def public() -> onnx.ModelProto:
    return network()


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> RewrittenRtmo:
    return rewrite(save(public(), tmp_path_factory.mktemp("rtmo") / "rtmo-s.onnx"))


def test_rows_are_those_of_an_independent_decoding(rewritten: RewrittenRtmo) -> None:
    for image in images(3):
        (rows,) = run(rewritten.graph, image[None])
        expected = persons_on(image[..., ::-1])
        assert rows.shape == (1, 1000, WIDTH)
        assert 10 < len(expected) < 50
        np.testing.assert_allclose(persons_in(rows[0]), expected, rtol=1e-3, atol=0.02)
        # The export itself fills up with one copy of its first candidate; the rest is ours.
        np.testing.assert_array_equal(rows[0, len(expected) + 1 :], 0)


def test_the_network_gets_blue_first_and_values_as_they_are(rewritten: RewrittenRtmo) -> None:
    (image,) = images(1, seed=4)
    (rows,) = run(rewritten.graph, image[None])
    swapped = persons_on(image)  # as if RGB went in
    right = persons_on(image[..., ::-1])
    assert abs(rows[0, 0, 4] - right[0, 4]) < 1e-3
    assert len(swapped) != len(right) or np.abs(rows[0, : len(right), :4] - swapped[:, :4]).max() > 10


def test_rows_are_sorted_by_falling_score(rewritten: RewrittenRtmo) -> None:
    (rows,) = run(rewritten.graph, images(2, seed=2))
    assert (np.diff(rows[..., 4], axis=1) <= 0).all()


def test_an_image_without_persons_gives_rows_of_zeros(rewritten: RewrittenRtmo) -> None:
    (rows,) = run(rewritten.graph, np.full((1, 640, 640, 3), 114, np.uint8))
    assert rows.shape == (1, 1000, WIDTH)
    # An export for batches fills up with its first candidate, whose score is below its threshold.
    assert rows[..., 4].max() < 0.1
    assert not rows[0, 1:].any()


def test_a_batch_gives_the_persons_of_its_single_images(rewritten: RewrittenRtmo) -> None:
    batch = images(3, seed=3)
    (together,) = run(rewritten.graph, batch)
    for index in range(3):
        (alone,) = run(rewritten.graph, batch[index : index + 1])
        np.testing.assert_allclose(persons_in(together[index]), persons_in(alone[0]), rtol=1e-4, atol=1e-2)


def test_what_a_file_allows_is_established_by_running_it(rewritten: RewrittenRtmo) -> None:
    assert rewritten.shapes_hw == ((640, 640),)
    assert rewritten.max_batch_size == 8
    assert rewritten.keypoint_count == KEYPOINTS


def test_a_batch_of_one_stays_one(tmp_path: Path) -> None:
    made = rewrite(save(network(batch=1), tmp_path / "one.onnx"))
    assert made.max_batch_size == 1
    assert made.graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_free_axes_are_tried_and_only_sizes_that_work_are_allowed(tmp_path: Path) -> None:
    model = network()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "any"
    made = rewrite(save(model, tmp_path / "free.onnx"))
    assert made.shapes_hw == ((640, 640),)


def test_a_file_that_does_not_say_its_keypoints_is_run_to_learn_them(tmp_path: Path) -> None:
    assert describe(network(told=False), "").keypoint_count == 0
    assert rewrite(save(network(told=False), tmp_path / "net.onnx")).keypoint_count == KEYPOINTS


def test_in_fp16_the_convolution_is_half_and_the_rows_hardly_change(
    rewritten: RewrittenRtmo, tmp_path: Path
) -> None:
    half = rewrite(save(public(), tmp_path / "net.onnx"), "fp16")
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.graph.initializer}
    (conv,) = (node for node in half.graph.graph.node if node.op_type == "Conv")
    assert kinds[conv.input[1]] == onnx.TensorProto.FLOAT16
    image = images(1)
    (a,), (b,) = run(half.graph, image), run(rewritten.graph, image)
    np.testing.assert_allclose(a[0, :10, 4], b[0, :10, 4], atol=0.02)


def test_an_archive_of_mmdeploy_is_added_as_a_served_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "sdk.zip", "w") as archive:
        archive.writestr("20231211/rtmo/pipeline.json", "{}")
        archive.writestr("20231211/rtmo/end2end.onnx", public().SerializeToString())
    repository = tmp_path / "models"
    arguments = ["--name", "rtmo_s", "--family", "rtmo", "--repository", str(repository)]
    result = CliRunner().invoke(app, ["add", str(tmp_path / "sdk.zip"), *arguments])
    assert result.exit_code == 0, result.output
    text = (repository / "cpu" / "rtmo_s" / "config.pbtxt").read_text(encoding="utf-8")
    model = read_config(parse_config(text), "1")
    assert model is not None
    assert (model.family, model.skeleton, model.licence) == ("yolo_pose", "coco_17", "Apache-2.0")
    assert (model.shapes_hw, model.max_batch_size, model.keypoint_count) == (((640, 640),), 8, 17)
    assert "AGPL" not in result.output


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: whole_body_network(), "RTMO gives boxes (N, M, 5) and keypoints (N, M, K, 3)"),
        (lambda: _with_opset(network(), 11), "has opset 11; export it with 12 or later"),
        (lambda: _with_channels(network(), 4), "not one image (N, 3, H, W)"),
    ],
    ids=["whole body", "old", "four channels"],
)
def test_another_network_is_refused_and_nothing_is_written(make: object, said: str, tmp_path: Path) -> None:
    path = save(make(), tmp_path / "net.onnx")  # type: ignore[operator]
    with pytest.raises(CheckpointError) as refused:
        add_rtmo(tmp_path / "models", path, name="net")
    assert said in str(refused.value)
    assert not (tmp_path / "models").exists()


def test_a_skeleton_with_other_keypoints_is_refused(tmp_path: Path) -> None:
    path = save(public(), tmp_path / "net.onnx")
    with pytest.raises(RepositoryError, match="has 17 keypoints and skeleton mine has 5"):
        add_rtmo(tmp_path / "models", path, name="net", skeleton="mine", skeleton_keypoints=5)


@pytest.mark.parametrize("name", ["rtmo-s", "rtmo_m", "rtmo-l"])
def test_fetch_knows_the_public_archives_and_how_they_are_added(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name.replace('_', '-')}.zip").write_bytes(b"there")
    result = CliRunner().invoke(app, ["fetch", name, "--to", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "--family rtmo" in result.output
    assert "not compared" in result.output


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_builds_what_is_put_around_the_network(precision: Precision, tmp_path: Path) -> None:
    """Without the network's NMS, which TensorRT has as INMSLayer and TensorRT-RTX has not."""
    made = rewrite(save(network(nms=False), tmp_path / "net.onnx"), precision)
    options = Options(compute_capability="8.9", optimisation_level=0)
    graph = made.graph.SerializeToString()
    assert build_plan(RTX, graph, profiles_for(made.shapes_hw, 2), options).plan


@needs_rtx
def test_tensorrt_reads_the_whole_graph(rewritten: RewrittenRtmo) -> None:
    log = RTX.Logger(RTX.Logger.ERROR)
    builder = RTX.Builder(log)
    parsed = builder.create_network(1 << int(RTX.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = RTX.OnnxParser(parsed, log)
    assert parser.parse(rewritten.graph.SerializeToString())
    assert [parsed.get_output(index).name for index in range(parsed.num_outputs)] == ["candidates"]


def _with_opset(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    model.opset_import[0].version = version
    return model


def _with_channels(model: onnx.ModelProto, count: int) -> onnx.ModelProto:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = count
    return model
