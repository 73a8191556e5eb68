"""Read ONNX files that others exported, and write nodes around their graphs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from service.models.errors import CheckpointError
from service.models.graph_builder import MAX_WEIGHT_BYTES

MIN_OPSET = 11


def load_public(path: Path) -> onnx.ModelProto:
    """The model of an .onnx file, or of a .zip that holds one, as mmdeploy packs them.

    Raises:
        CheckpointError: the file cannot be read, holds no or several graphs, or its opset is too old.
    """
    try:
        content = _unzipped(path) if zipfile.is_zipfile(path) else path.read_bytes()
        model = onnx.ModelProto.FromString(content)
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except (DecodeError, zipfile.BadZipFile) as exc:
        raise CheckpointError(f"{path.name} is no ONNX file") from exc
    if not model.graph.node:
        raise CheckpointError(f"{path.name} is no ONNX file")
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise CheckpointError(f"{path.name} keeps its weights in another file; export it as one file")
    opset = opset_of(model)
    if opset < MIN_OPSET:
        raise CheckpointError(f"{path.name} has opset {opset}; export it with {MIN_OPSET} or later")
    return model


def _unzipped(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        graphs = [entry for entry in archive.infolist() if entry.filename.endswith(".onnx")]
        if len(graphs) != 1:
            raise CheckpointError(f"{path.name} holds {len(graphs)} ONNX files instead of one")
        if graphs[0].file_size > MAX_WEIGHT_BYTES:
            raise CheckpointError(f"{path.name} holds an ONNX file of {graphs[0].file_size} bytes, too large")
        return archive.read(graphs[0])


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators in the file; 0 if it names none."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs without the weights, which old exporters list among them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


class Nodes:
    """Nodes being written, in the operators of the file's own opset."""

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self.types = {value.name: value.type.tensor_type.elem_type for value in graph.output}
        self.opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._count = 0
        self.constants: list[TensorProto] = []

    def add(self, op: str, inputs: list[str], *, output: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns the name of that output."""
        self._count += 1
        name = output or f"{op.lower()}_{self._count}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=f"{op}_{self._count}", **attributes))
        return name

    def cast(self, name: str, to: int) -> str:
        """Convert to another element type."""
        return self.add("Cast", [name], to=to)

    def constant(self, value: object, dtype: type[np.generic] = np.float32) -> str:
        """Add a constant to `constants`."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def best(self, scores: str, count: int) -> str:
        """Indices of the `count` largest of (N, M), by falling score: (N, count)."""
        self._count += 1
        outputs = [f"topk_{self._count}_values", f"topk_{self._count}_indices"]
        inputs = [scores, self.constant([count], np.int64)]
        self._nodes.append(
            helper.make_node("TopK", inputs, outputs, name=f"TopK_{self._count}", axis=1, largest=1, sorted=1)
        )
        return outputs[1]

    def unsqueeze(self, name: str) -> str:
        """(N, M) to (N, M, 1)."""
        if self.opset < 13:
            return self.add("Unsqueeze", [name], axes=[2])
        return self.add("Unsqueeze", [name, self.constant([2], np.int64)])

    def taken(self) -> list[onnx.NodeProto]:
        """The nodes so far; the next come into a new list."""
        nodes, self._nodes = self._nodes, []
        return nodes


def shape_of(value: onnx.ValueInfoProto) -> list[int]:
    """Sizes of all axes, 0 where an axis is free."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def listed(values: object) -> str:
    """Names and shapes, for messages."""
    described = [f"{value.name} {shape_of(value)}" for value in values]  # type: ignore[attr-defined]
    return ", ".join(described) or "nothing"
