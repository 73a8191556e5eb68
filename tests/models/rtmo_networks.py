"""ONNX files with exactly the inputs and outputs of RTMO, and the same network in numpy.

Shape of the head and the order of decoding are those of mmpose's RTMO and mmdeploy's export of it; widths are
small and the weights random. NMS and the choice by image follow the export: one NonMaxSuppression over the
batch, whose rows are then sorted by image, with the first candidate where an image has fewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]

SIDE, STRIDE = 640, 64
CELLS = SIDE // STRIDE
KEYPOINTS = 17
POSE, BINS = 16, 24
SCORE, IOU, KEEP = 0.1, 0.65, 50


@dataclass(frozen=True, eq=False)
class Weights:
    """Random weights: of the convolution, and of the classifiers of x and y."""

    conv: Floats  # (C, 3, STRIDE, STRIDE)
    bias: Floats  # (C,)
    x: Floats  # (POSE, K · BINS)
    y: Floats

    @classmethod
    def random(cls, seed: int = 0) -> Weights:
        rng = np.random.default_rng(seed)
        channels = 1 + 4 + KEYPOINTS + POSE
        conv = rng.standard_normal((channels, 3, STRIDE, STRIDE)) / STRIDE / 60
        conv -= conv.mean(axis=(1, 2, 3), keepdims=True)  # a grey border gives what the bias says
        conv[1:5] /= 3  # boxes of about two cells
        bias = np.zeros(channels)
        bias[0] = -3
        bias[3:5] = 0.7
        x, y = (rng.standard_normal((POSE, KEYPOINTS * BINS)) for _ in range(2))
        return cls(*(array.astype(np.float32) for array in (conv, bias, x, y)))


def network(
    weights: Weights | None = None, *, batch: int | str = "batch", told: bool = True, nms: bool = True
) -> onnx.ModelProto:
    """The ONNX file.

    Args:
        told: whether the shapes of the outputs say K.
        nms: False gives every cell, for engines without NonMaxSuppression.
    """
    weights = weights or Weights.random()
    nodes: list[onnx.NodeProto] = []
    constants: list[TensorProto] = []

    def const(value: Any, dtype: Any = np.int64) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, dtype), f"c{len(constants)}"))
        return constants[-1].name

    def node(op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"t{len(nodes)}"
        nodes.append(helper.make_node(op, list(inputs), [name], name=f"n{len(nodes)}", **attributes))
        return name

    def f(value: Any) -> str:
        return const(value, np.float32)

    def part(source: str, start: int, stop: int) -> str:
        return node("Slice", source, const([start]), const([stop]), const([2]))

    maps = node("Conv", "input", f(weights.conv), f(weights.bias), strides=[STRIDE, STRIDE])
    channels = len(weights.bias)
    flat = node("Transpose", node("Reshape", maps, const([0, channels, CELLS**2])), perm=[0, 2, 1])
    scores = node("Sigmoid", part(flat, 0, 1))  # (B, cells, 1)
    visible = node("Sigmoid", part(flat, 5, 5 + KEYPOINTS))
    poses = part(flat, 5 + KEYPOINTS, channels)
    prior = f(priors())
    middle = node("Add", node("Mul", part(flat, 1, 3), f(STRIDE)), prior)
    half = node("Mul", node("Exp", part(flat, 3, 5)), f(STRIDE / 2))
    boxes = node("Concat", node("Sub", middle, half), node("Add", middle, half), axis=2)

    def chosen(source: str) -> str:
        return node("GatherND", source, index, batch_dims=1) if nms else source

    index = _suppressed(node, nodes, const, f, flat, boxes, scores) if nms else ""
    dets = node("Concat", chosen(boxes), chosen(scores), axis=2, output="dets")
    first = node("Slice", dets, const([0]), const([2]), const([2]))
    last = node("Slice", dets, const([2]), const([4]), const([2]))
    centre = node("Mul", node("Add", first, last), f(0.5))
    size = node("Sub", last, first)
    pose = chosen(poses)
    axes = []
    for axis, classifier in enumerate((weights.x, weights.y)):
        logits = node("Reshape", node("MatMul", pose, f(classifier)), const([0, 0, KEYPOINTS, BINS]))
        mean = node("MatMul", node("Softmax", logits, axis=3), f(bins()[:, None]))  # (B, M, K, 1)
        at = [node("Unsqueeze", node("Slice", v, const([axis]), const([axis + 1]), const([2])), const([3]))
              for v in (size, centre)]  # fmt: skip
        axes.append(node("Add", node("Mul", mean, at[0]), at[1]))
    node("Concat", *axes, node("Unsqueeze", chosen(visible), const([3])), axis=3, output="keypoints")

    float32 = TensorProto.FLOAT
    sizes = (5, KEYPOINTS, 3) if told else ("a", "b", "c")
    graph = helper.make_graph(
        nodes,
        "rtmo",
        [helper.make_tensor_value_info("input", float32, [batch, 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("dets", float32, [batch, "persons", sizes[0]]),
            helper.make_tensor_value_info("keypoints", float32, [batch, "persons", sizes[1], sizes[2]]),
        ],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _suppressed(node: Any, nodes: Any, const: Any, f: Any, flat: str, boxes: str, scores: str) -> str:
    """Write NMS and the choice of each image's cells; the name of their indices (B, M, 1)."""
    by_class = node("Transpose", scores, perm=[0, 2, 1])
    kept = node(
        "NonMaxSuppression", boxes, by_class, const([200]), f([IOU]), f([SCORE])
    )  # (M, 3): image, class, cell
    image = node("Gather", kept, const(0), axis=1)
    cell = node("Gather", kept, const(2), axis=1)
    count = node("Gather", node("Shape", flat), const(0))
    numbers = node("Unsqueeze", node("Range", const(0), count, const(1)), const([1]))
    own = node("Equal", node("Unsqueeze", image, const([0])), numbers)  # (B, M)
    cells = node("Where", own, node("Unsqueeze", cell, const([0])), const(0))
    found = node("GatherElements", node("Squeeze", scores, const([2])), cells, axis=1)
    found = node("Where", own, found, f(0))
    cells = node("Pad", cells, const([0, 0, 0, 1]))
    found = node("Pad", found, const([0, 0, 0, 1]))
    limit = node("Min", const([KEEP]), node("Gather", node("Shape", found), const([1]), axis=0))
    nodes.append(helper.make_node("TopK", [found, limit], ["best", "order"], axis=1))
    return str(node("Unsqueeze", node("GatherElements", cells, "order", axis=1), const([2])))


