"""`model_repository/gpu/<name>/config.pbtxt`: a model as Triton's TensorRT backend serves it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from service.core.model import Model
from service.models.errors import EngineError, RepositoryError
from service.models.verify import plan_file
from service.triton.model_config import parse_config, read_config

PRECISIONS = ("fp16", "fp32")
MAX_QUEUE_SIZE = 64
QUEUE_TIMEOUT_US = 10_000_000
_TOP_DOWN = ("rtmw", "rtmw3d")  # what service/models/rtmw.py calls its graphs
_ORDER = (
    "family",
    "skeleton",
    "weights",
    "licence",
    "source",
    "sha256",
    "precision",
    "shapes",
    "prepared_shapes",
)
_ONNX_TYPES = {"TYPE_UINT8": 2, "TYPE_FP32": 1}  # TensorProto.DataType in onnx.proto


@dataclass(frozen=True)
class Tensor:
    """An input or output: Triton's name of its type, and its dimensions beside the batch, -1 where any."""

    name: str
    type: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class GpuModel:
    """A TensorRT model of the repository.

    Attributes:
        folder: `<repository>/gpu/<name>`.
        model: what its configuration says to the gateway.
        inputs, outputs: its tensors.
        config: the text of config.pbtxt.
    """

    folder: Path
    model: Model
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    config: str

    def plan_file(self, compute_capability: str) -> str:
        """Which file Triton loads on such a GPU."""
        return plan_file(self.config, compute_capability)


def read_gpu_model(folder: Path) -> GpuModel:
    """Read the configuration of a TensorRT model.

    Raises:
        RepositoryError: there is none, or it is not one that the builder can follow.
    """
    path = folder / "config.pbtxt"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RepositoryError(f"there is no {path}; add the model first: posegate models add") from exc
    try:
        config = parse_config(text)
        model = read_config(config, "1")
    except ValueError as exc:
        raise RepositoryError(f"{path}: {exc}") from exc
    if model is None:
        raise RepositoryError(f"{path} names no family, so what the model gives is not known")
    if "tensorrt" not in (config.backend, config.platform.partition("_")[0]):
        raise RepositoryError(f'{path} is not for TensorRT: it needs platform: "tensorrt_plan"')
    if model.precision not in PRECISIONS:
        raise RepositoryError(
            f"{path} wants precision {model.precision!a}; only {' and '.join(PRECISIONS)} are built "
            "(INT8 is not: it costs pose accuracy, and no calibration ships)"
        )
    return GpuModel(folder, model, _tensors(config.input), _tensors(config.output), text)


def graph_problems(graph: Any, model: GpuModel) -> Iterator[str]:
    """What keeps an ONNX graph (a ModelProto) from being this model, a sentence each."""
    made = {entry.key: entry.value for entry in graph.metadata_props}
    family, precision = made.get("family", ""), made.get("precision", "")
    family = "top_down" if family in _TOP_DOWN else family
    if family and family != model.model.family:
        yield f"it is of family {family}, the configuration says {model.model.family}"
    if precision and precision != model.model.precision:
        yield f"it is {precision}, the configuration says {model.model.precision}"
    weights = {entry.name for entry in graph.graph.initializer}
    inputs = [entry for entry in graph.graph.input if entry.name not in weights]
    sides = ("input", model.inputs, inputs), ("output", model.outputs, list(graph.graph.output))
    for side, wanted, given in sides:
        values = {value.name: value for value in given}
        for tensor in wanted:
            if tensor.name not in values:
                yield f"it has no {side} '{tensor.name}'; there are {', '.join(values) or 'none'}"
            else:
                yield from _tensor_problems(tensor, values[tensor.name].type.tensor_type, side)
        if side == "input" and set(values) - {tensor.name for tensor in wanted}:
            yield f"it has inputs that the configuration does not name: {', '.join(values)}"


def read_graph(data: bytes, where: str) -> Any:
    """The bytes of an ONNX file as a ModelProto.

    Raises:
        EngineError: they are no such thing.
    """
    import onnx

    try:
        graph = onnx.load_from_string(data)
    except DecodeError as exc:
        raise EngineError(f"{where} is no ONNX file") from exc
    if not graph.graph.node:
        raise EngineError(f"{where} is no ONNX file, or has no graph")
    return graph


