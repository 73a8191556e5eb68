"""A Python-based Triton backend: whole bodies of one image's persons, by MediaPipe's networks on OpenVINO.

A model that names it (`backend: "mediapipe"`) keeps the `top_down` contract of models that take the image:

    image      UINT8 [1, H, W, 3]    RGB; the part of the original that has the persons, at most as large
    boxes      FP32 [1, Q, 4]        of the persons asked about: x1, y1, x2, y2 in px of `image`
    bodies     FP32 [1, P, 17, 3]    the first stage's COCO keypoints of those Q persons, then of their
                                     neighbours: x, y in px of `image`, score; or NaN. P is at least Q
    keypoints  FP32 [1, Q, 634, 2]   px of `image`; NaN where nothing was seen
    scores     FP32 [1, Q, 634]      0 where nothing was seen
    positions  FP32 [1, Q, 634, 3]   metres, origin mid-hip, x image right, y down, z away from camera; or NaN

Triton's batch is one of images: the first dimension is 1 in every request, sizes and counts differ.

What it reads in `config.pbtxt`, beside the tensors:

    parameters.files       "name=sha256,name=sha256": the tflite files in the version's folder. The model does
                           not load when one is missing or altered
    parameters.threads     CPU threads; else POSEGATE_CPU_THREADS, else all CPUs

The networks are compiled before the model is ready. With POSEGATE_RESTARTED in the environment, which says
that they were compiled before, they are compiled after it, so that the other models are ready sooner: when a
request comes, or after a while.

All requests that Triton hands over at once are one batch. Everything but the tensors is in `wholebody/`.

Tensors cross only by DLPack. With numpy 2, the `as_numpy()` and `Tensor(name, array)` of the Python backend
in Triton 2.51 give arrays of zeros without an error, because it was built for the memory layout of numpy 1.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # Triton has it, PyPI not
from numpy.typing import NDArray

from wholebody.assembly import Person
from wholebody.estimator import Estimator, Scene
from wholebody.networks import WeightsError, verify

_NICENESS = 5  # that of all that computes, in the gateway too: see service/media/niceness.py
_OTHERS_FIRST_S = 10.0  # before the networks are compiled, where no request waits for them

CONSUMED = b"used_dltensor"  # PyCapsule_SetName keeps the pointer: the name has to outlive every capsule
_rename_capsule = ctypes.pythonapi.PyCapsule_SetName
_rename_capsule.argtypes = (ctypes.py_object, ctypes.c_char_p)


class ConfigError(Exception):
    """The model cannot be served as its files are; the text says what to change."""


class TritonPythonModel:
    """Triton's interface to one instance of a model."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Verify and compile the networks; an exception here keeps the model from READY, and no other."""
        with suppress(OSError):  # where a sandbox forbids it
            os.nice(_NICENESS)  # of this thread, and so of all that it starts
        self._name = args["model_name"]
        parameters = {
            key: value["string_value"]
            for key, value in json.loads(args["model_config"]).get("parameters", {}).items()
        }
        folder = Path(args["model_repository"]) / args["model_version"]
        threads = read_threads(parameters.get("threads", ""))
        self._folder, self._threads = folder, threads
        try:
            verify(folder, read_digests(parameters.get("files", "")))
        except WeightsError as error:
            raise ConfigError(f"{self._name}: {error}; run scripts/setup to put it right") from error
        cv2.setNumThreads(1)  # the estimator's own threads use the cores
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="compiler")
        self._estimator: Future[Estimator] | None = None
        self._lock = threading.Lock()
        self._later = threading.Timer(_OTHERS_FIRST_S, self._begin)
        self._later.daemon = True
        if os.environ.get("POSEGATE_RESTARTED"):
            self._later.start()
        else:
            self._begin().result()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer all requests as one batch; one by one if that fails, so that each fails for itself."""
        live = [request for request in requests if not request.is_cancelled()]
        try:
            answers = iter(self._infer(live))
            return [next(answers) if request in live else cancelled() for request in requests]
        except Exception as error:
            pb_utils.Logger.log_error(f"{self._name}: inference failed: {error!r}")
            return [self._answer_alone(request) for request in requests]

    def finalize(self) -> None:
        """End the threads."""
        self._later.cancel()
        self._compiler.shutdown()
        if self._estimator is not None and self._estimator.exception() is None:
            self._estimator.result().close()

    def _begin(self) -> Future[Estimator]:
        """The estimator, to be compiled if that has not begun, or has failed the last time."""
        with self._lock:
            estimator = self._estimator
            if estimator is None or (estimator.done() and estimator.exception() is not None):
                estimator = self._estimator = self._compiler.submit(self._compile)
        return estimator

    def _compile(self) -> Estimator:
        started = time.perf_counter()
        estimator = Estimator(self._folder, self._threads)
        pb_utils.Logger.log_info(
            f"{self._name}: precision f32, threads {self._threads}, "
            f"compiled in {time.perf_counter() - started:.2f} s"
        )
        return estimator

    def _answer_alone(self, request: Any) -> Any:
        try:
            return self._infer([request])[0]
        except ValueError as error:
            return failure(f"inference failed: {error}", pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # whatever happens, the neighbours get their answers
            return failure(f"inference failed: {type(error).__name__}", pb_utils.TritonError.INTERNAL)

    def _infer(self, requests: Sequence[Any]) -> list[Any]:
        people = self._begin().result()([read_scene(request) for request in requests])
        return [
            respond(one, request.requested_output_names())
            for one, request in zip(people, requests, strict=True)
        ]


def read_digests(text: str) -> dict[str, str]:
    """File names and their sha256 from "name=sha256,name=sha256"."""
    pairs = (entry.strip().partition("=") for entry in text.split(",") if entry.strip())
    return {name: digest for name, _, digest in pairs}


def read_threads(parameter: str) -> int:
    """How many CPU threads to use.

    Raises:
        ConfigError: not a whole number above 0.
    """
    threads = parameter or os.environ.get("POSEGATE_CPU_THREADS") or str(cpus_available())
    if not threads.isdecimal() or int(threads) < 1:
        raise ConfigError(f"the number of threads is {threads!r}, not a whole number above 0")
    return int(threads)


def read_scene(request: Any) -> Scene:
    """The image of a request and its persons, as views of Triton's memory.

    Raises:
        ValueError: the tensors do not fit one another; the text says how.
    """
    image, boxes, bodies = (read_tensor(request, name) for name in ("image", "boxes", "bodies"))
    if len(image) != 1 or len(boxes) != 1 or len(bodies) != 1:
        raise ValueError(f"a request has one image, not {len(image)}")
    if not boxes.shape[1] or bodies.shape[1] < boxes.shape[1]:
        raise ValueError(f"{boxes.shape[1]} boxes and {bodies.shape[1]} bodies")
    if not (image.shape[1] and image.shape[2]):
        raise ValueError("the image is empty")
    return Scene(image[0], boxes[0], bodies[0])


def read_tensor(request: Any, name: str) -> NDArray[Any]:
    """An input as a view of Triton's memory."""
    return np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name))


def respond(people: Sequence[Person], wanted: Sequence[str]) -> Any:
    """The answer to one request: its persons, one row each."""
    outputs = {
        "keypoints": [person.keypoints for person in people],
        "scores": [person.scores for person in people],
        "positions": [person.positions for person in people],
    }
    return pb_utils.InferenceResponse(
        [to_tensor(name, np.stack(rows)[None]) for name, rows in outputs.items() if name in set(wanted)]
    )


def to_tensor(name: str, array: NDArray[Any]) -> Any:
    """Hand an array to Triton without a copy in Python."""
    capsule = array.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    # Triton gives a used capsule a name that numpy does not know, and numpy would print a traceback.
    _rename_capsule(capsule, CONSUMED)
    return tensor


def cancelled() -> Any:
    """The response to a request whose caller has gone."""
    return failure("the request was cancelled", pb_utils.TritonError.CANCELLED)


def failure(message: str, code: Any) -> Any:
    """A response that carries nothing but an error."""
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code))


def cpus_available() -> int:
    """CPUs that this process may use: its affinity, and the quota of its container (cgroup v2)."""
    count = len(os.sched_getaffinity(0))
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return count
    return max(1, min(count, math.ceil(int(limit) / int(period)))) if limit != "max" else count
