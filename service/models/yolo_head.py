"""The pose head: raw maps of every level in, the best candidates out, decoded.

Scores come first: the best 1000 cells are chosen on the class logits, and only their rows are gathered and
decoded. Everything after the gather is float32 in every precision and free of Conv and MatMul, so OpenVINO
keeps it in float32 also when it runs the network in bf16.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from service.models.checkpoint import Module
from service.models.graph_builder import Feature, GraphBuilder
from service.models.yolo_layers import LayerWriter

CANDIDATES = 1000
# The logit of a row that is not there: under every real one, and finite in float16 as well.
ABSENT_LOGIT = -60_000.0


@dataclass(frozen=True)
class HeadShape:
    """The head's numbers: `values` of a keypoint are 2 (x, y) or 3 (and score), `bins` those of a side."""

    keypoints: int
    values: int
    classes: int
    bins: int
    strides: tuple[int, ...]


def head_shape(head: Module, kpt_shape: tuple[int, int]) -> HeadShape:
    """Read the head's numbers and refuse heads that decode otherwise.

    Raises:
        CheckpointError: not the pose head of YOLOv8 or YOLO11.
    """
    if head.name != "ultralytics.nn.modules.head.Pose":
        raise head.error(f"is not supported: {head.name} is not the pose head of YOLOv8 or YOLO11")
    if head.has("one2one_cv2"):
        raise head.error("is not supported: it has the second, one-to-one head of YOLO26")
    strides = head.tensor("stride")
    whole = strides.astype(np.int64)
    if strides.ndim != 1 or not 1 <= strides.size <= 5 or (whole != strides).any() or (whole < 1).any():
        raise head.error("has no usable strides; train it for at least one epoch")
    classes, bins = head.get("nc", int), head.get("reg_max", int)
    if not 1 <= classes <= 10_000 or not 2 <= bins <= 256:
        raise head.error(f"has {classes} classes and {bins} box bins, which is not supported")
    if head.ints("kpt_shape") != kpt_shape:
        raise head.error(f"has another kpt_shape than its model ({list(kpt_shape)})")
    return HeadShape(*kpt_shape, classes, bins, tuple(int(s) for s in whole))


def write_head(head: Module, levels: list[Feature], shape: HeadShape, writer: LayerWriter) -> None:
    """Write the head's convolutions, the choice of the best cells and their decoding to `candidates`."""
    graph = writer.graph
    if len(levels) != len(shape.strides):
        raise head.error(f"reads {len(levels)} levels and has {len(shape.strides)} strides")
    wanted = [4 * shape.bins, shape.classes, shape.keypoints * shape.values]
    row_maps, score_maps = [], []
    for level, feature in enumerate(levels):
        branches = (head.child(name).child(str(level)) for name in ("cv2", "cv3", "cv4"))
        box, score, points = (writer.write(branch, feature) for branch in branches)
        channels = [box.channels, score.channels, points.channels]
        if channels != wanted:
            raise head.error(f"gives {channels} channels instead of {wanted}")
        row_maps.append(writer.concat([box, points], head.path).name)
        score_maps.append(score.name)
    logits = _logits(graph, score_maps, shape)
    rows = _rows(graph, row_maps, shape)
    cells = _Cells.of(graph, row_maps, len(shape.strides))
    logit, index = _best(graph, logits)
    _decode(graph, rows, logit, index, cells, shape)


@dataclass(frozen=True)
class _Cells:
    """Where every level's cells lie in the row of all cells: names of int64 scalars in the graph."""

    starts: list[str]
    widths: list[str]
    total: str

    @classmethod
    def of(cls, graph: GraphBuilder, maps: list[str], levels: int) -> _Cells:
        starts, widths, total = [graph.constant(0, np.int64)], [], ""
        for index in range(levels):
            size = graph.node("Shape", [maps[index]], "cells")
            height, width = (
                graph.node("Gather", [size, graph.constant(axis, np.int64)], "cells") for axis in (2, 3)
            )
            count = graph.node("Mul", [height, width], "cells")
            total = graph.node("Add", [total, count], "cells") if total else count
            widths.append(width)
            starts.append(total)
        return cls(starts[:-1], widths, total)


def _logits(graph: GraphBuilder, maps: list[str], shape: HeadShape) -> str:
    """The best class logit of every cell, float32 (N, cells)."""
    flat = graph.constant([0, -1], np.int64)
    parts = []
    for name in maps:
        if shape.classes > 1:
            name = graph.node("ReduceMax", [name], "logits", axes=[1], keepdims=0)
        parts.append(graph.node("Reshape", [name, flat], "logits"))
    name = graph.node("Concat", parts, "logits", axis=1)
    return _float32(graph, name, "logits")