def gpu_config_from(config: str, precision: str) -> str:
    """The configuration for TensorRT of a model that has one for the CPU.

    Raises:
        RepositoryError: the CPU configuration is not one of ours.
    """
    try:
        given = parse_config(config)
        model = read_config(given, "1")
    except ValueError as exc:
        raise RepositoryError(str(exc)) from exc
    if model is None:
        raise RepositoryError(f"{given.name} names no family, so what the model gives is not known")
    parameters = {key: value.string_value for key, value in given.parameters.items()}
    parameters["precision"] = precision
    parameters.pop("pad_value", None)  # an engine takes every shape from the start
    ordered = sorted(parameters, key=lambda key: (_ORDER.index(key) if key in _ORDER else len(_ORDER), key))
    parameters = {key: parameters[key] for key in ordered}
    return gpu_config_text(model, _tensors(given.input), _tensors(given.output), parameters)


def gpu_config_text(
    model: Model, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], parameters: dict[str, str]
) -> str:
    """The text of `config.pbtxt` for the TensorRT backend.

    There is one instance on every GPU that Triton sees, with one optimisation profile for each typical shape
    and one for all others. Every batch size of every typical shape is run once before the model counts as
    ready.
    """
    lines = [
        f"name: {_quoted(model.name)}",
        'backend: "tensorrt"',
        'platform: "tensorrt_plan"',
        f"max_batch_size: {model.max_batch_size}",
        *(_tensor_line("input", tensor) for tensor in inputs),
        *(_tensor_line("output", tensor) for tensor in outputs),
        "instance_group { count: 1 kind: KIND_GPU profile: [ "
        + ", ".join(f'"{index}"' for index in range(len(model.typical_hw) + bool(model.other_hw)))
        + " ] }",
        *(
            f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
            for key, value in parameters.items()
        ),
        "dynamic_batching {",
        "  default_queue_policy {",
        "    timeout_action: REJECT",
        f"    default_timeout_microseconds: {QUEUE_TIMEOUT_US}",
        "    allow_timeout_override: true",
        f"    max_queue_size: {MAX_QUEUE_SIZE}",
        "  }",
        "}",
    ]
    graph_input = inputs[0]
    lines += [
        f'model_warmup {{ name: "{batch}x{height}x{width}" batch_size: {batch} '
        f"inputs {{ key: {_quoted(graph_input.name)} value {{ data_type: {graph_input.type} "
        f"dims: [ {height}, {width}, 3 ] zero_data: true }} }} }}"
        for height, width in model.typical_hw
        for batch in range(1, model.max_batch_size + 1)
    ]
    return "\n".join(lines) + "\n"


def with_plan_for(config: str, compute_capability: str, file: str) -> str:
    """The configuration with one more entry of `cc_model_filenames`; unchanged if it has this one."""
    if plan_file(config, compute_capability) == file:
        return config
    entry = f'cc_model_filenames {{ key: "{compute_capability}" value: "{file}" }}'
    line = re.compile(rf'^cc_model_filenames {{ key: "{re.escape(compute_capability)}" .*$', re.MULTILINE)
    if line.search(config):
        return line.sub(entry, config)
    return config.rstrip("\n") + f"\n{entry}\n"


def _tensor_problems(wanted: Tensor, given: Any, side: str) -> Iterator[str]:
    if given.elem_type != _ONNX_TYPES.get(wanted.type):
        yield f"its {side} '{wanted.name}' is of another type than {wanted.type}"
    dims = tuple(-1 if axis.dim_param or not axis.dim_value else axis.dim_value for axis in given.shape.dim)
    if not dims or dims[0] != -1:
        yield (
            f"its {side} '{wanted.name}' has a batch fixed to {dims[0] if dims else 'nothing'}: "
            "export it with a first axis of any size"
        )
        return
    fits = len(dims) == len(wanted.dims) + 1 and all(
        -1 in (size, want) or size == want for size, want in zip(dims[1:], wanted.dims, strict=True)
    )
    if not fits:
        yield f"its {side} '{wanted.name}' is {list(dims)}, the configuration says {[-1, *wanted.dims]}"


def _tensors(entries: Any) -> tuple[Tensor, ...]:
    named = []
    for entry in entries:
        kind = entry.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[entry.data_type].name
        named.append(Tensor(entry.name, kind, tuple(int(size) for size in entry.dims)))
    return tuple(named)


def _tensor_line(side: str, tensor: Tensor) -> str:
    dims = ", ".join(map(str, tensor.dims))
    return f"{side} {{ name: {_quoted(tensor.name)} data_type: {tensor.type} dims: [ {dims} ] }}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
