"""Model repositories of a few bytes, for tests that need a real Triton but no real weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parent.parent.parent
RUNTIME = ROOT / ".posegate" / "triton"
BACKENDS = ROOT / "model_repository" / "backends"


def mean_colour() -> onnx.ModelProto:
    """`images` UINT8 [N, H, W, 3] → `means` FP32 [N, 3], as free in N, H and W as a pose graph."""
    return _graph(
        [
            helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], ["means"], keepdims=0),
        ],
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("means", TensorProto.FLOAT, ["N", 3])],
        {"axes": np.array([1, 2], np.int64)},
    )


def arithmetic(batch: Sequence[str | int] = ("N",)) -> onnx.ModelProto:
    """`a` FP32 [4] and `b` INT32 [4] → `sum` FP32 [4] and `double` INT32 [4]."""
    return _graph(
        [
            helper.make_node("Cast", ["b"], ["b_float"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["a", "b_float"], ["sum"]),
            helper.make_node("Add", ["b", "b"], ["double"]),
        ],
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [*batch, 4]),
            helper.make_tensor_value_info("b", TensorProto.INT32, [*batch, 4]),
        ],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [*batch, 4]),
            helper.make_tensor_value_info("double", TensorProto.INT32, [*batch, 4]),
        ],
        {},
    )


def matrix_product(matrix: NDArray[np.float32]) -> onnx.ModelProto:
    """`x` FP32 [N, K] → `y` FP32 [N, M]: enough arithmetic for a precision to show."""
    rows, columns = matrix.shape
    return _graph(
        [helper.make_node("MatMul", ["x", "matrix"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", columns])],
        {"matrix": matrix},
    )


def write_model(repository: Path, name: str, graph: onnx.ModelProto | bytes, config: str) -> None:
    """Put a model into a repository. The backend is added to `config`."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    content = graph if isinstance(graph, bytes) else graph.SerializeToString()
    (version / "model.onnx").write_bytes(content)
    text = f'backend: "openvino"\ninstance_group {{ count: 1 kind: KIND_CPU }}\n{config}'
    (repository / name / "config.pbtxt").write_text(text, encoding="utf-8")


def mean_colour_config(shapes: str, extra: str = "") -> str:
    """The `config.pbtxt` of `mean_colour`."""
    return f"""\
max_batch_size: 8
input {{ name: "images" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] allow_ragged_batch: true }}
output {{ name: "means" data_type: TYPE_FP32 dims: [ 3 ] }}
parameters {{ key: "shapes" value {{ string_value: "{shapes}" }} }}
{extra}"""


def _graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: dict[str, NDArray[np.generic]],
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
