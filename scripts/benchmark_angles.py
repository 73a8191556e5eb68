"""Mapping, measuring and drawing, without a model: what they cost for one person and for twenty.

    scripts/bench angles

Each figure is the median of many runs after a warm-up.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from service.core.angles import MEASUREMENTS, AngleOptions, Goniometer, goniometers, measure, person_measures
from service.core.drawing.angles import draw_angles
from service.core.geometry import Rgb8
from service.core.poses import Poses
from service.core.skeleton.mapping import MappingPlan, apply, plan_mapping
from service.core.skeleton.template import Keypoint, Skeleton
from service.media.image import ImageLimits, decode, encode
from service.skeletons import shipped

ROOT = Path(__file__).resolve().parent.parent
RUNS = 50
NINETEEN = tuple(name for name, measurement in MEASUREMENTS.items() if not measurement.extension)

# A standing figure of 500 px with arms raised, COCO-17, (x, y) px.
FIGURE = np.array(
    [(343.5, 268.9), (353.4, 268.3), (345.7, 259.1), (358.6, 274.5), (340.6, 253), (367.1, 318),
     (301.3, 294.1), (418.8, 336.8), (310.9, 239.9), (461.1, 352.2), (318.7, 195.6), (320, 400),
     (280, 400), (349.1, 479.9), (219.9, 460.1), (391.6, 553.5), (166.4, 526.2)],
    np.float32,
)  # fmt: skip


def main() -> int:
    """Print the table."""
    table = Table(title=f"median of {RUNS} runs")
    for title in ("what", "people", "ms"):
        table.add_column(title, justify="left" if title == "what" else "right")
    picture = decode((ROOT / "tests/data/two_people.jpg").read_bytes(), ImageLimits(1 << 30, 1 << 30))
    hd: Rgb8 = np.asarray(cv2.resize(picture, (1920, 1080)), np.uint8)
    skeleton = shipped()["coco_17"]
    with_neck = Skeleton(
        "with_neck",
        "With a neck",
        (*skeleton.keypoints, Keypoint("neck", sources=(("left_shoulder", 1.0), ("right_shoulder", 1.0)))),
    )
    plan = plan_mapping(skeleton, with_neck)
    options = AngleOptions(size_wh=(1920, 1080))
    for count in (1, 20):
        poses = _people(count)
        steps: dict[str, Callable[[], object]] = {
            "map to a template with a derived point": partial(apply, plan, poses),
            "19 measurements, both sides, as arrays": partial(measure, poses, skeleton, NINETEEN, options),
            "mapping, measuring, every answer in words": partial(_answers, plan, poses, with_neck, options),
        }
        for what, step in steps.items():
            table.add_row(what, str(count), _median(step))
    poses = _people(1)
    one = measure(poses, skeleton, ("shoulder_abduction",), options)
    everything = measure(poses, skeleton, NINETEEN, options)
    for what, measured in (("one measurement", one), ("all 19, both sides", everything)):
        dials = goniometers(measured, 0)
        table.add_row(
            f"overlay of {what} on 1920×1080, JPEG included",
            "1",
            _median(partial(_overlay, hd, dials)),
        )
    Console(width=100).print(table)
    return 0


def _answers(plan: MappingPlan, poses: Poses, skeleton: Skeleton, options: AngleOptions) -> None:
    measured = measure(apply(plan, poses), skeleton, NINETEEN, options)
    for index in range(len(poses)):
        person_measures(measured, index)


def _overlay(picture: Rgb8, dials: tuple[Goniometer, ...]) -> None:
    encode(draw_angles(picture, dials), "jpeg")


def _people(count: int) -> Poses:
    noise = np.random.default_rng(0).normal(0, 1, (count, 17, 2)).astype(np.float32)
    points = FIGURE[None] + noise
    keypoints = np.concatenate([points, np.full((count, 17, 1), 0.9, np.float32)], axis=2)
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return Poses(boxes_xyxy=boxes, scores=np.full(count, 0.9, np.float32), keypoints=keypoints)


def _median(work: Callable[[], object]) -> str:
    for _ in range(3):
        work()
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return f"{statistics.median(times) * 1e3:.2f}"


if __name__ == "__main__":
    sys.exit(main())
