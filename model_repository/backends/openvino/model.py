"""A Python-based Triton backend that runs `1/model.onnx` with OpenVINO on the CPU.

A model that names it (`backend: "openvino"`) consists of `config.pbtxt` and the graph only, so the same
files load on a Triton that has NVIDIA's own OpenVINO backend. What it reads in `config.pbtxt`:

    input, output, max_batch_size    names, types and dims; `-1` is a free dim
    parameters.shapes                what the free dims may be: "384x640,480x640" allows two shapes (H x W of
                                     an image). Required when an input has a free dim
    parameters.prepared_shapes       those that are compiled when the model is loaded: the first before it is
                                     ready, the rest after it, in the background; all of them before
                                     it is ready with POSEGATE_PREPARE_SHAPES=all in Triton's environment.
                                     Default: all of `shapes`, before
    parameters.pad_value             number to fill up an input with whose shape is not compiled yet: it runs
                                     in the smallest compiled shape that holds it, aligned at the start of
                                     every axis, while its own is compiled. Without it the request waits
    parameters.max_compiled          compiled shapes that are kept, default 10; of those that were not
                                     prepared the one used longest ago is dropped. One shape of YOLO11n
                                     takes about 100 MB (measured, two streams)
    parameters.precision             "f32" (default) or "bf16": OpenVINO's own default depends on the CPU.
                                     bf16 runs as f32 on a CPU that has no instructions for it
    parameters.threads               CPU threads; else POSEGATE_CPU_THREADS, else all CPUs
    parameters.streams               items that run at once when several wait, on a share of the threads each;
                                     default 2. Triton should batch as many: `preferred_batch_size: [ 2 ]`

Reasons for the design, measured on two cores with YOLO11n-pose:

* One compiled model per shape: a graph with dynamic shapes costs 20-30 % more. A shape that is asked for the
  first time is compiled (or read from the cache) by a thread of its own, one after another.
* No batches in the graph: they gain nothing on a CPU. An item that is alone runs on all threads (18-25 ms);
  of several, two run at once on one thread each (34 ms, but 57 a second instead of 40).
* OpenVINO emulates bf16 where the CPU lacks it, four times slower than f32 (147 ms for 38 ms, AVX-512 without
  AMX), so there the hint is f32.
* Threads are not pinned: pinned ones of two models, or of Triton and a model, compete for the same core.

Tensors cross only by DLPack. With numpy 2, the `as_numpy()` and `Tensor(name, array)` of the Python backend
in Triton 2.51 give arrays of zeros without an error, because it was built for the memory layout of numpy 1.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import math
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # comes with Triton, not from PyPI
from numpy.typing import NDArray

Shape = tuple[int, ...]
ItemShapes = tuple[Shape, ...]  # of one item of every input
Array = NDArray[Any]

PRECISIONS = ("f32", "bf16")
CONSUMED = b"used_dltensor"  # PyCapsule_SetName keeps the pointer: the name has to outlive every capsule
_rename_capsule = ctypes.pythonapi.PyCapsule_SetName
_rename_capsule.argtypes = (ctypes.py_object, ctypes.c_char_p)


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


@dataclass(frozen=True, eq=False)
class Plan:
    """The graph compiled for one shape of its inputs.

    Attributes:
        alone: runs one item on all threads.
        together: run an item each at the same time, on a share of the threads.
        outputs: names of the outputs, and where they stand in a result.
    """

    alone: ov.InferRequest
    together: queue.SimpleQueue[ov.InferRequest]
    outputs: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Item:
    """One item of a batch, and the plan that runs it."""

    plan: Plan
    inputs: Sequence[Array]


@dataclass(frozen=True, eq=False)
class Work:
    """One request, split into the items of its batch, or refused."""

    items: Sequence[Item] = ()
    wanted: Mapping[str, int] = field(default_factory=dict)  # output name -> where it stands in a result
    refusal: Any = None


class PlanCache:
    """The compiled shapes of one graph.

    Args:
        config: allowed and prepared shapes, and how many are kept.
        make: compiles one shape; takes seconds without OpenVINO's cache.
        count: called with `padded`, `compiled` or `evicted` for metrics.
    """

    def __init__(self, config: Config, make: Callable[[Shape], Plan], count: Callable[[str], None]) -> None:
        self._config = config
        self._make = make
        self._count = count
        self._shapes = {item_shapes(config.inputs, shape): shape for shape in config.shapes}
        self._prepared = {item_shapes(config.inputs, shape) for shape in config.prepared}
        self._plans: OrderedDict[ItemShapes, Plan] = OrderedDict()  # the one used longest ago first
        self._compiling: dict[ItemShapes, Future[Plan]] = {}
        self._lock = threading.Lock()
        self._compiler = ThreadPoolExecutor(1)  # reshaping changes the graph: one shape at a time

    def prepare(self, shapes: Sequence[Shape]) -> None:
        """Compile these shapes now."""
        for shape in shapes:
            self._compile(item_shapes(self._config.inputs, shape))

    def compile_soon(self, shapes: Sequence[Shape]) -> None:
        """Compile these shapes in the background; compiled ones stay."""
        for shape in shapes:
            self._submit(item_shapes(self._config.inputs, shape))

    def allows(self, wanted: ItemShapes) -> bool:
        """Whether items of these shapes may be sent at all."""
        return wanted in self._shapes

    def plan(self, wanted: ItemShapes) -> tuple[Plan, ItemShapes]:
        """The plan for items of allowed shapes, and the shapes that it takes; those may be larger.

        Raises:
            RuntimeError: OpenVINO cannot compile the shape.
        """
        with self._lock:
            plan = self._plans.get(wanted)
            if plan is not None:
                self._plans.move_to_end(wanted)
                return plan, wanted
            larger = [shapes for shapes in self._plans if holds(shapes, wanted)]
        compiling = self._submit(wanted)
        if self._config.pad_value is None or not larger:
            return compiling.result(), wanted
        self._count("padded")
        nearest = min(larger, key=size_of)
        with self._lock:
            found = self._plans.get(nearest)
        return (found, nearest) if found is not None else (compiling.result(), wanted)

    def close(self) -> None:
        """End the compiler; the shapes that wait for it are dropped."""
        self._compiler.shutdown(cancel_futures=True)

    def _submit(self, wanted: ItemShapes) -> Future[Plan]:
        with self._lock:
            there = self._plans.get(wanted)
            if there is not None:
                done: Future[Plan] = Future()
                done.set_result(there)
                return done
            if wanted not in self._compiling:
                self._compiling[wanted] = self._compiler.submit(self._compile, wanted)
            return self._compiling[wanted]

    def _compile(self, wanted: ItemShapes) -> Plan:
        try:
            plan = self._make(self._shapes[wanted])
        finally:
            with self._lock:
                self._compiling.pop(wanted, None)
        with self._lock:
            self._plans[wanted] = plan
            spare = [shapes for shapes in self._plans if shapes not in self._prepared and shapes != wanted]
            evicted = spare[: max(0, len(self._plans) - self._config.max_compiled)]
            for shapes in evicted:
                del self._plans[shapes]
        self._count("compiled")
        for _ in evicted:
            self._count("evicted")
        return plan


class TritonPythonModel:
    """Triton's interface to one instance of a model."""

    _counters: dict[str, Any] | None = None

    def initialize(self, args: Mapping[str, str]) -> None:
        """Compile and warm up every allowed shape; an exception here keeps the model from READY."""
        self._name = args["model_name"]
        self._config = read_config(json.loads(args["model_config"]))
        graph = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        if not graph.is_file():
            raise ConfigError(f"{self._name}: {graph.name} of version {args['model_version']} is missing")
        config = self._config
        core = ov.Core()
        try:
            model = core.read_model(graph)
            check_tensors(model, config)
            self._plans = PlanCache(config, partial(self._make_plan, core, model), self._count)
            self._plans.prepare(config.prepared if config.prepare_all else config.prepared[:1])
        except RuntimeError as error:
            raise ConfigError(f"{self._name}: OpenVINO cannot compile {graph.name}: {error}") from error
        self._plans.compile_soon(config.prepared)
        self._pool = ThreadPoolExecutor(config.streams)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer every request on its own: an error in one does not affect the others."""
        works = [self._take(request) for request in requests]
        alone = sum(len(work.items) for work in works) == 1
        runs = [[self._pool.submit(run, item, alone=alone) for item in work.items] for work in works]
        wait(chain.from_iterable(runs))  # an item that still ran would read memory that Triton takes back
        return [self._answer(work, results) for work, results in zip(works, runs, strict=True)]

    def finalize(self) -> None:
        """End the threads."""
        self._plans.close()
        self._pool.shutdown()

    def _count(self, event: str) -> None:
        """Count in Triton's metrics that a request was padded or a shape compiled."""
        if self._counters is None:
            texts = {
                "padded": "Requests that ran in a larger shape while their own was compiled",
                "compiled": "Shapes that were compiled or read from the cache",
                "evicted": "Compiled shapes that were dropped",
            }
            self._families = {  # they have to live as long as their metrics
                name: pb_utils.MetricFamily(
                    name=f"posegate_openvino_{name}_total",
                    description=text,
                    kind=pb_utils.MetricFamily.COUNTER,
                )
                for name, text in texts.items()
            }
            self._counters = {
                name: family.Metric(labels={"model": self._name}) for name, family in self._families.items()
            }
        self._counters[event].increment(1)

    def _make_plan(self, core: ov.Core, model: ov.Model, shape: Shape) -> Plan:
        started = time.perf_counter()
        config = self._config
        batch = (1,) if config.batched else ()
        shapes = {spec.name: (*batch, *fill(spec.dims, shape)) for spec in config.inputs}
        model.reshape({name: list(dims) for name, dims in shapes.items()})
        blank = [np.zeros(shapes[spec.name], spec.dtype) for spec in config.inputs]
        precision = supported_precision(
            config.precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        )

        def compile_for(streams: int) -> ov.CompiledModel:
            return core.compile_model(
                model,
                "CPU",
                {
                    "NUM_STREAMS": streams,
                    "INFERENCE_NUM_THREADS": config.threads,
                    "INFERENCE_PRECISION_HINT": precision,
                    "ENABLE_CPU_PINNING": False,
                },
            )

        with compile_cache(core):
            compiled = compile_for(1)
            several = compile_for(config.streams) if config.streams > 1 else compiled
        alone = compiled.create_infer_request()
        requests = [alone]
        if config.streams > 1:
            requests = [several.create_infer_request() for _ in range(config.streams)]
        together: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
        for request in requests:
            together.put(request)
        for request in {alone, *requests}:
            request.infer(blank)
        pb_utils.Logger.log_info(
            f"{self._name}: shape {format_shape(shape) or 'fixed'}, precision "
            f"{compiled.get_property('INFERENCE_PRECISION_HINT').to_string()}, threads {config.threads}, "
            f"streams {config.streams}, ready in {time.perf_counter() - started:.2f} s"
        )
        names = [port.get_names() for port in compiled.outputs]
        where = {spec.name: [spec.name in found for found in names].index(True) for spec in config.outputs}
        return Plan(alone, together, where)

    def _take(self, request: Any) -> Work:
        error = pb_utils.TritonError
        if request.is_cancelled():
            return Work(refusal=error("the request was cancelled", error.CANCELLED))
        config = self._config
        inputs = [
            np.from_dlpack(pb_utils.get_input_tensor_by_name(request, spec.name)) for spec in config.inputs
        ]
        shapes = tuple(array.shape[1:] if config.batched else array.shape for array in inputs)
        if not self._plans.allows(shapes):
            return Work(refusal=error(self._refusal(shapes), error.INVALID_ARG))
        try:
            plan, fitting = self._plans.plan(shapes)
        except RuntimeError as failure:
            pb_utils.Logger.log_error(f"{self._name}: {shapes} cannot be compiled: {failure!r}")
            return Work(refusal=error("the shape cannot be compiled", error.INTERNAL))
        if fitting != shapes:
            batch = inputs[0].shape[:1] if config.batched else ()
            sizes = [(*batch, *shape) for shape in fitting]
            inputs = [
                padded(array, size, config.pad_value) for array, size in zip(inputs, sizes, strict=True)
            ]
        names = set(request.requested_output_names())
        wanted = {name: index for name, index in plan.outputs.items() if name in names}
        if not config.batched:
            return Work([Item(plan, inputs)], wanted)
        if len(inputs[0]) == 0:
            return Work(refusal=error("the batch is empty", error.INVALID_ARG))
        items = [[array[index : index + 1] for array in inputs] for index in range(len(inputs[0]))]
        return Work([Item(plan, item) for item in items], wanted)

    def _answer(self, work: Work, runs: Sequence[Future[Sequence[Array]]]) -> Any:
        if work.refusal is not None:
            return pb_utils.InferenceResponse(output_tensors=[], error=work.refusal)
        try:
            results = [run.result() for run in runs]
        except Exception as error:  # after any error the other requests get their answers
            pb_utils.Logger.log_error(f"{self._name}: inference failed: {error!r}")
            failure = pb_utils.TritonError("inference failed", pb_utils.TritonError.INTERNAL)
            return pb_utils.InferenceResponse(output_tensors=[], error=failure)
        tensors = []
        for name, index in work.wanted.items():
            parts = [result[index] for result in results]
            tensors.append(to_tensor(name, parts[0] if len(parts) == 1 else np.concatenate(parts)))
        return pb_utils.InferenceResponse(tensors)

    def _refusal(self, items: Sequence[Shape]) -> str:
        specs = self._config.inputs
        found = ", ".join(f"{spec.name} {list(shape)}" for spec, shape in zip(specs, items, strict=True))
        allowed = ", ".join(map(format_shape, self._config.shapes))
        return f"{self._name} takes no {found}: its shapes are {allowed}"


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


