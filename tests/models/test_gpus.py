from __future__ import annotations

import ctypes
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from service.models.errors import EngineError
from service.models.gpus import NVML, Gpu, tensorrt_version, visible_gpus
from tests.models.plans import A100, L4
from tests.models.rtx import RTX, needs_rtx


class Nvml:
    """NVML as ctypes would call it: results through pointers, zero for success."""

    def __init__(self, *gpus: Gpu, failing: str = "") -> None:
        self.gpus, self.failing, self.open = gpus, failing, 0

    def __getattr__(self, name: str) -> Any:
        function = getattr(type(self), f"_{name}")
        return lambda *arguments: 999 if name == self.failing else function(self, *arguments) or 0

    def _nvmlInit_v2(self) -> None:  # noqa: N802
        self.open += 1

    def _nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def _nvmlSystemGetDriverVersion(self, text: Any, size: Any) -> None:  # noqa: N802
        text.value = self.gpus[0].driver.encode() if self.gpus else b"1"

    def _nvmlDeviceGetCount_v2(self, count: Any) -> None:  # noqa: N802
        count._obj.value = len(self.gpus)

    def _nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Any) -> None:  # noqa: N802
        device._obj.value = 1000 + index.value

    def _nvmlDeviceGetName(self, device: Any, text: Any, size: Any) -> None:  # noqa: N802
        text.value = self.gpus[device.value - 1000].name.encode()

    def _nvmlDeviceGetCudaComputeCapability(self, device: Any, major: Any, minor: Any) -> None:  # noqa: N802
        numbers = self.gpus[device.value - 1000].compute_capability.split(".")
        major._obj.value, minor._obj.value = map(int, numbers)


def nowhere(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


def smi(output: str, code: int = 0) -> Any:
    return lambda *_, **__: subprocess.CompletedProcess([], code, output, "")


def no_smi(*_: Any, **__: Any) -> Any:
    raise FileNotFoundError("nvidia-smi")


def test_nvml_is_asked_for_every_gpu() -> None:
    nvml = Nvml(L4, A100)
    assert visible_gpus({NVML: nvml}.__getitem__, no_smi) == (L4, A100)
    assert nvml.open == 0


@pytest.mark.parametrize("failing", ["nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlDeviceGetName"])
def test_a_driver_that_does_not_answer_through_nvml_is_asked_through_nvidia_smi(failing: str) -> None:
    text = "NVIDIA L4, 8.9, 580.65.06\n"
    assert visible_gpus(lambda _: Nvml(L4, failing=failing), smi(text)) == (L4,)


def test_nvidia_smi_is_asked_where_there_is_no_nvml() -> None:
    text = "NVIDIA L4, 8.9, 580.65.06\nNVIDIA A100-SXM4-80GB, 8.0, 580.65.06\n\n"
    assert visible_gpus(nowhere, smi(text)) == (L4, A100)


@pytest.mark.parametrize(
    ("load", "run", "said"),
    [
        (nowhere, no_smi, "no NVIDIA driver answers here"),
        (nowhere, smi("NVIDIA-SMI has failed\n", 9), "nvidia-smi fails: NVIDIA-SMI has failed"),
        (nowhere, smi("No devices were found\n"), "no NVIDIA GPU can be seen"),
        (lambda _: Nvml(), no_smi, "no NVIDIA GPU can be seen"),
    ],
    ids=["neither", "smi fails", "smi finds none", "nvml finds none"],
)
def test_no_gpu_is_an_error_that_says_what_to_do(load: Any, run: Any, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        visible_gpus(load, run)


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has an NVIDIA GPU")
def test_this_machine_has_no_gpu_and_no_tensorrt() -> None:
    with pytest.raises(EngineError, match="no NVIDIA"):
        visible_gpus()
    with pytest.raises(EngineError, match="in the image that Triton runs in"):
        tensorrt_version(nowhere)


@needs_rtx
def test_the_version_comes_from_the_library_itself() -> None:
    folder = Path(str(import_module("tensorrt_rtx_libs").__file__)).parent
    library = next(folder.glob("libtensorrt_rtx.so*"))
    assert tensorrt_version(lambda _: ctypes.CDLL(str(library))) == RTX.__version__
