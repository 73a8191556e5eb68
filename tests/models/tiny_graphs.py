"""Small graphs that keep the tensor contract, for tests of what is done with graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def top_down_graph(
    keypoints: int = 133, height: int = 384, width: int = 288, batch: str | int = "batch", extra: str = ""
) -> bytes:
    """A `top_down` model: constant keypoints, moved by the mean of the crop.

    Args:
        batch: the first axis of the input; a number fixes it.
        extra: the operator of one more node, which nobody reads.
    """
    rng = np.random.default_rng(0)
    weights: dict[str, NDArray[Any]] = {
        "xy": rng.uniform(10, 200, (1, keypoints, 2)).astype(np.float32),
        "score": np.ones((1, keypoints), np.float32),
        "xyz": rng.uniform(-1, 1, (1, keypoints, 3)).astype(np.float32),
        "thousandth": np.array(0.001, np.float32),
        "axes": np.array([1, 2, 3], np.int64),
        "column": np.array([1], np.int64),
        "matrix": np.array([1, 2], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["crops"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["mean4"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean4", "thousandth"], ["mean"]),
        helper.make_node("Unsqueeze", ["mean", "column"], ["mean2"]),
        helper.make_node("Unsqueeze", ["mean", "matrix"], ["mean3"]),
        helper.make_node("Add", ["mean3", "xy"], ["keypoints"]),
        helper.make_node("Add", ["mean2", "score"], ["scores"]),
        helper.make_node("Add", ["mean3", "xyz"], ["positions"]),
    ]
    if extra:
        nodes.append(helper.make_node(extra, ["real"], ["unused"], name="the_odd_one"))
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "top_down",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, [batch, height, width, 3])],
        [
            helper.make_tensor_value_info("keypoints", kind, ["batch", keypoints, 2]),
            helper.make_tensor_value_info("scores", kind, ["batch", keypoints]),
            helper.make_tensor_value_info("positions", kind, ["batch", keypoints, 3]),
            *([helper.make_tensor_value_info("unused", kind, None)] if extra else []),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, {"family": "top_down", "precision": "fp32", "sha256": "ab" * 32})
    return bytes(model.SerializeToString())


def metadata(graph: bytes) -> dict[str, str]:
    """What a graph says of itself."""
    return {entry.key: entry.value for entry in onnx.load_from_string(graph).metadata_props}
