"""Free a graph that was exported with a batch of one.

Exporters write the batch into constants: a network that flattens its feature maps holds `Reshape` to (1, 133,
108), and a larger batch fails in it, or worse. Such constants are replaced, and then it is tried: the outputs
for three different inputs together have to be those for each alone. A graph that fails stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference

Array = NDArray[Any]

TRIED_BATCH = 3
RELATIVE_TOLERANCE = 1e-3
"""Of the largest output: kernels for another batch may add up in another order."""


def free_batch(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy whose first axis is free, proved equal to the original on one input at a time; None if not.

    Args:
        model: one image input; every first axis is 1.
    """
    freed = _patched(model)
    if freed is None or not batch_equals_singles(freed, model):
        return None
    return freed


def batch_equals_singles(freed: onnx.ModelProto, original: onnx.ModelProto) -> bool:
    """Whether `freed` gives for several inputs together what `original` gives for each."""
    (graph_input,) = _inputs(original)
    shape = [dim.dim_value for dim in graph_input.type.tensor_type.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(graph_input.type.tensor_type.elem_type)
    inputs = _patches(TRIED_BATCH, shape[1:]).astype(dtype)
    try:
        together = run(freed, inputs)
    except Exception:
        return False  # whatever an engine has against it, it does not work
    singles = [run(original, inputs[i : i + 1]) for i in range(TRIED_BATCH)]
    for index, found in enumerate(together):
        expected = np.concatenate([single[index] for single in singles])
        if found.shape != expected.shape:
            return False
        error = np.abs(found - expected).max()
        if error > RELATIVE_TOLERANCE * np.abs(expected).max():
            return False
        # Outputs that are all the same would prove nothing: one could stand for another.
        apart = min(np.abs(expected[i] - expected[i - 1]).max() for i in range(TRIED_BATCH))
        if error >= apart / 10:
            return False
    return True


def _patches(count: int, shape: Sequence[int]) -> Array:
    """Different patchworks, each patch larger than a convolution sees noise in."""
    channels, height, width = shape
    coarse = np.random.default_rng(0).standard_normal((count, channels, height // 32 + 1, width // 32 + 1))
    return coarse.repeat(32, axis=2).repeat(32, axis=3)[:, :, :height, :width]


def run(model: onnx.ModelProto, images: Array) -> list[Array]:
    """All outputs for one input, by OpenVINO in float32; without it, by the slow reference of onnx."""
    try:
        import openvino as ov
    except ModuleNotFoundError:
        from onnx.reference import ReferenceEvaluator

        (name,) = (value.name for value in _inputs(model))
        return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, {name: images})]
    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    results = compiled(images)
    return [np.array(results[port]) for port in compiled.outputs]


def _patched(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The graph with a free first axis, as far as shapes tell."""
    shapes = _static_shapes(model)
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    graph = freed.graph
    constants = _constants(graph)
    reached = {value.name for value in _inputs(freed)}
    for node in graph.node:
        if not reached.intersection(node.input):
            continue
        reached.update(node.output)
        if node.op_type == "Reshape" and node.input[1] in constants:
            shape = shapes.get(node.output[0])
            if not shape:
                return None
            # A reshape keeps the order of the values, so the batch is the slowest part of the first axis.
            _give(graph, node, 1, np.array([-1, *shape[1:]], np.int64))
            _forget_attribute(node, "allowzero")
        elif node.op_type == "Resize" and len(node.input) > 3 and node.input[3] in constants:
            before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
            if not before or not after:
                return None
            _give(graph, node, 2, np.array([1, *np.divide(after[1:], before[1:])], np.float32))
            del node.input[3:]
    del graph.value_info[:]
    for value in (*_inputs(freed), *graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        dim.Clear()
        dim.dim_param = "batch"
    return freed


def _static_shapes(model: onnx.ModelProto) -> Mapping[str, Sequence[int]]:
    """Shapes of all tensors that can be inferred, with a batch of one."""
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True)
    except shape_inference.InferenceError:
        return {}
    shapes: dict[str, Sequence[int]] = {}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = [dim.dim_value for dim in dims]
    return shapes


def _constants(graph: onnx.GraphProto) -> set[str]:
    names = {tensor.name for tensor in graph.initializer}
    return names | {node.output[0] for node in graph.node if node.op_type == "Constant"}


def _give(graph: onnx.GraphProto, node: onnx.NodeProto, index: int, value: Array) -> None:
    """Let the node read a constant of its own: others may share the one it had."""
    name = f"{node.output[0]}/freed_{index}"
    graph.initializer.append(numpy_helper.from_array(value, name))
    while len(node.input) <= index:
        node.input.append("")
    node.input[index] = name


def _forget_attribute(node: onnx.NodeProto, name: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]
