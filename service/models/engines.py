"""Build a TensorRT plan from an ONNX graph.

The module is a parameter: `tensorrt` (10 or newer) on a GPU, or `tensorrt_rtx_bindings`, which has the same
interface and builds ahead of time on a machine without one.

Precision is in the graph: the network is strongly typed, and TensorRT 11 has no other. There is one
optimisation profile for each input shape, so that its kernels are chosen for that shape; Triton takes the
one that fits (`instance_group.profile` names them all).
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from service.models.errors import EngineError
from service.models.manifest import HardwareCompatibility, Library, Profile

if TYPE_CHECKING:
    import tensorrt as api

OPTIMISATION_LEVEL = 3  # TensorRT's own default; 5 tries most and takes longest
_SHOWN_ERRORS = 5

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with the outermost phase of the build, its steps so far and in all; from any thread."""


@dataclass(frozen=True)
class Options:
    """How a plan is built.

    Attributes:
        compute_capability: such as `8.9`, to build ahead of time for that GPU (TensorRT-RTX only); empty
            for the GPU of this machine.
        hardware_compatibility: `ampere_plus` gives one plan for every GPU from Ampere on,
            `same_compute_capability` one for all of the same capability; both cost speed.
        version_compatible: a newer TensorRT may load the plan. Costs speed, and Triton must be started
            with --backend-config=tensorrt,version-compatible=true.
        tf32: layers in fp32 may round their inputs to TF32 (10 bits of mantissa), as TensorRT does unless
            told otherwise.
        optimisation_level: 0 (fast build) to 5 (fast plan).
        workspace_bytes: memory that a layer may use while it runs; 0 for all there is.
        timing_cache: what an earlier build measured, for a faster build of about the same.
    """

    compute_capability: str = ""
    hardware_compatibility: HardwareCompatibility = "none"
    version_compatible: bool = False
    tf32: bool = True
    optimisation_level: int = OPTIMISATION_LEVEL
    workspace_bytes: int = 0
    timing_cache: bytes = b""


@dataclass(frozen=True, eq=False)
class Built:
    """A finished build: the plan's bytes, the timing cache to keep for the next one, and how long it took."""

    plan: bytes
    timing_cache: bytes
    build_s: float


def load_tensorrt(name: str = "tensorrt") -> Any:
    """The TensorRT module of this name.

    In place of `tensorrt`, `tensorrt_bindings` alone does: NVIDIA's wheel `tensorrt-cu13-bindings` has 1 MB
    and uses the libraries that are there, as in Triton's image.

    Raises:
        EngineError: it is not installed.
    """
    why = "its type stubs are here, and nothing else"
    for candidate in (name, "tensorrt_bindings") if name == "tensorrt" else (name,):
        try:
            module = importlib.import_module(candidate)
        except (ImportError, OSError) as exc:
            why = str(exc)
            continue
        if hasattr(module, "Builder"):  # type stubs alone make an empty module of the same name
            return module
    raise EngineError(
        f"{name} cannot be imported ({why}); on a machine with a GPU: pip install 'posegate[gpu]', "
        "in the version that Triton has"
    )


def library(tensorrt: Any) -> Library:
    """Which of the two libraries a module is."""
    return "tensorrt_rtx" if "rtx" in str(tensorrt.__name__) else "tensorrt"


def profiles_for(
    shapes_hw: Sequence[tuple[int, int]],
    max_batch: int,
    best_batch: int | None = None,
    *,
    other_hw: Sequence[tuple[int, int]] = (),
) -> tuple[Profile, ...]:
    """One profile for each input (H, W): 1 to `max_batch` images, tuned for `best_batch`.

    Without `best_batch` it is half of `max_batch`: the dynamic batcher fills batches only under load. With
    `other_hw` one more profile takes those inputs, and everything between their extremes.
    """
    best = best_batch or (max_batch + 1) // 2
    if not 1 <= best <= max_batch:
        raise EngineError(f"a plan for 1 to {max_batch} images cannot be tuned for {best}")
    profiles = [
        Profile(min=(1, h, w, 3), opt=(best, h, w, 3), max=(max_batch, h, w, 3)) for h, w in shapes_hw
    ]
    if other_hw:
        heights, widths = zip(*other_hw, strict=True)
        h, w = shapes_hw[0]
        profiles.append(
            Profile(
                min=(1, min(heights), min(widths), 3),
                opt=(best, min(h, max(heights)), min(w, max(widths)), 3),
                max=(max_batch, max(heights), max(widths), 3),
            )
        )
    return tuple(profiles)


