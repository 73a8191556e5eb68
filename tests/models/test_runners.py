from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from service.models.cuda import DRIVER, Cuda
from service.models.errors import EngineError
from service.models.runners import OpenVinoRunner, TensorRtRunner
from tests.models.fake_gpu import FakeContext, FakeDriver, FakeTensorRT
from tests.models.tiny_graphs import top_down_graph

CROPS = np.random.default_rng(2).integers(0, 256, (3, 384, 288, 3), np.uint8)


def gpu(driver: FakeDriver | None = None) -> tuple[Cuda, FakeDriver]:
    driver = driver or FakeDriver()
    return Cuda(lambda name: driver), driver


def test_a_plan_gives_what_its_graph_gives() -> None:
    cuda, driver = gpu()
    plan = TensorRtRunner(FakeTensorRT(), b"ftrt" + top_down_graph(), cuda)
    wanted, given = OpenVinoRunner(top_down_graph()).run(CROPS), plan.run(CROPS[:, ::1])
    assert set(given) == {"keypoints", "scores", "positions"}
    for name, values in wanted.items():
        np.testing.assert_array_equal(given[name], values)
    assert given["keypoints"].dtype == np.float32
    assert plan.run(CROPS[:1])["scores"].shape == (1, 133)
    assert driver.memory == {}  # everything was given back
    cuda.close()
    assert driver.calls[-2:] == ["cuStreamDestroy_v2", "cuDevicePrimaryCtxRelease_v2"]


def test_the_profile_is_the_one_that_takes_the_shape() -> None:
    cuda, driver = gpu()
    plan = TensorRtRunner(FakeTensorRT(), b"ftrt" + top_down_graph(), cuda)
    plan.run(CROPS)
    context: Any = plan._context
    assert context.profile == 1
    with pytest.raises(EngineError, match=r"no optimisation profile for \(5, 384, 288, 3\)"):
        plan.run(np.concatenate([CROPS, CROPS[:2]]))
    assert driver.memory == {}


def test_what_is_no_plan_does_not_load() -> None:
    with pytest.raises(EngineError, match="does not load on this GPU"):
        TensorRtRunner(FakeTensorRT(), b"PK", gpu()[0])


def test_a_run_that_fails_is_an_error_and_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeContext, "fails", True)
    cuda, driver = gpu()
    plan = TensorRtRunner(FakeTensorRT(), b"ftrt" + top_down_graph(), cuda)
    with pytest.raises(EngineError, match="does not run for"):
        plan.run(CROPS)
    assert driver.memory == {}


@pytest.mark.parametrize(
    ("code", "name"), [(2, r"CUDA_ERROR_OUT_OF_MEMORY \(2\)"), (999, "error 999")], ids=["known", "unknown"]
)
def test_a_gpu_that_fails_is_an_error_that_names_it(code: int, name: str) -> None:
    cuda, _ = gpu(FakeDriver("cuMemAlloc_v2", code))
    plan = TensorRtRunner(FakeTensorRT(), b"ftrt" + top_down_graph(), cuda)
    with pytest.raises(EngineError, match=f"CUDA: cuMemAlloc_v2 gives {name}"):
        plan.run(CROPS)


def test_a_machine_without_a_driver_is_an_error_that_says_so() -> None:
    def nowhere(name: str) -> Any:
        assert name == DRIVER
        raise OSError("cannot open shared object file")

    with pytest.raises(EngineError, match="run this where the GPU is"):
        Cuda(nowhere)
    with pytest.raises(EngineError, match="cuInit gives error 100"):
        gpu(FakeDriver("cuInit", 100))


def test_without_openvino_the_error_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match="--no-comparison"):
        OpenVinoRunner(top_down_graph())
