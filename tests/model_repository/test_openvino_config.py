"""What the OpenVINO backend reads in `config.pbtxt` and from the machine; without a Triton."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphs import config as backend_config
from graphs import machine
from graphs.compiler import supported_precision
from graphs.config import ConfigError, read_config
from graphs.shapes import padded


def config(
    dims: list[int], parameters: dict[str, str] | None = None, max_batch_size: int = 8
) -> dict[str, Any]:
    """A model configuration as Triton hands it over."""
    return {
        "max_batch_size": max_batch_size,
        "input": [{"name": "images", "data_type": "TYPE_UINT8", "dims": [str(dim) for dim in dims]}],
        "output": [{"name": "scores", "data_type": "TYPE_FP32", "dims": ["-1"]}],
        "parameters": {name: {"string_value": value} for name, value in (parameters or {}).items()},
    }


@pytest.mark.parametrize(
    ("dims", "shapes", "expected"),
    [
        ([-1, -1, 3], "384x640", ((384, 640),)),
        ([-1, -1, 3], "384x640,640x384", ((384, 640), (640, 384))),
        ([3, -1, -1], "8x9", ((8, 9),)),
        ([256, 192, 3], "", ((),)),
    ],
    ids=["one", "two", "channels first", "nothing free"],
)
def test_shapes_are_values_for_the_free_dims(
    dims: list[int], shapes: str, expected: tuple[tuple[int, ...], ...]
) -> None:
    parameters = {"shapes": shapes} if shapes else {}
    assert read_config(config(dims, parameters)).shapes == expected


@pytest.mark.parametrize(
    ("dims", "parameters", "message"),
    [
        ([-1, -1, 3], {}, r"parameter shapes must list them, as in '384x640'"),
        ([-1, -1, 3], {"shapes": "big"}, r"parameter shapes is 'big', not like '384x640,480x640'"),
        ([-1, -1, 3], {"shapes": "640"}, r"shapes has 640, but the inputs' free dims are \[2\]"),
        ([-1, -1, 3], {"shapes": "0x640"}, "shapes has 0x640"),
        (
            [-1, -1, 3],
            {"shapes": "8x8", "prepared_shapes": "8x9"},
            "prepared_shapes has 8x9, which shapes has",
        ),
        ([-1, -1, 3], {"shapes": "8x8", "pad_value": "grey"}, "pad_value is 'grey', not a whole number"),
        ([-1, -1, 3], {"shapes": "8x8", "max_compiled": "0"}, "the number of max_compiled is '0'"),
        (
            [-1, -1, 3],
            {"shapes": "8x8,8x9,9x9", "prepared_shapes": "8x8,8x9", "max_compiled": "1"},
            "max_compiled is 1, less than the 2 prepared",
        ),
        ([8, 8, 3], {"shapes": "8x8"}, "no input has a free dim"),
        ([8, 8, 3], {"precision": "fp16"}, "precision is 'fp16', not one of f32, bf16"),
        ([8, 8, 3], {"threads": "many"}, "the number of threads is 'many'"),
        ([8, 8, 3], {"streams": "0"}, "the number of streams is '0'"),
    ],
)
def test_a_wrong_parameter_is_refused_with_what_to_write(
    dims: list[int], parameters: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(config(dims, parameters))


@pytest.mark.parametrize(
    ("precision", "capabilities", "expected"),
    [
        ("bf16", ["FP32", "INT8", "BF16"], "bf16"),
        ("bf16", ["FP32", "INT8"], "f32"),
        ("f32", ["FP32", "INT8", "BF16"], "f32"),
    ],
)
def test_bf16_is_never_emulated(precision: str, capabilities: list[str], expected: str) -> None:
    assert supported_precision(precision, capabilities) == expected


def test_tensors_of_strings_are_refused() -> None:
    model = config([8])
    model["output"][0]["data_type"] = "TYPE_STRING"
    with pytest.raises(ConfigError, match="scores is of TYPE_STRING; only numbers are served"):
        read_config(model)


@pytest.mark.parametrize(
    ("max_batch_size", "parameters", "environment", "threads", "streams"),
    [
        (8, {}, None, 6, 2),
        (8, {}, "3", 3, 2),
        (8, {"threads": "4"}, "3", 4, 2),
        (8, {"threads": "4", "streams": "4"}, None, 4, 4),
        (8, {"threads": "1"}, None, 1, 1),
        (0, {}, None, 6, 1),
    ],
    ids=[
        "all CPUs",
        "environment",
        "the model first",
        "streams",
        "never more streams than threads",
        "unbatched",
    ],
)
def test_threads_come_from_the_model_the_environment_or_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    max_batch_size: int,
    parameters: dict[str, str],
    environment: str | None,
    threads: int,
    streams: int,
) -> None:
    monkeypatch.setattr(backend_config, "cpus_available", lambda: 6)
    monkeypatch.delenv("POSEGATE_CPU_THREADS", raising=False)
    if environment is not None:
        monkeypatch.setenv("POSEGATE_CPU_THREADS", environment)
    read = read_config(config([8], parameters, max_batch_size))
    assert (read.threads, read.streams) == (threads, streams)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
    ],
    ids=["no cgroup", "v2 without limit", "v2", "v1 without limit", "v1"],
)
def test_the_quota_of_a_container_is_read(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.cgroup_cpu_quota(tmp_path) == quota


def test_a_quota_below_the_affinity_counts_and_is_rounded_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(machine, "cgroup_cpu_quota", lambda root: 1.5)
    assert machine.cpus_available() == 2
    monkeypatch.setattr(machine, "cgroup_cpu_quota", lambda root: 99.0)
    assert machine.cpus_available() == 8


def test_an_input_is_padded_at_the_end_of_its_axes() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    larger = padded(image, (1, 3, 4, 3), 114)
    assert np.array_equal(larger[:, :2, :2], image)
    assert larger.sum() == image.sum() + 114 * (36 - 12)
    assert padded(image, image.shape, 114) is image
