"""Rewrite a public RTMW3D or RTMW ONNX file to the `top_down` tensor contract.

    crops      UINT8 (N, H, W, 3)   RGB; mean and deviation are in the graph
    keypoints  FP32 (N, K, 2)       px of the crop, the peaks of the SimCC axes; NaN where there is no peak
    scores     FP32 (N, K)          the lower of the peaks along x and y, as in mmpose; not a probability
    positions  FP32 (N, K, 3)       x and y NaN, z in metres from the root, away from camera; NaN for RTMW

Inputs and outputs are found by their shapes: the names of public exports differ (`simcc_x`; or `output`,
`1554`). A file exported with a batch of one is freed of it where that can be proved: `batch.free_batch`.

Numbers are those of the models' training (mmpose, Apache-2.0):
`projects/rtmpose3d/rtmpose3d/simcc_3d_label.py` for the third axis, `mmpose/codecs/utils/post_processing.py`
for peaks and scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.models.batch import free_batch
from service.models.checkpoint import sha256_of
from service.models.errors import CheckpointError
from service.models.half import halve_trunk
from service.models.public_graph import Nodes, inputs_of, listed, load_public, opset_of, shape_of
from service.models.repository import (
    QUEUE,
    CpuPrecision,
    check_name,
    check_tenant,
    parameter_lines,
    place_model,
    quoted,
)
from service.models.yolo_graph import Precision

Family = Literal["rtmw3d", "rtmw"]

MEAN = (123.675, 116.28, 103.53)
DEVIATION = (58.395, 57.12, 57.375)
"""Of RGB; the training configurations have `bgr_to_rgb=True`."""

BINS_PER_PX = 2
"""`simcc_split_ratio` of every RTMW and RTMW3D configuration."""

Z_RANGE_M = 2.1744869
"""`z_range` of the RTMW3D configurations: the axis reaches from −2.17 m to +2.17 m about the root."""

MAX_BATCH_SIZE = 8
PREFIX = "network/"
"""Prefix of every name of the public graph, so that the names of the contract are free."""

AXES: dict[Family, int] = {"rtmw3d": 3, "rtmw": 2}


@dataclass(frozen=True)
class Simcc:
    """Input and outputs of a public graph.

    Attributes:
        input: name of the image, float (N, 3, H, W).
        size_hw: of the image.
        axes: names of the outputs along x, y and, for RTMW3D, z.
        depth_bins: along z; 0 for RTMW.
        keypoints: K.
    """

    input: str
    size_hw: tuple[int, int]
    axes: tuple[str, ...]
    depth_bins: int
    keypoints: int


def rewrite(path: Path, family: Family, precision: Precision = "fp32") -> onnx.ModelProto:
    """The graph of a public file, by the contract.

    Args:
        path: an .onnx file, or a .zip with one in it, as mmdeploy packs them.
        family: `rtmw3d`, or `rtmw` for the models in 2D.
        precision: with fp16, the convolutions; norm, attention and decoding stay in fp32.

    Returns:
        Its batch is free if the file's was, or could be freed; else it is 1.

    Raises:
        CheckpointError: the file cannot be read, or is no such model; the message says what it is instead.
    """
    model = load_public(path)
    found = describe(model, family, path.name)
    if _static_batch(model):
        model = free_batch(model) or model
    model = onnx.compose.add_prefix(model, PREFIX)
    found = Simcc(
        PREFIX + found.input,
        found.size_hw,
        tuple(PREFIX + name for name in found.axes),
        found.depth_bins,
        found.keypoints,
    )
    if precision == "fp16":
        halve_trunk(model.graph, found.input, path.name)
    _wrap(model, found)
    model.producer_name = "posegate"
    helper.set_model_props(
        model,
        {"family": family, "source": path.name, "sha256": sha256_of(path), "precision": precision},
    )
    try:
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise CheckpointError(f"{path.name} gives a graph that is not valid: {exc}") from exc
    return model


def family_of(path: Path) -> Family:
    """Which of the two families a public file is of, by its outputs.

    Raises:
        CheckpointError: the file cannot be read, or is of neither.
    """
    model = load_public(path)
    family: Family = "rtmw3d" if len(model.graph.output) == AXES["rtmw3d"] else "rtmw"
    describe(model, family, path.name)
    return family


def add_rtmw(
    repository: Path,
    path: Path,
    *,
    name: str,
    family: Family,
    first_stage: str = "yolo11n_pose",
    skeleton: str = "coco_wholebody_133",
    skeleton_keypoints: int = 133,
    precision: Precision = "fp32",
    cpu_precision: CpuPrecision = "f32",
    licence: str = "Apache-2.0",
    source: str = "",
    tenant: str = "",
    replace: bool = False,
) -> Path:
    """Write a new served model, complete or not at all.

    Args:
        repository: the folder that holds `cpu/`.
        path: see `rewrite`.
        first_stage: the model that finds the persons.
        skeleton_keypoints: how many keypoints the template `skeleton` has.
        precision: of the ONNX file.
        cpu_precision: what OpenVINO computes in.
        licence: of the weights, SPDX; that of the published RTMW models by default.
        source: where they come from.
        tenant: the only one who may use it; empty for everyone.
        replace: a model of this name may be overwritten.

    Returns:
        The model's folder.

    Raises:
        RepositoryError: the name is taken or not allowed.
        CheckpointError: the file cannot be served, or does not fit the skeleton.
    """
    check_name(repository, name, replace=replace)
    check_tenant(tenant)
    model = rewrite(path, family, precision)
    (crops,) = model.graph.input
    batch, height, width, _ = (dim.dim_value for dim in crops.type.tensor_type.shape.dim)
    keypoints = model.graph.output[1].type.tensor_type.shape.dim[1].dim_value
    if keypoints != skeleton_keypoints:
        raise CheckpointError(
            f"{path.name} has {keypoints} keypoints and skeleton {skeleton} has {skeleton_keypoints}"
        )
    parameters = {
        "family": "top_down",
        "first_stage": first_stage,
        "skeleton": skeleton,
        "weights": path.name,
        "licence": licence,
        "source": source or path.name,
        "sha256": sha256_of(path),
        "precision": cpu_precision,
        **({"tenant": tenant} if tenant else {}),
    }
    config = f"""\
