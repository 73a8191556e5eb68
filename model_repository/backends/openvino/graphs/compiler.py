"""A graph, compiled by OpenVINO for one shape of its inputs, and run."""

from __future__ import annotations

import ctypes
import fcntl
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openvino as ov

from graphs.config import Config, ConfigError
from graphs.shapes import Array, Shape, fill, format_shape


@dataclass(frozen=True, eq=False)
class Plan:
    """The graph compiled for one shape of its inputs.

    Attributes:
        alone: runs one item on all threads.
        together: run an item each at the same time, on a share of the threads; `alone` while there are none.
            There is one more than there are streams: OpenVINO begins with its item once a stream is free, and
            waits for no thread that brings it.
        inputs: names of the inputs in the order of `config.pbtxt`, which may not be the graph's.
        outputs: names of the outputs, and where they stand in a result.
    """

    alone: ov.InferRequest
    together: queue.SimpleQueue[ov.InferRequest]
    inputs: Sequence[str]
    outputs: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Item:
    """One item of a batch, and the plan that runs it."""

    plan: Plan
    inputs: Sequence[Array]


class Compiler:
    """Compiles one graph, one shape at a time: reshaping changes the graph.

    Args:
        graph: the ONNX file.
        config: its tensors, precision and threads.
        log: called with a line for each shape that is ready.

    Raises:
        ConfigError: the graph's tensors are not those of the configuration.
        RuntimeError: OpenVINO cannot read the graph.
    """

    def __init__(self, graph: Path, config: Config, log: Callable[[str], None]) -> None:
        self._config = config
        self._log = log
        self._core = ov.Core()
        self._model = self._core.read_model(graph)
        check_tensors(self._model, config)
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._precision = supported_precision(config.precision, capabilities)

    def plan(self, shape: Shape) -> Plan:
        """The plan for items that come alone; those of a batch run one after the other."""
        started = time.perf_counter()
        compiled = self._compile(shape, streams=1)
        alone = compiled.create_infer_request()
        self._warm_up(shape, [alone])
        names = [port.get_names() for port in compiled.outputs]
        outputs = {
            spec.name: [spec.name in found for found in names].index(True) for spec in self._config.outputs
        }
        self._log(
            f"shape {format_shape(shape) or 'fixed'}, precision "
            f"{compiled.get_property('INFERENCE_PRECISION_HINT').to_string()}, threads "
            f"{self._config.threads}, ready in {time.perf_counter() - started:.2f} s"
        )
        return Plan(alone, _queue([alone]), [spec.name for spec in self._config.inputs], outputs)

    def spread(self, plan: Plan, shape: Shape) -> Plan:
        """The plan, with requests that run several items at the same time if the graph can be compiled so."""
        if self._config.streams == 1:
            return plan
        try:
            compiled = self._compile(shape, streams=self._config.streams)
            requests = [compiled.create_infer_request() for _ in range(self._config.at_once)]
            self._warm_up(shape, requests)
        except RuntimeError as error:
            self._log(f"items of a batch run one after the other: {error}")
            return plan
        return replace(plan, together=_queue(requests))

    def _compile(self, shape: Shape, *, streams: int) -> ov.CompiledModel:
        self._model.reshape({name: list(dims) for name, dims in self._shapes(shape).items()})
        with compile_cache(self._core):
            return self._core.compile_model(
                self._model,
                "CPU",
                {
                    "NUM_STREAMS": streams,
                    "INFERENCE_NUM_THREADS": self._config.threads,
                    "INFERENCE_PRECISION_HINT": self._precision,
                    "ENABLE_CPU_PINNING": False,
                },
            )

    def _warm_up(self, shape: Shape, requests: Sequence[ov.InferRequest]) -> None:
        shapes = self._shapes(shape)
        blank = {spec.name: np.zeros(shapes[spec.name], spec.dtype) for spec in self._config.inputs}
        for request in requests:
            request.infer(blank)

    def _shapes(self, shape: Shape) -> Mapping[str, Shape]:
        batch = (1,) if self._config.batched else ()
        return {spec.name: (*batch, *fill(spec.dims, shape)) for spec in self._config.inputs}


def run(item: Item, *, alone: bool) -> Sequence[Array]:
    """One inference: every output of one item."""
    plan = item.plan
    request = plan.alone if alone else plan.together.get()
    try:
        inputs = [np.ascontiguousarray(array) for array in item.inputs]
        for name, array in zip(plan.inputs, inputs, strict=True):
            request.set_tensor(name, tensor_on(array))
        results = request.infer(share_outputs=True)
        return [results[index].copy() for index in range(len(results))]
    finally:
        if not alone:
            plan.together.put(request)


def tensor_on(array: Array) -> ov.Tensor:
    """A tensor on the memory of an array, without a copy; the array has to live while the tensor is read.

    NumPy makes read-only arrays of Triton's tensors, and OpenVINO's own conversion copies those: 0.9 MB for
    an image of 640×480.

    Args:
        array: C-contiguous, not empty.
    """
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data)
    return ov.Tensor(np.frombuffer(memoryview(memory), array.dtype).reshape(array.shape), shared_memory=True)


def supported_precision(precision: str, capabilities: Sequence[str]) -> str:
    """What to compute in: the configured precision, or f32 where that is bf16 and the CPU has no instructions
    for it. `capabilities` is OpenVINO's OPTIMIZATION_CAPABILITIES, such as `["FP32", "BF16", "INT8"]`."""
    return precision if precision != "bf16" or "BF16" in capabilities else "f32"


def check_tensors(model: ov.Model, config: Config) -> None:
    """Refuse a graph whose tensors are not those of `config.pbtxt`.

    Raises:
        ConfigError: a name is missing or a type differs.
    """
    for specs, ports in ((config.inputs, model.inputs), (config.outputs, model.outputs)):
        found = {name: port for port in ports for name in port.get_names()}
        for spec in specs:
            if spec.name not in found:
                raise ConfigError(f"the graph has no tensor {spec.name!r}, but {', '.join(sorted(found))}")
            if (dtype := found[spec.name].get_element_type().to_dtype()) != spec.dtype:
                raise ConfigError(f"{spec.name} is {spec.dtype} in config.pbtxt and {dtype} in the graph")
    if len(config.inputs) != len(model.inputs):
        raise ConfigError(f"config.pbtxt has {len(config.inputs)} inputs, the graph {len(model.inputs)}")


@contextmanager
def compile_cache(core: ov.Core) -> Iterator[None]:
    """Keep compiled models in POSEGATE_CACHE_DIR, where it is set.

    One process at a time: of two that compile the same graph at once, OpenVINO lets one fail.
    """
    folder = os.environ.get("POSEGATE_CACHE_DIR")
    if not folder:
        yield
        return
    with (Path(folder) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        core.set_property({"CACHE_DIR": folder})
        yield


def _queue(requests: Sequence[ov.InferRequest]) -> queue.SimpleQueue[ov.InferRequest]:
    waiting: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
    for request in requests:
        waiting.put(request)
    return waiting
