"""`config.pbtxt`, read and checked. What may stand in it is said in `model.py`, one folder up."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphs.machine import cpus_available
from graphs.shapes import ItemShapes, Shape, fill, format_shape

PRECISIONS = ("f32", "bf16")

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "TYPE_BOOL": np.dtype(np.bool_),
    "TYPE_UINT8": np.dtype(np.uint8),
    "TYPE_UINT16": np.dtype(np.uint16),
    "TYPE_UINT32": np.dtype(np.uint32),
    "TYPE_UINT64": np.dtype(np.uint64),
    "TYPE_INT8": np.dtype(np.int8),
    "TYPE_INT16": np.dtype(np.int16),
    "TYPE_INT32": np.dtype(np.int32),
    "TYPE_INT64": np.dtype(np.int64),
    "TYPE_FP16": np.dtype(np.float16),
    "TYPE_FP32": np.dtype(np.float32),
    "TYPE_FP64": np.dtype(np.float64),
}


class ConfigError(Exception):
    """The model's files cannot be served; the text says what to change."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output as `config.pbtxt` declares it, without the batch axis."""

    name: str
    dtype: np.dtype[Any]
    dims: Shape  # -1: free


@dataclass(frozen=True)
class Config:
    """The checked contents of `config.pbtxt`."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool
    shapes: tuple[Shape, ...]  # values for the free dims; (()) when none is free
    prepared: tuple[Shape, ...]  # those that are compiled at the start; the first before the model is ready
    prepare_all: bool  # before the model is ready
    pad_value: int | None
    max_compiled: int
    precision: str
    threads: int
    streams: int

    @property
    def at_once(self) -> int:
        """Items that OpenVINO has at the same time: one waits in it while all streams are at work."""
        return self.streams + 1 if self.streams > 1 else 1

    def item_shapes(self, shape: Shape) -> ItemShapes:
        """The shape of one item of every input, when the free dims are `shape`."""
        return tuple(fill(spec.dims, shape) for spec in self.inputs)


def read_config(config: Mapping[str, Any]) -> Config:
    """Read and check `config.pbtxt` as Triton passes it.

    Raises:
        ConfigError: something in it cannot be served.
    """
    parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
    inputs = tuple(map(read_spec, config["input"]))
    precision = parameters.get("precision", PRECISIONS[0])
    if precision not in PRECISIONS:
        raise ConfigError(f"parameter precision is {precision!r}, not one of {', '.join(PRECISIONS)}")
    threads = whole_number(
        "threads",
        parameters.get("threads") or os.environ.get("POSEGATE_CPU_THREADS") or str(cpus_available()),
    )
    streams = whole_number("streams", parameters.get("streams", "2"))
    shapes = read_shapes(parameters.get("shapes", ""), inputs)
    prepared = shapes
    if "prepared_shapes" in parameters:
        prepared = read_shapes(parameters["prepared_shapes"], inputs)
        if strange := [format_shape(shape) for shape in prepared if shape not in shapes]:
            raise ConfigError(f"parameter prepared_shapes has {', '.join(strange)}, which shapes has not")
    pad_value = parameters.get("pad_value")
    if pad_value is not None and not pad_value.isdecimal():
        raise ConfigError(f"parameter pad_value is {pad_value!r}, not a whole number")
    max_compiled = whole_number("max_compiled", parameters.get("max_compiled", "10"))
    if max_compiled < len(prepared) and prepared != shapes:
        raise ConfigError(f"parameter max_compiled is {max_compiled}, less than the {len(prepared)} prepared")
    batched = config["max_batch_size"] > 0
    return Config(
        inputs=inputs,
        outputs=tuple(map(read_spec, config["output"])),
        batched=batched,
        shapes=shapes,
        prepared=prepared,
        prepare_all=_prepare_all(named="prepared_shapes" in parameters),
        pad_value=int(pad_value) if pad_value is not None else None,
        max_compiled=max(max_compiled, len(prepared)),
        precision=precision,
        threads=threads,
        streams=min(streams, threads) if batched else 1,
    )


def _prepare_all(*, named: bool) -> bool:
    """Whether all prepared shapes are compiled before the model is ready; `named`: the model names them."""
    if os.environ.get("POSEGATE_PREPARE_SHAPES") == "all":
        return True
    # After a crash they have been compiled before, and callers wait.
    return not named and not os.environ.get("POSEGATE_RESTARTED")


def whole_number(name: str, text: str) -> int:
    """A whole number above 0.

    Raises:
        ConfigError: it is not.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"the number of {name} is {text!r}, not a whole number above 0")
    return int(text)


def read_spec(tensor: Mapping[str, Any]) -> TensorSpec:
    """One input or output of `config.pbtxt`.

    Raises:
        ConfigError: it does not hold numbers.
    """
    dtype = _DTYPES.get(tensor["data_type"])
    if dtype is None:
        raise ConfigError(f"{tensor['name']} is of {tensor['data_type']}; only numbers are served")
    return TensorSpec(tensor["name"], dtype, tuple(int(dim) for dim in tensor["dims"]))


def read_shapes(text: str, inputs: Sequence[TensorSpec]) -> tuple[Shape, ...]:
    """The allowed values of the free dims: "384x640,480x640" is ((384, 640), (480, 640)).

    Raises:
        ConfigError: they do not fit the free dims.
    """
    free = {spec.dims.count(-1) for spec in inputs} - {0}
    if not free:
        if text:
            raise ConfigError("parameter shapes is set, but no input has a free dim")
        return ((),)
    if not text:
        raise ConfigError("an input has free dims (-1): parameter shapes must list them, as in '384x640'")
    try:
        shapes = tuple(tuple(int(size) for size in shape.split("x")) for shape in text.split(","))
    except ValueError:
        raise ConfigError(f"parameter shapes is {text!r}, not like '384x640,480x640'") from None
    for shape in shapes:
        if free != {len(shape)} or min(shape) < 1:
            raise ConfigError(
                f"parameter shapes has {format_shape(shape)}, but the inputs' free dims are {sorted(free)}"
            )
    return shapes
