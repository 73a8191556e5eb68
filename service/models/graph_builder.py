"""Collect the nodes and weights of an ONNX graph while it is being written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.models.errors import CheckpointError

OPSET = 17
IR_VERSION = 8  # read by OpenVINO, TensorRT and ONNX Runtime of the last years
MAX_WEIGHT_BYTES = 1_900_000_000  # protobuf ends at 2 GB; YOLOv8x-pose-p6 in fp32 has 0.4 GB
MAX_NODES = 10_000  # YOLO11x-pose needs about 500


@dataclass(frozen=True)
class Feature:
    """A feature map in the graph: the tensor's name, (N, channels, h, w)."""

    name: str
    channels: int


class GraphBuilder:
    """Nodes and weights so far. `half` says whether weights and arithmetic are float16."""

    def __init__(self, *, half: bool) -> None:
        self.half = half
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self._weight_bytes = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._used: set[str] = set()

    @property
    def float_type(self) -> int:
        """The ONNX type of the network's arithmetic."""
        return int(TensorProto.FLOAT16 if self.half else TensorProto.FLOAT)

    def node(self, op: str, inputs: Sequence[str], where: str, **attributes: Any) -> str:
        """Add a node with one output; returns its name, made of `where` and the operator."""
        return self.nodes_out(op, inputs, where, 1, **attributes)[0]

    def nodes_out(
        self, op: str, inputs: Sequence[str], where: str, count: int, **attributes: Any
    ) -> list[str]:
        """Add a node with `count` outputs."""
        if len(self.nodes) >= MAX_NODES:
            raise CheckpointError(f"the model has more than {MAX_NODES} operations; it is no YOLO pose model")
        name = self._unique(f"{where}/{op}")
        outputs = [name] if count == 1 else [f"{name}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attributes))
        return outputs

    def weight(self, array: npt.NDArray[Any], where: str) -> str:
        """Add a weight in the network's own float type."""
        if self.half:
            if array.size and float(np.abs(array).max()) > np.finfo(np.float16).max:
                raise CheckpointError(f"weights of {where} exceed fp16; choose precision fp32")
            array = array.astype(np.float16)
        else:
            array = array.astype(np.float32)
        self._weight_bytes += array.nbytes
        if self._weight_bytes > MAX_WEIGHT_BYTES:
            raise CheckpointError("the weights exceed the 2 GB of an ONNX file; it is no YOLO pose model")
        name = self._unique(where)
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def constant(self, value: Any, dtype: npt.DTypeLike) -> str:
        """A small constant, shared by all who ask for the same value."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._unique(f"constant_{len(self._constants)}")
            self.weights.append(numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def scalar(self, value: float) -> str:
        """A constant of the network's own float type."""
        return self.constant(value, np.float16 if self.half else np.float32)

    def _unique(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self._used:
            count += 1
            candidate = f"{name}_{count}"
        self._used.add(candidate)
        return candidate