name: {quoted(name)}
backend: "openvino"
max_batch_size: {1 if batch == 1 else MAX_BATCH_SIZE}
input {{ name: "crops" data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] }}
output {{ name: "keypoints" data_type: TYPE_FP32 dims: [ {keypoints}, 2 ] }}
output {{ name: "scores" data_type: TYPE_FP32 dims: [ {keypoints} ] }}
output {{ name: "positions" data_type: TYPE_FP32 dims: [ {keypoints}, 3 ] }}
instance_group {{ count: 1 kind: KIND_CPU }}
{parameter_lines(parameters)}
{QUEUE}
"""
    return place_model(repository, name, model, config)


def describe(model: onnx.ModelProto, family: Family, name: str) -> Simcc:
    """Which input is the image and which output is which axis.

    The y axis has two bins for each row of the image, x two for each column. RTMW3D's z has as many bins as
    x (its depth is 288, its width too), so of those two x is the one that comes first.

    Raises:
        CheckpointError: the tensors are not those of the family.
    """
    inputs = inputs_of(model)
    shapes = [shape_of(value) for value in inputs]
    if len(inputs) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3 or min(shapes[0][2:]) < 1:
        raise CheckpointError(f"{name} takes {listed(inputs)}, not one image (N, 3, H, W) of fixed size")
    height, width = shapes[0][2:]
    outputs = [(value.name, shape_of(value)) for value in model.graph.output]
    keypoints = {shape[1] for _, shape in outputs if len(shape) == 3}
    wrong = CheckpointError(
        f"{name} gives {listed(model.graph.output)}; {family} gives {AXES[family]} tensors (N, K, bins), "
        f"{BINS_PER_PX * width} bins along x and {BINS_PER_PX * height} along y"
    )
    if len(outputs) != AXES[family] or len(keypoints) != 1 or any(len(shape) != 3 for _, shape in outputs):
        raise wrong
    remaining = list(outputs)
    axes: list[str] = []
    for size in (height, width) if height != width else (width, height):
        at = next((i for i, (_, shape) in enumerate(remaining) if shape[2] == BINS_PER_PX * size), None)
        if at is None:
            raise wrong
        axes.append(remaining.pop(at)[0])
    y_first = height != width
    x_axis, y_axis = (axes[1], axes[0]) if y_first else (axes[0], axes[1])
    depth_bins = remaining[0][1][2] if remaining else 0
    if remaining and depth_bins < 1:
        raise wrong
    return Simcc(
        input=inputs[0].name,
        size_hw=(height, width),
        axes=(x_axis, y_axis, *(axis for axis, _ in remaining)),
        depth_bins=depth_bins,
        keypoints=keypoints.pop(),
    )


def _wrap(model: onnx.ModelProto, found: Simcc) -> None:
    """Put the step from uint8 rows before the network, and the decoding behind it."""
    graph = model.graph
    height, width = found.size_hw
    graph_input = next(value for value in graph.input if value.name == found.input)
    batch = graph_input.type.tensor_type.shape.dim[0]
    batch_name: str | int = batch.dim_value or "batch"
    input_type = graph_input.type.tensor_type.elem_type
    nodes = Nodes(graph, opset_of(model))

    # TensorRT wants a uint8 input to be cast before anything else.
    planes = nodes.add("Transpose", [nodes.cast("crops", TensorProto.FLOAT)], perm=[0, 3, 1, 2])
    scale, shift = 1 / np.array(DEVIATION), -np.array(MEAN) / np.array(DEVIATION)
    scaled = nodes.add("Mul", [planes, nodes.constant(scale.reshape(1, 3, 1, 1))])
    shifted = nodes.add("Add", [scaled, nodes.constant(shift.reshape(1, 3, 1, 1))])
    before = [*nodes.taken(), helper.make_node("Cast", [shifted], [found.input], to=input_type)]

    peaks = [_peak(nodes, axis) for axis in found.axes]
    score = nodes.add("Min", [peaks[0].height, peaks[1].height], output="scores")
    there = nodes.add("Greater", [score, nodes.constant(0.0)])
    nan = nodes.constant(np.nan)

    def where_there(value: str) -> str:
        return nodes.unsqueeze(nodes.add("Where", [there, value, nan]))

    px = [where_there(nodes.add("Mul", [peak.bin, nodes.constant(1 / BINS_PER_PX)])) for peak in peaks[:2]]
    nodes.add("Concat", px, output="keypoints", axis=2)
    if len(peaks) == 3:
        # bin = 2 · (z / range + 1) · depth / 2, with two bins for each of `depth` steps
        metres = nodes.add("Mul", [peaks[2].bin, nodes.constant(2 * Z_RANGE_M / found.depth_bins)])
        z = where_there(nodes.add("Add", [metres, nodes.constant(-Z_RANGE_M)]))
    else:
        z = nodes.unsqueeze(nodes.add("Add", [score, nan]))
    unknown = nodes.unsqueeze(nodes.add("Add", [score, nan]))
    nodes.add("Concat", [unknown, unknown, z], output="positions", axis=2)

    network = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before, *network, *nodes.taken()])
    graph.initializer.extend(nodes.constants)
    del graph.input[:], graph.output[:], graph.value_info[:]
    float32, k = TensorProto.FLOAT, found.keypoints
    graph.input.append(
        helper.make_tensor_value_info("crops", TensorProto.UINT8, [batch_name, height, width, 3])
    )
    graph.output.extend(
        helper.make_tensor_value_info(name, float32, [batch_name, k, *rest])
        for name, rest in (("keypoints", [2]), ("scores", []), ("positions", [3]))
    )


@dataclass(frozen=True)
class _Peak:
    """The highest bin of an axis, (N, K) float32 both: which it is, and how high."""

    bin: str
    height: str


def _peak(nodes: Nodes, axis: str) -> _Peak:
    if nodes.types.get(axis) != TensorProto.FLOAT:
        axis = nodes.cast(axis, TensorProto.FLOAT)
    best = nodes.add("ArgMax", [axis], axis=2, keepdims=0)
    if nodes.opset < 18:
        height = nodes.add("ReduceMax", [axis], axes=[2], keepdims=0)
    else:
        height = nodes.add("ReduceMax", [axis, nodes.constant([2], np.int64)], keepdims=0)
    return _Peak(nodes.cast(best, TensorProto.FLOAT), height)


def _static_batch(model: onnx.ModelProto) -> bool:
    (graph_input,) = inputs_of(model)
    return bool(graph_input.type.tensor_type.shape.dim[0].dim_value)