def _rows(graph: GraphBuilder, maps: list[str], shape: HeadShape) -> str:
    """Raw box and keypoint values of every cell: (N, cells, 4 bins + K values)."""
    row_shape = graph.constant([0, -1, 4 * shape.bins + shape.keypoints * shape.values], np.int64)
    parts = []
    for name in maps:
        name = graph.node("Transpose", [name], "rows", perm=[0, 2, 3, 1])
        parts.append(graph.node("Reshape", [name, row_shape], "rows"))
    return graph.node("Concat", parts, "rows", axis=1)


def _best(graph: GraphBuilder, logits: str) -> tuple[str, str]:
    """Logit and index of the best cells, sorted: (N, 1000) each. An index past the last cell is absent."""
    absent = graph.constant(ABSENT_LOGIT, np.float32)
    padded = graph.node("Pad", [logits, graph.constant([0, 0, 0, CANDIDATES], np.int64), absent], "best")
    count = graph.constant([CANDIDATES], np.int64)
    logit, index = graph.nodes_out("TopK", [padded, count], "best", 2, axis=1, largest=1, sorted=1)
    return logit, index


def _decode(graph: GraphBuilder, rows: str, logit: str, index: str, cells: _Cells, shape: HeadShape) -> None:
    def node(op: str, *inputs: str, **attributes: object) -> str:
        return graph.node(op, inputs, "decode", **attributes)

    def ints(*values: int) -> str:
        return graph.constant(values, np.int64)

    def number(value: float) -> str:
        return graph.constant(value, np.float32)

    present = node("Less", index, cells.total)
    index = node("Min", index, node("Sub", cells.total, graph.constant(1, np.int64)))
    rows = node("GatherND", rows, node("Unsqueeze", index, ints(-1)), batch_dims=1)
    rows = _float32(graph, rows, "decode")  # (N, 1000, 4 bins + K values)

    start, width, stride = cells.starts[0], cells.widths[0], number(shape.strides[0])
    for level in range(1, len(shape.strides)):
        here = node("GreaterOrEqual", index, cells.starts[level])
        start = node("Where", here, cells.starts[level], start)
        width = node("Where", here, cells.widths[level], width)
        stride = node("Where", here, number(shape.strides[level]), stride)
    if len(shape.strides) > 1:
        stride = node("Unsqueeze", stride, ints(-1))  # (N, 1000, 1)
    local = node("Sub", index, start)
    row = node("Div", local, width)
    column = node("Sub", local, node("Mul", row, width))
    corner = node("Concat", node("Unsqueeze", column, ints(-1)), node("Unsqueeze", row, ints(-1)), axis=2)
    corner = node("Cast", corner, to=TensorProto.FLOAT)  # (N, 1000, 2): x, y of the cell in cells
    centre = node("Add", corner, number(0.5))

    box_width, point_width = 4 * shape.bins, shape.keypoints * shape.values
    box, points = graph.nodes_out("Split", [rows, ints(box_width, point_width)], "decode", 2, axis=2)

    # A side's distance is the mean of a distribution over bins (distribution focal loss, arXiv:2006.04388).
    box = node("Softmax", node("Reshape", box, ints(0, 0, 4, shape.bins)), axis=3)
    box = node("Mul", box, graph.constant(np.arange(shape.bins), np.float32))
    box = node("ReduceSum", box, ints(3), keepdims=0)  # (N, 1000, 4): left, top, right, bottom in cells
    low, high = graph.nodes_out("Split", [box, ints(2, 2)], "decode", 2, axis=2)
    middle = node("Add", centre, node("Mul", node("Sub", high, low), number(0.5)))
    box = node("Mul", node("Concat", middle, node("Add", low, high), axis=2), stride)  # cx, cy, w, h in px

    points = node("Reshape", points, ints(0, 0, shape.keypoints, shape.values))
    xy, rest = points, ""
    if shape.values == 3:
        xy, rest = graph.nodes_out("Split", [points, ints(2, 1)], "decode", 2, axis=3)
    xy = node("Add", node("Mul", xy, number(2.0)), node("Unsqueeze", corner, ints(2)))
    xy = node("Mul", xy, node("Unsqueeze", stride, ints(-1)) if len(shape.strides) > 1 else stride)
    if rest:
        points = node("Concat", xy, node("Sigmoid", rest), axis=3)
    else:  # a model that gives no keypoint score: 1
        points = node("Pad", xy, ints(0, 0, 0, 0, 0, 0, 0, 1), number(1.0))
    points = node("Reshape", points, ints(0, 0, 3 * shape.keypoints))

    score = node("Unsqueeze", node("Sigmoid", logit), ints(-1))
    candidates = node("Concat", box, score, points, axis=2)
    candidates = node("Where", node("Unsqueeze", present, ints(-1)), candidates, number(0.0))
    graph.nodes[-1].output[0] = "candidates"


def _float32(graph: GraphBuilder, name: str, where: str) -> str:
    return graph.node("Cast", [name], where, to=TensorProto.FLOAT) if graph.half else name
