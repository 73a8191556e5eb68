from __future__ import annotations

import _thread
import sys
import time
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from service.models.checkpoint import read_checkpoint
from service.models.engines import (
    Options,
    build_plan,
    library,
    load_tensorrt,
    profiles_for,
)
from service.models.errors import EngineError
from service.models.gpu_config import read_gpu_model
from service.models.manifest import Profile
from service.models.rtmw import rewrite
from service.models.yolo_graph import Precision, build_graph
from tests.models.rtmw_architecture import rtmw
from tests.models.rtx import RTX, needs_rtx
from tests.models.synthetic_yolo import parameters_of, yolov8_pose
from tests.models.tiny_graphs import top_down_graph

ROOT = Path(__file__).resolve().parents[2]
GPU_MODELS = ROOT / "model_repository" / "gpu"
YOLO11N = ROOT / ".posegate" / "weights" / "yolo11n-pose.pt"
# Every network of the GPU repository, and each family in both precisions: a large one takes half a minute.
BUILDS: tuple[tuple[str, Precision, str], ...] = (
    ("yolo11n_pose", "fp32", "8.0"),
    ("yolo11n_pose", "fp16", "8.9"),
    ("yolov8m_pose", "fp16", "8.9"),
    ("rtmw_l", "fp32", "8.0"),
    ("rtmw3d_x", "fp16", "8.9"),
)
SM89 = Options(compute_capability="8.9")


def public_file(name: str) -> bytes:
    made = rtmw() if name == "rtmw3d_x" else rtmw(widen=1.0, deepen=1.0, three=False)
    return bytes(made.SerializeToString())


@lru_cache(maxsize=1)  # a graph may have hundreds of megabytes
def graph(name: str, precision: Precision) -> bytes:
    if name == "yolo11n_pose" and not YOLO11N.is_file():
        pytest.skip("no weights: run scripts/setup")
    if name.startswith("rtmw"):  # random weights, in the file that would be downloaded
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.onnx"
            path.write_bytes(public_file(name))
            return bytes(rewrite(path, "rtmw3d" if "3d" in name else "rtmw", precision).SerializeToString())
    checkpoint = yolov8_pose("m") if name == "yolov8m_pose" else read_checkpoint(YOLO11N)
    return bytes(build_graph(checkpoint, precision).SerializeToString())


def test_the_synthetic_models_have_as_many_parameters_as_ultralytics_says() -> None:
    # `model.info()` of YOLOv8n-pose and YOLOv8m-pose, less the 16 fixed weights of the box decoder
    assert parameters_of(yolov8_pose("n")) == 3_295_470 - 16
    assert parameters_of(yolov8_pose("m")) == 26_464_462 - 16


def test_the_synthetic_whole_body_models_are_as_large_as_the_public_files() -> None:
    assert len(public_file("rtmw_l")) == pytest.approx(229_320_930, rel=1e-4)
    assert len(public_file("rtmw3d_x")) == pytest.approx(369e6, rel=2e-3)


def test_every_model_of_the_gpu_repository_is_built_here() -> None:
    assert {name for name, _, _ in BUILDS} == {path.parent.name for path in GPU_MODELS.glob("*/config.pbtxt")}


@needs_rtx
@pytest.mark.parametrize(("name", "precision", "compute_capability"), BUILDS)
def test_every_shipped_graph_builds_for_its_profiles(
    name: str, precision: Precision, compute_capability: str
) -> None:
    model = read_gpu_model(GPU_MODELS / name).model
    profiles = profiles_for(model.typical_hw, model.max_batch_size, other_hw=model.other_hw)
    data = graph(name, precision)
    built = build_plan(RTX, data, profiles, Options(compute_capability=compute_capability))
    assert built.plan[1:4] == b"trt"
    assert len(built.plan) > len(data) // 2
    print(f"{name} {precision} {compute_capability}: {len(built.plan) / 1e6:.1f} MB in {built.build_s:.1f} s")