def build_plan(
    tensorrt: Any,
    graph: bytes,
    profiles: Sequence[Profile],
    options: Options | None = None,
    progress: Progress | None = None,
) -> Built:
    """Build a plan.

    Ctrl-C ends the build at its next step.

    Args:
        tensorrt: the module.
        graph: an ONNX file's bytes; its one input has the profiles' shapes.

    Raises:
        EngineError: TensorRT does not read the graph (the message names the node), or cannot build it.
    """
    options = options or Options()
    log = _logger(tensorrt)
    log.errors.clear()
    try:
        builder: api.Builder = tensorrt.Builder(log)
    except (TypeError, RuntimeError) as exc:  # pybind11's words for a constructor that gives nothing
        messages = "; ".join(log.errors) or str(exc)
        raise EngineError(
            f"TensorRT {tensorrt.__version__} does not start; it needs a GPU: {messages}"
        ) from exc
    typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network: api.INetworkDefinition = builder.create_network(typed)
    parser: api.OnnxParser = tensorrt.OnnxParser(network, log)
    if not parser.parse(graph):
        messages = _parser_errors(parser)
        raise EngineError(f"TensorRT {tensorrt.__version__} does not read the graph: {messages}")
    if network.num_inputs != 1:
        raise EngineError(f"the graph has {network.num_inputs} inputs instead of one")
    config = builder.create_builder_config()
    _add_profiles(tensorrt, builder, config, network.get_input(0), profiles)
    _apply(tensorrt, config, options)
    monitor = _monitor(tensorrt, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    started = time.monotonic()
    plan = _interruptible(lambda: builder.build_serialized_network(network, config), monitor)
    build_s = time.monotonic() - started
    if plan is None:
        messages = "; ".join(log.errors[-_SHOWN_ERRORS:]) or "it does not say why"
        raise EngineError(f"TensorRT {tensorrt.__version__} cannot build the plan: {messages}")
    return Built(bytes(memoryview(plan)), _timing_cache(tensorrt, config), build_s)


def _add_profiles(
    tensorrt: Any,
    builder: api.Builder,
    config: api.IBuilderConfig,
    images: api.ITensor,
    profiles: Sequence[Profile],
) -> None:
    for profile in profiles:
        shape = sizes_of(images.shape)
        fixed = all(size in (-1, given) for size, given in zip(shape, profile.max, strict=False))
        if len(shape) != len(profile.max) or not fixed or shape[0] != -1:
            raise EngineError(
                f"the graph takes {images.name} {shape}, which does not hold {profile.max}; it needs a "
                "first axis of any size, and the configuration's height and width"
            )
        wanted = builder.create_optimization_profile()
        sizes = (tensorrt.Dims(list(size)) for size in (profile.min, profile.opt, profile.max))
        wanted.set_shape(images.name, *sizes)
        if config.add_optimization_profile(wanted) < 0:
            raise EngineError(f"TensorRT refuses the optimisation profile {profile}")


def sizes_of(dims: Any) -> tuple[int, ...]:
    """TensorRT's dimensions as a tuple; they have a length and items, and no iterator in every version."""
    return tuple(int(dims[index]) for index in range(len(dims)))


def _apply(tensorrt: Any, config: api.IBuilderConfig, options: Options) -> None:
    rtx = library(tensorrt) == "tensorrt_rtx"
    config.builder_optimization_level = options.optimisation_level
    if options.workspace_bytes:
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.version_compatible:
        config.set_flag(tensorrt.BuilderFlag.VERSION_COMPATIBLE)
    if not options.tf32:
        config.clear_flag(tensorrt.BuilderFlag.TF32)
    if options.hardware_compatibility != "none":
        name = options.hardware_compatibility.upper()
        level = getattr(tensorrt.HardwareCompatibilityLevel, name, None)
        if level is None:
            raise EngineError(f"TensorRT {tensorrt.__version__} has no hardware compatibility {name}")
        config.hardware_compatibility_level = level
    if not rtx:  # there it does nothing
        cache = config.create_timing_cache(options.timing_cache)
        if not config.set_timing_cache(cache, False):
            _log.warning("the timing cache is of another GPU or TensorRT; starting a new one")
            config.set_timing_cache(config.create_timing_cache(b""), False)
    if options.compute_capability:
        _aim_at(tensorrt, config, options.compute_capability)


def _aim_at(tensorrt: Any, config: Any, compute_capability: str) -> None:
    """Build for a GPU that is not here. Only TensorRT-RTX can."""
    name = f"SM{compute_capability.replace('.', '')}"
    kinds = getattr(tensorrt, "ComputeCapability", None)
    if kinds is None:
        raise EngineError(
            "TensorRT builds for the GPU it runs on and for no other: leave the compute capability away"
        )
    if not hasattr(kinds, name):
        known = sorted(
            (entry for entry in dir(kinds) if entry.startswith("SM")), key=lambda entry: int(entry[2:])
        )
        raise EngineError(f"TensorRT {tensorrt.__version__} does not know {name}, only {', '.join(known)}")
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(getattr(kinds, name), 0):
        raise EngineError(f"TensorRT {tensorrt.__version__} refuses to build for {name}")


def _timing_cache(tensorrt: Any, config: api.IBuilderConfig) -> bytes:
    if library(tensorrt) == "tensorrt_rtx":
        return b""
    cache = config.get_timing_cache()
    return bytes(memoryview(cache.serialize())) if cache is not None else b""


def _parser_errors(parser: api.OnnxParser) -> str:
    messages = []
    for index in range(min(parser.num_errors, _SHOWN_ERRORS)):
        error: Any = parser.get_error(index)
        where = f"node {error.node()}"
        if getattr(error, "node_name", None) is not None and error.node_name():
            where = f"node {error.node_name()} ({error.node_operator()})"
        messages.append(f"{where}: {' '.join(str(error.desc()).split())}")
    return "; ".join(messages) or "it does not say why; is it an ONNX file?"


@cache
def _logger(tensorrt: Any) -> Any:
    """TensorRT's log as log lines of the process; `errors` keeps its errors for the message.

    There is one for the process: TensorRT goes on with the first that it was given.
    """
    base: Any = tensorrt.ILogger

    class Log(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            level = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.WARNING}.get(
                severity.name, logging.DEBUG
            )
            if level == logging.ERROR:
                self.errors.append(" ".join(msg.split()))
            _log.log(level, "TensorRT: %s", msg)

    return Log()


def _monitor(tensorrt: Any, progress: Progress | None) -> Any:
    """An IProgressMonitor (TensorRT 10 has it): tells `progress`, and stops the build when cancelled."""
    base: Any = getattr(tensorrt, "IProgressMonitor", None)
    if base is None:
        return None

    class Monitor(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self.cancelled = threading.Event()
            self._outermost: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._outermost[phase_name] = num_steps
                self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._outermost:
                self._tell(phase_name, step + 1)
            return not self.cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            steps = self._outermost.pop(phase_name, None)
            if steps is not None and progress is not None:
                progress(phase_name, steps, steps)

        def _tell(self, phase_name: str, done: int) -> None:
            steps = self._outermost[phase_name]
            if progress is not None:
                progress(phase_name, min(done, steps), steps)

    return Monitor()


def _interruptible(build: Callable[[], Any], monitor: Any) -> Any:
    """Run a build in a thread: an exception may not pass through TensorRT's own stack."""
    result: Future[Any] = Future()

    def run() -> None:
        try:
            result.set_result(build())
        except BaseException as exc:
            result.set_exception(exc)

    thread = threading.Thread(target=run, name="tensorrt-build", daemon=True)
    thread.start()
    try:
        return result.result()
    except KeyboardInterrupt:
        if monitor is not None:
            monitor.cancelled.set()
        thread.join()
        raise
