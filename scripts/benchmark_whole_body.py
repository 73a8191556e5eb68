"""The whole-body composite through the service, beside MediaPipe's own Holistic where it is installed.

    scripts/bench whole-body

Images with one, two and five people are put together from the samples. They are sent in turn, one call at a
time, and further persons are counted round by round, because the speed of a shared machine changes. Holistic
knows one person only. All figures are of one run: read the ratios.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from scripts.benchmark import NO_LIMITS, ROOT, running_service
from service.client import connect
from service.core.geometry import Rgb8
from service.media.image import decode, encode

MODEL = "mediapipe_wholebody"
RUNS = 60
_WARM_UP = 60  # rounds, in which Triton compiles shapes of the other models too
Rounds = Sequence[Mapping[int, float]]
"""Seconds of the call for each number of people, round by round."""


def main() -> int:
    """Print the table."""
    person = decode((ROOT / "tests/data/astronaut.png").read_bytes(), NO_LIMITS)
    pictures = {count: np.concatenate([person] * count, axis=1) for count in (1, 2, 5)}
    with running_service(None) as (address, _, _):
        found, rounds = asyncio.run(_in_turn(address, pictures))
    official = _holistic(person)
    table = Table(title=f"median of {RUNS} rounds, one call at a time")
    for title in ("people found", "ms", "ms per further person", "of Holistic"):
        table.add_column(title, justify="right")
    for count in pictures:
        ms = statistics.median(times[count] for times in rounds) * 1e3
        further = "" if count == 1 else f"{_further_ms(rounds, count):.1f}"
        table.add_row(str(found[count]), f"{ms:.1f}", further, f"{ms / official:.2f}" if official else "")
    if official:
        table.add_row("Holistic, 1", f"{official:.1f}", "", "1.00")
    Console(width=100).print(table)
    if not official:
        print("Holistic was not measured: pip install mediapipe==0.10.21 into this environment to compare")
    return 0


def _further_ms(rounds: Rounds, count: int) -> float:
    """What one further person takes in an image of so many, ms: the median over the rounds."""
    return statistics.median((times[count] - times[1]) / (count - 1) for times in rounds) * 1e3


async def _in_turn(address: str, pictures: Mapping[int, Rgb8]) -> tuple[Mapping[int, int], Rounds]:
    """People found in each image, and what DetectPoses on the JPEG files took."""
    requests = {
        count: pb.DetectPosesRequest(
            image=types_pb2.Image(content=encode(picture, "jpeg")), model=MODEL, include_positions=True
        )
        for count, picture in pictures.items()
    }
    found: dict[int, int] = {}
    rounds: list[Mapping[int, float]] = []
    async with connect(address) as channel:
        stub = PoseServiceStub(channel)
        for _ in range(_WARM_UP + RUNS):
            times: dict[int, float] = {}
            for count, request in requests.items():
                started = time.perf_counter()
                answer = await stub.DetectPoses(request, timeout=60)
                times[count] = time.perf_counter() - started
                found[count] = len(answer.persons)
            rounds.append(times)
    return found, rounds[_WARM_UP:]


def _holistic(picture: Rgb8) -> float | None:
    """Median in ms of MediaPipe's own Holistic on the decoded image; None where it is not installed."""
    try:
        from mediapipe import solutions  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    with solutions.holistic.Holistic(static_image_mode=True, model_complexity=1) as holistic:
        process: Callable[[Rgb8], object] = holistic.process
        process(picture)
        times = []
        for _ in range(RUNS):
            started = time.perf_counter()
            process(picture)
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


if __name__ == "__main__":
    sys.exit(main())
