"""A Python-based Triton backend that runs `1/model.onnx` with OpenVINO on the CPU.

A model that names it (`backend: "openvino"`) consists of `config.pbtxt` and the graph only, so the same
files load on a Triton that has NVIDIA's own OpenVINO backend. What it reads in `config.pbtxt`:

    input, output, max_batch_size    names, types and dims; `-1` is a free dim
    parameters.shapes                what the free dims may be: "384x640,480x640" allows two shapes (H x W of
                                     an image). Required when an input has a free dim
    parameters.prepared_shapes       those that are compiled when the model is loaded: the first before it is
                                     ready, the rest after it, in the background; all of them before
                                     it is ready with POSEGATE_PREPARE_SHAPES=all in Triton's environment.
                                     Default: all of `shapes`, before; with POSEGATE_RESTARTED in the
                                     environment, which says that they were compiled before, the first
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
* A stream goes on with the next item when one has ended, whatever its neighbours in Triton's batch do:
  OpenVINO has one item more than streams, Triton's next batch waits in `execute`, and the thread that brought
  an item sends its answer while the streams run the others. If every item waited for the slowest of its
  batch, and Triton for their answers, the streams would be idle for 14 % of the time with eight callers.
  Triton's own `nv_inference_compute_infer_duration_us` ends when the last item of a batch is with OpenVINO.
* OpenVINO emulates bf16 where the CPU lacks it, four times slower than f32 (147 ms for 38 ms, AVX-512 without
  AMX), so there the hint is f32.
* Streams that are never idle keep the gateway waiting for a CPU, so they run at a lower priority, that of the
  gateway's threads which decode and draw: beside 700 calls a second, of which most are refused, the slowest
  hundredth of refusals took 14 to 26 ms in rounds of three seconds; with streams alone at a priority lower by
  2 it was 16 to 512 ms. Small images beside two callers with large ones took no longer than before.
* Threads are not pinned: pinned ones of two models, or of Triton and a model, compete for the same core.

Everything but the tensors is in `graphs/`.

Tensors cross only by DLPack. With numpy 2, the `as_numpy()` and `Tensor(name, array)` of the Python backend
in Triton 2.51 give arrays of zeros without an error, because it was built for the memory layout of numpy 1.
"""

from __future__ import annotations

import ctypes
import json
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # comes with Triton, not from PyPI

from graphs.compiler import Compiler, Item, run
from graphs.config import ConfigError, read_config
from graphs.plans import PlanCache
from graphs.shapes import Array, Shape, format_shape, padded
from graphs.workers import Workers

_NICENESS = 5  # that of all that computes, in the gateway too: see service/media/niceness.py
_OTHERS_FIRST_S = 2.0  # other models may be on their way to READY, and calls wait for the first answers

CONSUMED = b"used_dltensor"  # PyCapsule_SetName keeps the pointer: the name has to outlive every capsule
_rename_capsule = ctypes.pythonapi.PyCapsule_SetName
_rename_capsule.argtypes = (ctypes.py_object, ctypes.c_char_p)


@dataclass(eq=False)
class Work:
    """One request, split into the items of its batch, or refused.

    Attributes:
        request: as Triton passed it; its tensors live as long.
        sender: sends its response.
        items: of its batch; none of a request that is refused.
        wanted: names of the outputs that are asked for, and where they stand in a result.
        refusal: the error that answers it.
        results: of the items; None of one that has not ended.
        left: number of items that have not ended.
    """

    request: Any
    sender: Any
    items: Sequence[Item] = ()
    wanted: Mapping[str, int] = field(default_factory=dict)
    refusal: Any = None
    results: list[Sequence[Array] | None] = field(default_factory=list)
    left: int = 0


class Refused(Exception):
    """A request is answered with an error.

    Attributes:
        error: Triton's.
    """

    def __init__(self, error: Any) -> None:
        super().__init__()
        self.error = error


