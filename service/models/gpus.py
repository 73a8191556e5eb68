"""Which NVIDIA GPUs and which TensorRT this machine has.

The driver's own library is asked (NVML, which every container with a GPU gets), or else `nvidia-smi`;
TensorRT's version comes from the library that Triton loads. Only the standard library is used, so that this
also runs in NVIDIA's Triton image as it is.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.models.errors import EngineError

NVML = "libnvidia-ml.so.1"
TENSORRT_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so")
SMI_TIMEOUT_S = 30.0

_NAME_BYTES = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE
_VERSION_BYTES = 80  # NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE

Loader = Callable[[str], Any]
Runner = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: what NVIDIA calls it, such as `NVIDIA L4`.
        compute_capability: such as `8.9`; engines are built for one.
        driver: version of the driver, such as `580.65.06`.
    """

    name: str
    compute_capability: str
    driver: str


def visible_gpus(load: Loader = ctypes.CDLL, run: Runner = subprocess.run) -> tuple[Gpu, ...]:
    """Every GPU that this process can see.

    Args:
        load: opens a shared library.
        run: runs `nvidia-smi`.

    Raises:
        EngineError: there is none, or the driver does not answer.
    """
    try:
        found = _from_nvml(load(NVML))
    except (OSError, AttributeError, EngineError) as why:
        found = _from_smi(run, why)
    if not found:
        raise EngineError("no NVIDIA GPU can be seen; give the container one (in Kubernetes: nvidia.com/gpu)")
    return found


def tensorrt_version(load: Loader = ctypes.CDLL) -> str:
    """Version of the TensorRT library that a Triton on this machine loads, such as `10.13.3.9`.

    Raises:
        EngineError: there is no such library.
    """
    for name in TENSORRT_LIBRARIES:
        try:
            library = load(name)
            parts = [
                int(getattr(library, f"getInferLib{part}Version")())
                for part in ("Major", "Minor", "Patch", "Build")
            ]
        except (OSError, AttributeError):
            continue
        return ".".join(map(str, parts))
    raise EngineError(
        f"TensorRT is not here (no {TENSORRT_LIBRARIES[1]} or newer on the library path); "
        "run this in the image that Triton runs in"
    )


def _from_nvml(nvml: Any) -> tuple[Gpu, ...]:
    """Ask NVML (https://docs.nvidia.com/deploy/nvml-api)."""

    def ask(function: str, *arguments: Any) -> None:
        code = getattr(nvml, function)(*arguments)
        if code:
            raise EngineError(f"the NVIDIA driver does not answer ({function} gives {code})")

    ask("nvmlInit_v2")
    try:
        version = ctypes.create_string_buffer(_VERSION_BYTES)
        ask("nvmlSystemGetDriverVersion", version, ctypes.c_uint(_VERSION_BYTES))
        count = ctypes.c_uint()
        ask("nvmlDeviceGetCount_v2", ctypes.byref(count))
        found = []
        for index in range(count.value):
            device, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
            name = ctypes.create_string_buffer(_NAME_BYTES)
            ask("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device))
            ask("nvmlDeviceGetName", device, name, ctypes.c_uint(_NAME_BYTES))
            ask("nvmlDeviceGetCudaComputeCapability", device, ctypes.byref(major), ctypes.byref(minor))
            found.append(Gpu(_text(name), f"{major.value}.{minor.value}", _text(version)))
        return tuple(found)
    finally:
        nvml.nvmlShutdown()


def _from_smi(run: Runner, why: Exception) -> tuple[Gpu, ...]:
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        answer = run(query, capture_output=True, text=True, check=False, timeout=SMI_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise EngineError(
            f"no NVIDIA driver answers here ({why}; nvidia-smi: {exc}); run this where the GPU is, "
            "in a container with NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        ) from exc
    if answer.returncode != 0:
        output = " ".join((answer.stdout + answer.stderr).split())[:300]
        raise EngineError(f"nvidia-smi fails: {output or f'exit code {answer.returncode}'}")
    found = []
    for line in answer.stdout.splitlines():
        fields = [field.strip() for field in line.rsplit(",", 2)]
        if len(fields) == 3 and re.fullmatch(r"\d+\.\d+", fields[1]):
            found.append(Gpu(*fields))
    return tuple(found)


def _text(buffer: Any) -> str:
    return str(buffer.value.decode("utf-8", "replace"))