@needs_rtx
def test_a_top_down_graph_builds_with_one_profile() -> None:
    model = read_gpu_model(GPU_MODELS / "rtmw3d_x").model
    (profile,) = profiles_for(model.shapes_hw, model.max_batch_size, best_batch=4)
    assert profile == Profile((1, 384, 288, 3), (4, 384, 288, 3), (16, 384, 288, 3))
    assert build_plan(RTX, top_down_graph(), [profile], SM89).plan


@needs_rtx
@pytest.mark.parametrize(
    "options",
    [
        Options(compute_capability="8.6", tf32=False, optimisation_level=1, workspace_bytes=1 << 28),
        Options(compute_capability="12.0"),
        Options(hardware_compatibility="ampere_plus"),
    ],
    ids=["8.6", "12.0", "ampere_plus"],
)
def test_options_reach_the_builder(options: Options) -> None:
    assert build_plan(RTX, top_down_graph(), profiles_for([(384, 288)], 2), options).plan


@needs_rtx
def test_progress_goes_from_the_first_step_to_the_last() -> None:
    seen: list[tuple[str, int, int]] = []
    build_plan(RTX, top_down_graph(), profiles_for([(384, 288)], 2), SM89, lambda *step: seen.append(step))
    phase, done, total = seen[-1]
    assert seen[0] == (phase, 0, total)
    assert done == total > 0
    assert all(0 <= step <= steps for _, step, steps in seen)


@needs_rtx
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "has 0 inputs instead of one"),
        (b"no graph at all", "Failed to parse the ONNX model"),
        (top_down_graph(extra="NonZeroish"), "node the_odd_one"),
        (top_down_graph(batch=1), "needs a first axis of any size"),
        (top_down_graph(width=192), "does not hold"),
    ],
    ids=["empty", "text", "unknown operator", "fixed batch", "other width"],
)
def test_a_graph_that_cannot_be_built_is_refused_with_the_reason(data: bytes, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        build_plan(RTX, data, profiles_for([(384, 288)], 2), SM89)


@needs_rtx
def test_an_unknown_gpu_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(EngineError, match=r"does not know SM77, only .*SM80, SM86, SM89"):
        build_plan(RTX, top_down_graph(), profiles_for([(384, 288)], 2), Options(compute_capability="7.7"))


def test_a_plan_is_tuned_for_half_the_largest_batch_unless_told_otherwise() -> None:
    assert [profile.opt[0] for profile in profiles_for([(640, 640), (384, 640)], 8)] == [4, 4]
    assert profiles_for([(640, 640)], 1)[0].opt == (1, 640, 640, 3)
    assert profiles_for([(640, 640)], 8, best_batch=8)[0].opt[0] == 8
    with pytest.raises(EngineError, match="cannot be tuned for 9"):
        profiles_for([(640, 640)], 8, best_batch=9)


def test_a_module_that_is_not_there_is_an_error_that_says_how_to_get_it() -> None:
    with pytest.raises(EngineError, match=r"posegate\[gpu\]"):
        load_tensorrt("tensorrt_that_is_not_there")
    with pytest.raises(EngineError, match="type stubs are here, and nothing else"):
        load_tensorrt("posegate")  # as the type stubs alone: a module, and no Builder in it


def test_the_bindings_alone_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = FakeTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_bindings", bindings)
    assert load_tensorrt() is bindings


@needs_rtx
def test_ctrl_c_ends_the_build_at_its_next_step() -> None:
    steps: list[int] = []

    def press(phase: str, done: int, total: int) -> None:
        steps.append(done)
        if len(steps) == 1:
            _thread.interrupt_main()
            time.sleep(1.0)  # a real build is not over before the main thread has woken up

    data = bytes(build_graph(yolov8_pose("n"), "fp32").SerializeToString())
    with pytest.raises(KeyboardInterrupt):
        build_plan(RTX, data, profiles_for([(640, 640)], 2), SM89, press)
    assert len(steps) < 8


class FakeTensorRT:
    """The part of TensorRT's own module that differs from TensorRT-RTX: a timing cache, no target GPU."""

    __name__ = "tensorrt"
    __version__ = "10.13.3.9"

    class ILogger:
        pass

    class NetworkDefinitionCreationFlag:
        STRONGLY_TYPED = 1

    class BuilderFlag:
        TF32 = "tf32"
        VERSION_COMPATIBLE = "version compatible"

    class Dims(tuple[int, ...]):
        __slots__ = ()

    class OnnxParser:
        def __init__(self, network: Any, log: Any) -> None:
            pass

        def parse(self, data: bytes) -> bool:
            return True

    class Builder:
        def __init__(self, log: Any) -> None:
            self.log = log
            self.plan: bytes | None = b"ftrt plan"

        def create_network(self, flags: int) -> Any:
            assert flags == 1 << 1
            images = type("Tensor", (), {"name": "images", "shape": (-1, -1, -1, 3)})
            return type("Network", (), {"num_inputs": 1, "get_input": lambda self, index: images})()

        def create_builder_config(self) -> Any:
            return FakeConfig()

        def create_optimization_profile(self) -> Any:
            return type("Profile", (), {"set_shape": lambda self, *shapes: None})()

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            return self.plan


CONFIGS: list[FakeConfig] = []


class FakeConfig:
    builder_optimization_level = 3

    def __init__(self) -> None:
        self.cache: Any = None
        self.flags: set[str] = set()
        CONFIGS.append(self)

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: Any) -> int:
        return 0

    def create_timing_cache(self, data: bytes) -> Any:
        return type("Cache", (), {"data": data, "serialize": lambda self: b"measured, after " + self.data})()

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return bool(cache.data != b"of another GPU")

    def get_timing_cache(self) -> Any:
        return self.cache