class TritonPythonModel:
    """Triton's interface to one instance of a model."""

    _counters: dict[str, Any] | None = None

    def initialize(self, args: Mapping[str, str]) -> None:
        """Compile what the model needs to be ready; an exception here keeps it from READY."""
        with suppress(OSError):  # where a sandbox forbids it
            os.nice(_NICENESS)  # of this thread, and so of all that it starts
        self._name = args["model_name"]
        config = self._config = read_config(json.loads(args["model_config"]))
        graph = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        if not graph.is_file():
            raise ConfigError(f"{self._name}: {graph.name} of version {args['model_version']} is missing")
        try:
            compiler = Compiler(graph, config, self._log)
            self._plans = PlanCache(config, compiler, self._count, pause_s=_OTHERS_FIRST_S)
            self._plans.prepare()
        except RuntimeError as error:
            raise ConfigError(f"{self._name}: OpenVINO cannot compile {graph.name}: {error}") from error
        self._ending = threading.Lock()
        self._workers = Workers(config.at_once, self._run)

    def execute(self, requests: Sequence[Any]) -> None:
        """Wait until every item is with OpenVINO, or has ended. Each request is answered when its own have.

        So Triton hands over the next requests while the last ones run, and its queue, with its order and its
        deadlines, keeps all but those.
        """
        works = [self._take(Work(request, request.get_response_sender())) for request in requests]
        for work in works:
            if work.refusal is not None:
                self._answer(work)
        self._workers.begin([(work, index) for work in works for index in range(len(work.items))])

    def finalize(self) -> None:
        """Answer what runs, and end the threads."""
        self._plans.close()
        self._workers.close()

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

    def _log(self, line: str) -> None:
        pb_utils.Logger.log_info(f"{self._name}: {line}")

    def _take(self, work: Work) -> Work:
        try:
            self._split(work)
        except Refused as refused:
            work.refusal = refused.error
        except Exception as error:  # the other requests get their answers
            pb_utils.Logger.log_error(f"{self._name}: a request cannot be read: {error!r}")
            work.refusal = pb_utils.TritonError("inference failed", pb_utils.TritonError.INTERNAL)
        return work

    def _split(self, work: Work) -> None:
        """Split a request into its items.

        Raises:
            Refused: it is answered with an error.
        """
        request, config, error = work.request, self._config, pb_utils.TritonError
        if request.is_cancelled():
            raise Refused(error("the request was cancelled", error.CANCELLED))
        inputs = [
            np.from_dlpack(pb_utils.get_input_tensor_by_name(request, spec.name)) for spec in config.inputs
        ]
        shapes = tuple(array.shape[1:] if config.batched else array.shape for array in inputs)
        if not self._plans.allows(shapes):
            raise Refused(error(self._refusal(shapes), error.INVALID_ARG))
        try:
            plan, fitting = self._plans.plan(shapes)
        except RuntimeError as failure:
            pb_utils.Logger.log_error(f"{self._name}: {shapes} cannot be compiled: {failure!r}")
            raise Refused(error("the shape cannot be compiled", error.INTERNAL)) from failure
        if fitting != shapes:
            batch = inputs[0].shape[:1] if config.batched else ()
            sizes = [(*batch, *shape) for shape in fitting]
            inputs = [
                padded(array, size, config.pad_value) for array, size in zip(inputs, sizes, strict=True)
            ]
        names = set(request.requested_output_names())
        work.wanted = {name: index for name, index in plan.outputs.items() if name in names}
        if not config.batched:
            work.items = [Item(plan, inputs)]
        elif len(inputs[0]):
            items = [[array[index : index + 1] for array in inputs] for index in range(len(inputs[0]))]
            work.items = [Item(plan, item) for item in items]
        else:
            raise Refused(error("the batch is empty", error.INVALID_ARG))
        work.left = len(work.items)
        work.results = [None] * work.left

    def _run(self, job: tuple[Work, int], alone: bool) -> None:
        """Run one item; after the last one of a request it is answered."""
        work, index = job
        try:
            work.results[index] = run(work.items[index], alone=alone)
        except Exception as error:
            pb_utils.Logger.log_error(f"{self._name}: inference failed: {error!r}")
        with self._ending:
            work.left -= 1
            last = not work.left
        if last:
            self._answer(work)

    def _answer(self, work: Work) -> None:
        """Send the response, or that there is none: without either, Triton and the caller would wait."""
        try:
            response = self._response(work)
        except Exception as error:
            pb_utils.Logger.log_error(f"{self._name}: a result cannot be handed over: {error!r}")
            response = self._failure()
        try:
            work.sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as error:
            pb_utils.Logger.log_error(f"{self._name}: an answer cannot be sent: {error!r}")

    def _response(self, work: Work) -> Any:
        if work.refusal is not None:
            return pb_utils.InferenceResponse(output_tensors=[], error=work.refusal)
        results = [result for result in work.results if result is not None]
        if len(results) < len(work.items):
            return self._failure()
        tensors = []
        for name, index in work.wanted.items():
            parts = [result[index] for result in results]
            tensors.append(to_tensor(name, parts[0] if len(parts) == 1 else np.concatenate(parts)))
        return pb_utils.InferenceResponse(tensors)

    def _failure(self) -> Any:
        failure = pb_utils.TritonError("inference failed", pb_utils.TritonError.INTERNAL)
        return pb_utils.InferenceResponse(output_tensors=[], error=failure)

    def _refusal(self, items: Sequence[Shape]) -> str:
        specs = self._config.inputs
        found = ", ".join(f"{spec.name} {list(shape)}" for spec, shape in zip(specs, items, strict=True))
        allowed = ", ".join(map(format_shape, self._config.shapes))
        return f"{self._name} takes no {found}: its shapes are {allowed}"


def to_tensor(name: str, array: Array) -> Any:
    """Hand an array to Triton without a copy in Python."""
    capsule = array.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    # Triton gives a used capsule a name that numpy does not know, and numpy would print a traceback.
    _rename_capsule(capsule, CONSUMED)
    return tensor
