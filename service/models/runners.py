"""Runners of a model on a batch of images: the graph on OpenVINO, a plan on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.core.poses import Floats
from service.models.cuda import Cuda
from service.models.engines import sizes_of
from service.models.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as api

Images = NDArray[np.uint8]


class Runner(Protocol):
    """Port: runs a model on an input and returns its outputs."""

    def run(self, images: Images) -> Mapping[str, Floats]:
        """The outputs by name, float32, for images (N, H, W, 3) uint8 RGB."""


class OpenVinoRunner:
    """The graph in float32 on the CPU: what a plan is held against.

    Args:
        graph: an ONNX file's bytes.

    Raises:
        EngineError: OpenVINO is not installed.
    """

    def __init__(self, graph: bytes) -> None:
        try:
            import openvino
        except ImportError as exc:
            raise EngineError(
                "the plan is compared with its graph on OpenVINO, which is not here: pip install "
                "'posegate[cpu]', or publish it uncompared with --no-comparison"
            ) from exc
        core = openvino.Core()
        model = core.read_model(graph)
        self._names = [output.get_any_name() for output in model.outputs]
        self._compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(self, images: Images) -> Mapping[str, Floats]:
        """The outputs by name."""
        results = self._compiled(images)
        return {name: np.asarray(results[index], np.float32) for index, name in enumerate(self._names)}


class TensorRtRunner:
    """A plan on the first GPU of this machine.

    Args:
        tensorrt: the module that built the plan.
        plan: its bytes.
        cuda: the GPU.

    Raises:
        EngineError: the plan does not load here.
    """

    def __init__(self, tensorrt: Any, plan: bytes, cuda: Cuda) -> None:
        self._cuda = cuda
        self._runtime: api.Runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
        self._runtime.engine_host_code_allowed = True  # for version-compatible plans; it is our own plan
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError("the plan does not load on this GPU; TensorRT says why in the lines above")
        self._engine: api.ICudaEngine = engine
        self._context = engine.create_execution_context()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise EngineError(f"the plan has {len(inputs)} inputs instead of one")
        self._input = inputs[0]
        self._outputs = [name for name in names if name not in inputs]

    def run(self, images: Images) -> Mapping[str, Floats]:
        """The outputs by name; EngineError when no profile takes this shape, or the GPU fails."""
        cuda, context = self._cuda, self._context
        images = np.ascontiguousarray(images)
        try:
            if not context.set_optimization_profile_async(self._profile(images.shape), cuda.stream):
                raise EngineError(f"the plan does not change to a profile for {images.shape}")
            context.set_input_shape(self._input, images.shape)
            address = cuda.allocate(images.nbytes)
            cuda.upload(address, images)
            context.set_tensor_address(self._input, address)
            results = {}
            for name in self._outputs:
                shape = sizes_of(context.get_tensor_shape(name))
                results[name] = cuda.allocate(4 * int(np.prod(shape))), shape
                context.set_tensor_address(name, results[name][0])
            if not context.execute_async_v3(cuda.stream):
                raise EngineError(f"the plan does not run for {images.shape}")
            return {name: cuda.download(where, shape) for name, (where, shape) in results.items()}
        finally:
            cuda.release()

    def _profile(self, shape: tuple[int, ...]) -> int:
        for index in range(self._engine.num_optimization_profiles):
            limits = self._engine.get_tensor_profile_shape(self._input, index)
            low, _, high = (sizes_of(dims) for dims in limits)
            if all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
                return index
        raise EngineError(f"the plan has no optimisation profile for {shape}")