@pytest.mark.parametrize(
    ("kept", "left"),
    [(b"", b""), (b"earlier", b"earlier"), (b"of another GPU", b"")],
    ids=["none", "earlier", "foreign"],
)
def test_the_timing_cache_of_the_last_build_speeds_up_the_next(kept: bytes, left: bytes) -> None:
    built = build_plan(FakeTensorRT(), b"graph", profiles_for([(64, 64)], 2), Options(timing_cache=kept))
    assert (built.plan, built.timing_cache) == (b"ftrt plan", b"measured, after " + left)


def test_tensorrt_itself_builds_for_its_own_gpu_only() -> None:
    assert library(FakeTensorRT()) == "tensorrt"
    with pytest.raises(EngineError, match="for the GPU it runs on and for no other"):
        build_plan(FakeTensorRT(), b"graph", profiles_for([(64, 64)], 2), SM89)


def test_a_plan_for_newer_versions_is_asked_for_with_a_flag() -> None:
    build_plan(FakeTensorRT(), b"graph", profiles_for([(64, 64)], 2), Options(version_compatible=True))
    assert CONFIGS[-1].flags == {"version compatible"}


def test_a_build_that_fails_says_what_tensorrt_said() -> None:
    class Failing(FakeTensorRT):
        class Builder(FakeTensorRT.Builder):
            def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
                self.log.log(type("Severity", (), {"name": "ERROR"}), "no kernel\nfor node head/TopK")
                return None

    with pytest.raises(EngineError, match="cannot build the plan: no kernel for node head/TopK"):
        build_plan(Failing(), b"graph", profiles_for([(64, 64)], 2))


def test_a_machine_without_a_gpu_is_an_error_that_says_so() -> None:
    class NoGpu(FakeTensorRT):
        class Builder(FakeTensorRT.Builder):
            def __init__(self, log: Any) -> None:
                raise TypeError("pybind11::init(): factory function returned nullptr")

    with pytest.raises(EngineError, match="does not start; it needs a GPU"):
        build_plan(NoGpu(), b"graph", profiles_for([(64, 64)], 2))
