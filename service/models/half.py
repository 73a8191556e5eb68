"""Compute the convolutions of a graph in float16, and everything behind the last of them in float32.

RTMW and RTMW3D end in norms, attention and dense layers whose squares and sums overflow float16: fingers bend
that should not, and points go astray. They are a small part of the work, so they stay as they are.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.models.errors import CheckpointError

TRUNK = frozenset(
    (
        "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "DepthToSpace", "Dropout",
        "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mul", "Relu",
        "Resize", "Sigmoid", "Slice", "Split", "Transpose",
    )
)  # fmt: skip
"""What may lie on the way to a convolution."""

KEPT_INPUTS = {"Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,)}
"""Inputs that are no feature maps, and have types of their own."""

LARGEST = float(np.finfo(np.float16).max)


def halve_trunk(graph: onnx.GraphProto, graph_input: str, name: str) -> None:
    """Change a graph in place.

    Args:
        graph: in float32; nodes in order.
        graph_input: name of the input tensor, which stays float32.
        name: of the file, for messages.

    Raises:
        CheckpointError: a weight of a convolution does not fit into float16.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    half_nodes = _trunk(graph, graph_input, weights)
    half_tensors: set[str] = set()
    halved: dict[str, str] = {}  # float32 name -> its copy in float16
    restored: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for index, node in enumerate(graph.node):
        for i, source in enumerate(node.input):
            if not source or (index in half_nodes and i in KEPT_INPUTS.get(node.op_type, ())):
                continue
            if index in half_nodes and source not in half_tensors:
                if source not in halved:
                    halved[source] = _halve(graph, nodes, source, weights, name)
                node.input[i] = halved[source]
            elif index not in half_nodes and source in half_tensors:
                if source not in restored:
                    restored[source] = f"{source}/float"
                    nodes.append(helper.make_node("Cast", [source], [restored[source]], to=TensorProto.FLOAT))
                node.input[i] = restored[source]
        nodes.append(node)
        if index in half_nodes:
            half_tensors.update(node.output)
    for value in graph.output:
        if value.name in half_tensors:
            raise CheckpointError(f"{name} ends in a convolution; it is no RTMW model")
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    used = {source for node in graph.node for source in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _trunk(graph: onnx.GraphProto, graph_input: str, weights: dict[str, TensorProto]) -> set[int]:
    """Places of the nodes on the way from the image to a convolution, all of them of a kind in `TRUNK`."""
    maps = {graph_input}
    allowed: set[int] = set()
    for index, node in enumerate(graph.node):
        kept = KEPT_INPUTS.get(node.op_type, ())
        sources = [source for i, source in enumerate(node.input) if source and i not in kept]
        floats = all(s in maps or weights.get(s, _NONE).data_type == TensorProto.FLOAT for s in sources)
        if node.op_type in TRUNK and floats and maps.intersection(sources):
            allowed.add(index)
            maps.update(node.output)
    wanted: set[str] = set()
    chosen: set[int] = set()
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if index in allowed and (node.op_type == "Conv" or wanted.intersection(node.output)):
            chosen.add(index)
            wanted.update(node.input)
    return chosen


_NONE = TensorProto()


def _halve(
    graph: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
    source: str,
    weights: dict[str, TensorProto],
    name: str,
) -> str:
    copy = f"{source}/half"
    if source not in weights:
        nodes.append(helper.make_node("Cast", [source], [copy], to=TensorProto.FLOAT16))
        return copy
    array = numpy_helper.to_array(weights[source])
    if array.size and float(np.abs(array).max()) > LARGEST:
        raise CheckpointError(f"{name}: weights {source} exceed fp16; choose precision fp32")
    graph.initializer.append(numpy_helper.from_array(array.astype(np.float16), copy))
    return copy
