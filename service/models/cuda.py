"""Memory and streams of one NVIDIA GPU, through the driver's own interface.

Enough to run an engine without another package: libcuda comes with the driver. The functions are those of
https://docs.nvidia.com/cuda/cuda-driver-api.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.models.errors import EngineError

DRIVER = "libcuda.so.1"


class Cuda:
    """The first GPU: its primary context, one stream, and buffers by address. Close it when done.

    Raises:
        EngineError: there is no driver or GPU, or a call failed (out of memory, for one).
    """

    def __init__(self, load: Callable[[str], Any] = ctypes.CDLL) -> None:
        try:
            self._driver = load(DRIVER)
        except OSError as exc:
            raise EngineError(f"no NVIDIA driver is here ({exc}); run this where the GPU is") from exc
        self._device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(self._device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(0))
        self._stream = stream
        self._buffers: list[int] = []

    @property
    def stream(self) -> int:
        """Handle of the stream, as TensorRT wants it."""
        return int(self._stream.value or 0)

    def allocate(self, size: int) -> int:
        """A buffer of that many bytes; its address on the GPU."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        self._buffers.append(int(address.value))
        return int(address.value)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy a C-contiguous array to the GPU."""
        source = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), source, ctypes.c_size_t(array.nbytes))

    def download(self, address: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Copy float32 values back, once the stream has done what it was given."""
        array = np.empty(shape, np.float32)
        target = ctypes.c_void_p(array.ctypes.data)
        self.wait()
        self._call("cuMemcpyDtoH_v2", target, ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes))
        return array

    def wait(self) -> None:
        """Until the stream has done what it was given."""
        self._call("cuStreamSynchronize", self._stream)

    def release(self) -> None:
        """Give every buffer back."""
        while self._buffers:
            self._call("cuMemFree_v2", ctypes.c_uint64(self._buffers.pop()))

    def close(self) -> None:
        """Give everything back."""
        self.release()
        self._call("cuStreamDestroy_v2", self._stream)
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._driver, function)(*arguments)
        if code:
            raise EngineError(f"CUDA: {function} gives {self._name(code)}")

    def _name(self, code: int) -> str:
        text = ctypes.c_char_p()
        if self._driver.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text)) or not text.value:
            return f"error {code}"
        return f"{text.value.decode()} ({code})"