def priors() -> Floats:
    """Middles of the cells, (cells, 2) px."""
    at = (np.arange(CELLS) + 0.5) * STRIDE
    return np.stack(np.meshgrid(at, at), axis=2).reshape(-1, 2).astype(np.float32)


def bins() -> Floats:
    """Positions of the bins in a box, in units of its size from its middle."""
    return np.linspace(-0.75, 0.75, BINS).astype(np.float32)


def persons_on(bgr: NDArray[np.uint8], weights: Weights | None = None) -> NDArray[np.float64]:
    """The answer for one image (640, 640, 3), by numpy: rows (M, 5 + 3K) as in the contract, best first."""
    weights = weights or Weights.random()
    patches = bgr.astype(np.float64).reshape(CELLS, STRIDE, CELLS, STRIDE, 3)
    flat = np.einsum("iajbc,ocab->ijo", patches, weights.conv.astype(np.float64)).reshape(CELLS**2, -1)
    flat += weights.bias
    scores, visible = (1 / (1 + np.exp(-values)) for values in (flat[:, 0], flat[:, 5 : 5 + KEYPOINTS]))
    middle = flat[:, 1:3] * STRIDE + priors()
    size = np.exp(flat[:, 3:5]) * STRIDE
    kept: list[int] = []
    for cell in np.argsort(-scores, kind="stable"):
        if scores[cell] > SCORE and all(_iou(middle, size, cell, other) <= IOU for other in kept):
            kept.append(int(cell))
    kept = kept[:KEEP]
    rows = np.zeros((len(kept), 5 + 3 * KEYPOINTS))
    for row, cell in zip(rows, kept, strict=True):
        row[:5] = (*middle[cell], *size[cell], scores[cell])
        for axis, classifier in enumerate((weights.x, weights.y)):
            logits = (flat[cell, 5 + KEYPOINTS :] @ classifier).reshape(KEYPOINTS, BINS)
            shares = np.exp(logits - logits.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            row[5 + axis :: 3] = shares @ bins() * size[cell, axis] + middle[cell, axis]
        row[7::3] = visible[cell]
    return rows


def persons_in(rows: Floats) -> Floats:
    """Rows above the threshold of the file, without the copies by which an export fills up a batch."""
    above = rows[rows[:, 4] > SCORE]
    _, first = np.unique(above, axis=0, return_index=True)
    return above[np.sort(first)]


def _iou(middle: Any, size: Any, a: int, b: int) -> float:
    low = np.maximum(middle[a] - size[a] / 2, middle[b] - size[b] / 2)
    high = np.minimum(middle[a] + size[a] / 2, middle[b] + size[b] / 2)
    overlap = float(np.prod(np.maximum(high - low, 0)))
    return overlap / (float(np.prod(size[a]) + np.prod(size[b])) - overlap)
