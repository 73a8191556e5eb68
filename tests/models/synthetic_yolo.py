"""YOLOv8 pose models of any size with random weights, made without PyTorch.

The layers are those of Ultralytics' `yolov8-pose.yaml`; widths and depths follow its `scales` as
`ultralytics/nn/tasks.py::parse_model` applies them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.models.checkpoint import Checkpoint, Module
from service.models.inert_pickle import Record
from service.models.torch_file import TorchFile

SCALES = {"n": (0.33, 0.25, 1024), "m": (0.67, 0.75, 768)}  # depth, width, largest number of channels
KEYPOINTS = 17
BINS = 16


class _Arrays:
    """In place of a file: tensors are arrays already."""

    def array(self, record: NDArray[Any]) -> NDArray[Any]:
        return record


def yolov8_pose(scale: str, seed: int = 0) -> Checkpoint:
    """The checkpoint; `sha256` is a stand-in."""
    layers = _Layers(np.random.default_rng(seed), *SCALES[scale])
    root = Module(
        "",
        "ultralytics.nn.tasks.PoseModel",
        {"_modules": {"model": _record("torch.nn.modules.container.Sequential", children=layers.build())}},
        cast("TorchFile", _Arrays()),
    )
    return Checkpoint(
        path=Path(f"yolov8{scale}-pose-random.pt"),
        sha256=f"{seed:064x}",
        model=root,
        kpt_shape=(KEYPOINTS, 3),
        names={0: "person"},
        licence="Apache-2.0",
        version="0",
        date="",
        train_args={},
    )


def parameters_of(checkpoint: Checkpoint) -> int:
    """How many trained numbers the model has; PyTorch counts 16 more, the fixed weights of `dfl`."""

    def count(record: Record) -> int:
        state = cast("dict[str, Any]", record.state)
        own = sum(int(value.size) for value in state["_parameters"].values() if value is not None)
        return own + sum(count(child) for child in state["_modules"].values())

    return sum(count(record) for record in checkpoint.model._modules().values())


class _Layers:
    def __init__(self, random: np.random.Generator, depth: float, width: float, most: int) -> None:
        self.random, self.depth, self.width, self.most = random, depth, width, most

    def channels(self, count: int) -> int:
        return -(-int(min(count, self.most) * self.width) // 8) * 8

    def repeats(self, count: int) -> int:
        return max(round(count * self.depth), 1)

    def build(self) -> dict[str, Record]:
        c = self.channels
        c2, c3, c4, c5 = c(128), c(256), c(512), c(1024)
        upsample, concat = "torch.nn.modules.upsampling.Upsample", "ultralytics.nn.modules.conv.Concat"
        up = {"mode": "nearest", "scale_factor": 2.0}
        layers: list[tuple[Record, int | list[int]]] = [
            (self.conv(3, c(64), 3, 2), -1),
            (self.conv(c(64), c2, 3, 2), -1),
            (self.c2f(c2, c2, 3, True), -1),
            (self.conv(c2, c3, 3, 2), -1),
            (self.c2f(c3, c3, 6, True), -1),
            (self.conv(c3, c4, 3, 2), -1),
            (self.c2f(c4, c4, 6, True), -1),
            (self.conv(c4, c5, 3, 2), -1),
            (self.c2f(c5, c5, 3, True), -1),
            (self.sppf(c5), -1),
            (_record(upsample, up), -1),
            (_record(concat, {"d": 1}), [-1, 6]),
            (self.c2f(c5 + c4, c4, 3, False), -1),
            (_record(upsample, up), -1),
            (_record(concat, {"d": 1}), [-1, 4]),
            (self.c2f(c4 + c3, c3, 3, False), -1),
            (self.conv(c3, c3, 3, 2), -1),
            (_record(concat, {"d": 1}), [-1, 12]),
            (self.c2f(c3 + c4, c4, 3, False), -1),
            (self.conv(c4, c4, 3, 2), -1),
            (_record(concat, {"d": 1}), [-1, 9]),
            (self.c2f(c4 + c5, c5, 3, False), -1),
            (self.head((c3, c4, c5)), [15, 18, 21]),
        ]
        for index, (record, sources) in enumerate(layers):
            cast("dict[str, Any]", record.state).update(i=index, f=sources)
        return {str(index): record for index, (record, _) in enumerate(layers)}

    def conv2d(self, inputs: int, outputs: int, size: int, stride: int, bias: bool) -> Record:
        scale = np.sqrt(2 / (inputs * size * size))
        weight = self.random.normal(0, scale, (outputs, inputs, size, size)).astype(np.float32)
        return _record(
            "torch.nn.modules.conv.Conv2d",
            {"stride": (stride, stride), "padding": (size // 2, size // 2), "dilation": (1, 1), "groups": 1},
            parameters={"weight": weight, "bias": np.zeros(outputs, np.float32) if bias else None},
        )

    def conv(self, inputs: int, outputs: int, size: int = 1, stride: int = 1) -> Record:
        norm = _record(
            "torch.nn.modules.batchnorm.BatchNorm2d",
            {"eps": 1e-3},
            parameters={"weight": np.ones(outputs, np.float32), "bias": np.zeros(outputs, np.float32)},
            buffers={
                "running_mean": np.zeros(outputs, np.float32),
                "running_var": np.ones(outputs, np.float32),
            },
        )
        return _record(
            "ultralytics.nn.modules.conv.Conv",
            children={
                "conv": self.conv2d(inputs, outputs, size, stride, bias=False),
                "bn": norm,
                "act": _record("torch.nn.modules.activation.SiLU"),
            },
        )

    def c2f(self, inputs: int, outputs: int, count: int, add: bool) -> Record:
        half, count = outputs // 2, self.repeats(count)
        bottlenecks = {
            str(index): _record(
                "ultralytics.nn.modules.block.Bottleneck",
                {"add": add},
                children={"cv1": self.conv(half, half, 3), "cv2": self.conv(half, half, 3)},
            )
            for index in range(count)
        }
        return _record(
            "ultralytics.nn.modules.block.C2f",
            children={
                "cv1": self.conv(inputs, 2 * half),
                "cv2": self.conv((2 + count) * half, outputs),
                "m": _record("torch.nn.modules.container.ModuleList", children=bottlenecks),
            },
        )

    def sppf(self, channels: int) -> Record:
        pool = {"kernel_size": 5, "stride": 1, "padding": 2, "dilation": 1, "ceil_mode": False}
        return _record(
            "ultralytics.nn.modules.block.SPPF",
            children={
                "cv1": self.conv(channels, channels // 2),
                "cv2": self.conv(channels * 2, channels),
                "m": _record("torch.nn.modules.pooling.MaxPool2d", pool),
            },
        )

    def head(self, levels: tuple[int, ...]) -> Record:
        values = KEYPOINTS * 3
        boxes, scores = max(16, levels[0] // 4, 4 * BINS), max(levels[0], 1)
        points = max(levels[0] // 4, values)
        return _record(
            "ultralytics.nn.modules.head.Pose",
            {
                "nc": 1,
                "nl": len(levels),
                "reg_max": BINS,
                "kpt_shape": [KEYPOINTS, 3],
                "stride": np.array([8, 16, 32], np.float32),
            },
            children={
                "cv2": self.branches(levels, boxes, 4 * BINS),
                "cv3": self.branches(levels, scores, 1),
                "cv4": self.branches(levels, points, values),
            },
        )

    def branches(self, levels: tuple[int, ...], middle: int, outputs: int) -> Record:
        branches = {
            str(index): _record(
                "torch.nn.modules.container.Sequential",
                children={
                    "0": self.conv(channels, middle, 3),
                    "1": self.conv(middle, middle, 3),
                    "2": self.conv2d(middle, outputs, 1, 1, bias=True),
                },
            )
            for index, channels in enumerate(levels)
        }
        return _record("torch.nn.modules.container.ModuleList", children=branches)


def _record(
    name: str,
    attributes: dict[str, Any] | None = None,
    children: dict[str, Record] | None = None,
    parameters: dict[str, Any] | None = None,
    buffers: dict[str, Any] | None = None,
) -> Record:
    state = {
        **(attributes or {}),
        "_modules": children or {},
        "_parameters": parameters or {},
        "_buffers": buffers or {},
    }
    return Record(name=name, args=(), state=state, items=[])