def holds(larger: ItemShapes, smaller: ItemShapes) -> bool:
    """Whether inputs of the smaller shapes fit into the larger ones."""
    return all(
        len(large) == len(small) and all(a >= b for a, b in zip(large, small, strict=True))
        for large, small in zip(larger, smaller, strict=True)
    )


def size_of(shapes: ItemShapes) -> int:
    """Number of elements of all inputs."""
    return sum(math.prod(shape) for shape in shapes)


def padded(array: Array, shape: Shape, value: int | None) -> Array:
    """The array at the start of every axis of a larger one, the rest filled with `value`."""
    if array.shape == shape:
        return array
    larger = np.full(shape, value or 0, array.dtype)
    larger[tuple(map(slice, array.shape))] = array
    return larger


def run(item: Item, *, alone: bool) -> Sequence[Array]:
    """One inference: every output of one item."""
    plan = item.plan
    request = plan.alone if alone else plan.together.get()
    try:
        results = request.infer(item.inputs, share_outputs=True)
        return [results[index].copy() for index in range(len(results))]
    finally:
        if not alone:
            plan.together.put(request)


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
        prepare_all="prepared_shapes" not in parameters or os.environ.get("POSEGATE_PREPARE_SHAPES") == "all",
        pad_value=int(pad_value) if pad_value is not None else None,
        max_compiled=max(max_compiled, len(prepared)),
        precision=precision,
        threads=threads,
        streams=min(streams, threads) if batched else 1,
    )


