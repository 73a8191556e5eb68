"""A GPU and a TensorRT that run in this process: device memory is host memory, a plan runs its graph."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np

from service.models.runners import OpenVinoRunner


class FakeDriver:
    """libcuda as ctypes would call it."""

    def __init__(self, failing: str = "", code: int = 2) -> None:
        self.failing, self.code = failing, code
        self.memory: dict[int, Any] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        function = getattr(type(self), f"_{name}", None)

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == self.failing:
                return self.code
            if function is not None:
                function(self, *arguments)
            return 0

        return call

    def _cuStreamCreate(self, stream: Any, flags: Any) -> None:  # noqa: N802
        stream._obj.value = 77

    def _cuMemAlloc_v2(self, address: Any, size: Any) -> None:  # noqa: N802
        buffer = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(buffer)
        self.memory[address._obj.value] = buffer

    def _cuMemFree_v2(self, address: Any) -> None:  # noqa: N802
        del self.memory[address.value]

    def _cuMemcpyHtoD_v2(self, target: Any, source: Any, size: Any) -> None:  # noqa: N802
        ctypes.memmove(target.value, source.value, size.value)

    def _cuMemcpyDtoH_v2(self, target: Any, source: Any, size: Any) -> None:  # noqa: N802
        ctypes.memmove(target.value, source.value, size.value)

    def _cuGetErrorName(self, code: Any, text: Any) -> None:  # noqa: N802
        text._obj.value = {2: b"CUDA_ERROR_OUT_OF_MEMORY"}.get(code.value)


class FakeTensorRT:
    """Loads `b"ftrt" + ONNX` and runs it. Only what a runner calls is here."""

    __name__ = "tensorrt"
    __version__ = "10.13.3.9"

    class TensorIOMode:
        INPUT = "input"
        OUTPUT = "output"

    class Logger:
        WARNING = 1

        def __init__(self, severity: int) -> None:
            pass

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger: Any) -> None:
            pass

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            return FakeEngine(plan[4:]) if plan[:4] == b"ftrt" else None


class FakeEngine:
    num_optimization_profiles = 2
    profiles = (
        ((1, 64, 64, 3), (2, 64, 64, 3), (4, 64, 64, 3)),
        ((1, 384, 288, 3),) * 2 + ((4, 384, 288, 3),),
    )

    def __init__(self, graph: bytes) -> None:
        self.runner = OpenVinoRunner(graph)
        self.names = ["keypoints", "crops", "scores", "positions"]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "crops" else "output"

    def get_tensor_profile_shape(self, name: str, index: int) -> Any:
        assert name == "crops"
        return self.profiles[index]

    def create_execution_context(self) -> Any:
        return FakeContext(self.runner)


class FakeContext:
    fails = False

    def __init__(self, runner: OpenVinoRunner) -> None:
        self.runner = runner
        self.profile = -1
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream == 77
        self.profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        rest: Mapping[str, tuple[int, ...]] = {"keypoints": (133, 2), "scores": (133,), "positions": (133, 3)}
        return (self.shape[0], *rest[name])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        size = int(np.prod(self.shape))
        pictures = np.frombuffer(ctypes.string_at(self.addresses["crops"], size), np.uint8).reshape(
            self.shape
        )
        for name, values in self.runner.run(pictures).items():
            ctypes.memmove(self.addresses[name], np.ascontiguousarray(values).ctypes.data, values.nbytes)
        return not self.fails
