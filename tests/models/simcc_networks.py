"""ONNX files with exactly the inputs and outputs of RTMW3D and RTMW, made as exporters make them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]

HEIGHT, WIDTH = 384, 288
KEYPOINTS = 133
X_BINS, Y_BINS, Z_BINS = 576, 768, 576
NAMES_3D = ("output", "1554", "1556")  # of the one public export of RTMW3D
NAMES_2D = ("simcc_x", "simcc_y")

MEAN = np.array([123.675, 116.28, 103.53])
DEVIATION = np.array([58.395, 57.12, 57.375])


def reader(
    sizes: Sequence[int] = (X_BINS, Y_BINS, Z_BINS),
    names: Sequence[str] = NAMES_3D,
    *,
    batch: int | str = 1,
    opset: int = 17,
    keypoints: int = KEYPOINTS,
) -> onnx.ModelProto:
    """A network that reads its answer off the picture: axis after axis, keypoint after keypoint.

    So a test can say where every peak is; see `picture_of`.
    """
    graph = Graph(opset)
    flat = graph.node("Reshape", ["input", graph.constant(np.array([1, -1], np.int64))])
    start = 0
    for size, name in zip(sizes, names, strict=True):
        stop = start + keypoints * size
        bounds = [graph.constant(np.array([at], np.int64)) for at in (start, stop, 1)]
        part = graph.node("Slice", [flat, *bounds])
        shape = graph.constant(np.array([1, keypoints, size], np.int64))
        graph.node("Reshape", [part, shape], output=name)
        start = stop
    return graph.model(batch, [(name, [keypoints, size]) for name, size in zip(names, sizes, strict=True)])


def picture_of(
    bins: Sequence[NDArray[np.integer[Any]]], sizes: Sequence[int], heights: int = 255
) -> NDArray[np.uint8]:
    """The image (H, W, 3) on which `reader` finds its peaks at `bins`, (K,) for each axis."""
    planes = np.zeros(3 * HEIGHT * WIDTH, np.uint8)
    start = 0
    for found, size in zip(bins, sizes, strict=True):
        planes[start + np.arange(len(found)) * size + found] = heights
        start += len(found) * size
    return np.ascontiguousarray(planes.reshape(3, HEIGHT, WIDTH).transpose(1, 2, 0))


def values_on(picture: NDArray[np.uint8], sizes: Sequence[int], keypoints: int = KEYPOINTS) -> list[Floats]:
    """What `reader` gives for a picture: (K, bins) for each axis, by numpy."""
    planes = ((picture - MEAN) / DEVIATION).astype(np.float32).transpose(2, 0, 1).ravel()
    bounds = np.cumsum([0, *(keypoints * size for size in sizes)])
    return [planes[a:b].reshape(keypoints, -1) for a, b in pairwise(bounds)]


def network(
    *, batch: int | str = 1, opset: int = 17, seed: int = 0, three: bool = True, spoil: str = ""
) -> onnx.ModelProto:
    """A small network of RTMW3D's make: convolutions, upsampling, norm, attention, a dense layer per axis.

    Shapes are in constants with a batch of one, as exporters write them.

    Args:
        spoil: "squeeze" drops the batch axis on the way, "mix" lets the batch run into another axis.
    """
    rng = np.random.default_rng(seed)
    graph = Graph(opset)

    def weight(*shape: int) -> str:
        return graph.constant((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))

    def shape(*dims: int) -> str:
        return graph.constant(np.array(dims, np.int64))

    bias = graph.constant(rng.standard_normal(8).astype(np.float32))
    stem = graph.node("Conv", ["input", weight(8, 3, 32, 32), bias], strides=[32, 32])  # (1, 8, 12, 9)
    act = graph.node("Mul", [stem, graph.node("Sigmoid", [stem])])
    deep = graph.node("Conv", [act, weight(8, 8, 3, 3)], strides=[2, 2], pads=[1, 1, 1, 1])  # (1, 8, 6, 5)
    pooled = graph.node("Conv", [graph.node("GlobalAveragePool", [deep]), weight(8, 8, 1, 1)])
    deep = graph.node("Mul", [deep, graph.node("HardSigmoid", [pooled])])
    up = graph.node(
        "Resize",
        [deep, "", "", shape(1, 8, 12, 10)],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
    )
    up = graph.node("Slice", [up, shape(0), shape(9), shape(3)])
    merged = graph.node("Concat", [act, up], axis=1)  # (1, 16, 12, 9)
    maps = graph.node("Conv", [merged, weight(KEYPOINTS, 16, 1, 1)])
    flat = graph.node("Reshape", [maps, shape(1, KEYPOINTS, 108)])
    norm = graph.node("Sqrt", [graph.reduce("ReduceSum", graph.node("Mul", [flat, flat]), 2)])
    flat = graph.node("Div", [flat, graph.node("Add", [norm, graph.constant(np.float32(1e-5))])])
    rows = graph.node("Reshape", [flat, shape(KEYPOINTS, 108)])  # as Gemm wants them
    dense = graph.node("Gemm", [rows, weight(108, 64)])
    tokens = graph.node("Reshape", [dense, shape(1, KEYPOINTS, 64)])
    if spoil == "squeeze":
        tokens = graph.node("Squeeze", [tokens, shape(0)])
        tokens = graph.node("Unsqueeze", [tokens, shape(0)])
    if spoil == "mix":
        tokens = graph.node("Transpose", [tokens], perm=[1, 0, 2])
        tokens = graph.node("Reshape", [tokens, shape(1, KEYPOINTS, 64)])
    keys = graph.node("Transpose", [tokens], perm=[0, 2, 1])
    attention = graph.node("Softmax", [graph.node("MatMul", [tokens, keys])], axis=-1)
    mixed = graph.node("Add", [tokens, graph.node("MatMul", [attention, tokens])])
    axes = (
        list(zip(NAMES_3D, (X_BINS, Y_BINS, Z_BINS), strict=True))
        if three
        else list(zip(NAMES_2D, (X_BINS, Y_BINS), strict=True))
    )
    for name, size in axes:
        graph.node("MatMul", [mixed, weight(64, size)], output=name)
    return graph.model(batch, [(name, [KEYPOINTS, size]) for name, size in axes])


class Graph:
    """An ONNX graph that is being written, without copies: its weights may have hundreds of megabytes."""

    def __init__(self, opset: int) -> None:
        self._opset = opset
        empty = helper.make_graph([], "rtmw", [], [])
        self._model = helper.make_model(empty, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)

    def node(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        nodes = self._model.graph.node
        name = output or f"{op}_{len(nodes)}_output"
        nodes.append(helper.make_node(op, list(inputs), [name], name=f"{op}_{len(nodes)}", **attributes))
        return name

    def reduce(self, op: str, source: str, axis: int) -> str:
        if self._opset < 13:
            return self.node(op, [source], axes=[axis], keepdims=1)
        return self.node(op, [source, self.constant(np.array([axis], np.int64))], keepdims=1)

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        weights = self._model.graph.initializer
        name = f"onnx::constant_{len(weights)}"
        weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def model(self, batch: int | str, outputs: Sequence[tuple[str, Sequence[int]]]) -> onnx.ModelProto:
        float32, graph = TensorProto.FLOAT, self._model.graph
        graph.input.append(helper.make_tensor_value_info("input", float32, [batch, 3, HEIGHT, WIDTH]))
        graph.output.extend(
            helper.make_tensor_value_info(name, float32, [batch, *shape]) for name, shape in outputs
        )
        return self._model