def supported_precision(precision: str, capabilities: Sequence[str]) -> str:
    """What to compute in: the configured precision, or f32 where that is bf16 and the CPU has no instructions
    for it. `capabilities` is OpenVINO's OPTIMIZATION_CAPABILITIES, such as `["FP32", "BF16", "INT8"]`."""
    return precision if precision != "bf16" or "BF16" in capabilities else "f32"


def whole_number(name: str, text: str) -> int:
    """A whole number above 0.

    Raises:
        ConfigError: it is not.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"the number of {name} is {text!r}, not a whole number above 0")
    return int(text)


def read_spec(tensor: Mapping[str, Any]) -> TensorSpec:
    """One input or output of `config.pbtxt`."""
    dtype = np.dtype(pb_utils.triton_string_to_numpy(tensor["data_type"]))
    if dtype == np.object_:
        raise ConfigError(f"{tensor['name']} is of {tensor['data_type']}; only numbers are served")
    return TensorSpec(tensor["name"], dtype, tuple(int(dim) for dim in tensor["dims"]))


def read_shapes(text: str, inputs: Sequence[TensorSpec]) -> tuple[Shape, ...]:
    """The allowed values of the free dims: "384x640,480x640" is ((384, 640), (480, 640))."""
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


def fill(dims: Shape, values: Shape) -> Shape:
    """`dims` with its free dims set to `values` in order."""
    remaining = iter(values)
    return tuple(next(remaining) if dim == -1 else dim for dim in dims)


def item_shapes(inputs: Sequence[TensorSpec], shape: Shape) -> ItemShapes:
    """The shape of one item of every input, when the free dims are `shape`."""
    return tuple(fill(spec.dims, shape) for spec in inputs)


def format_shape(shape: Shape) -> str:
    """(384, 640) as "384x640"."""
    return "x".join(map(str, shape))


def to_tensor(name: str, array: Array) -> Any:
    """Hand an array to Triton without a copy in Python."""
    capsule = array.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    # Triton gives a used capsule a name that numpy does not know, and numpy would print a traceback.
    _rename_capsule(capsule, CONSUMED)
    return tensor


def cpus_available() -> int:
    """CPUs that this process may use: its affinity, and the quota of its container."""
    count = len(os.sched_getaffinity(0))
    if quota := cgroup_cpu_quota(Path("/sys/fs/cgroup")):
        count = min(count, math.ceil(quota))
    return max(count, 1)


def cgroup_cpu_quota(root: Path) -> float | None:
    """The CPU limit of the container in CPUs, None without one; cgroup v2, then v1."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if limit == "max" or int(limit) <= 0:
        return None
    return int(limit) / int(period)
