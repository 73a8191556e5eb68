"""The gateway alone: calls against a stand-in model in the real Triton that answers at once.

What remains of a call is the gateway's own work, as it is beside a GPU. For every source, size and number in
flight it prints images per second, latency, and CPU milliseconds per image of the gateway process; 1000
divided by those are the images per second that one core of the gateway serves. The caller runs on the same
CPUs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import openvino
import psutil
from rich.console import Console
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from scripts.benchmark import NO_LIMITS, PICTURE, ROOT, SIZES_WH, _cpu_name, _fit, running_service
from service.client import connect
from service.core.geometry import Rgb8, letterbox
from service.media.image import decode, encode
from service.settings import cpu_count
from service.triton.launch import Launch
from service.triton.process import TritonProcess

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub

MODEL = "yolo11n_pose"
SHAPES_HW = {"640×480": (480, 640), "1080p": (384, 640), "12 MP": (480, 640)}
_RUNTIME = ROOT / ".posegate" / "triton"
_WARM_UP_HW = (640, 640)
_INSTANCES = 2  # of the stand-in: one copies its answer while the other takes a request
Call = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        source: "JPEG", by DetectPoses, or "raw RGB", by StreamPoses.
        size: name of the image size.
        in_flight: calls, or streams with one frame each, at once.
        per_second: images per second.
        p50_ms, p99_ms: latency of one image.
        cpu_ms: CPU time per image of the gateway process.
    """

    source: str
    size: str
    in_flight: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


def main() -> int:
    """Entry point of `scripts/bench gateway`."""
    parser = argparse.ArgumentParser(prog="scripts/bench gateway", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--sizes", nargs="+", default=["640×480", "1080p"], choices=list(SIZES_WH))
    parser.add_argument("--sources", nargs="+", default=["JPEG", "raw RGB"], choices=["JPEG", "raw RGB"])
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench_gateway.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(_with_triton(Path(folder), arguments))
    machine = f"{_cpu_name()}, {cpu_count()} CPUs, Python {platform.python_version()}"
    Console(width=120).print(_table(rows, machine))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1, ensure_ascii=False)
        + "\n",
        encoding="utf-8",
    )
    return 0


def write_stand_in(folder: Path, shapes_hw: set[tuple[int, int]]) -> None:
    """A model repository with the stand-in, which answers with what the real model says of the image."""
    source = ROOT / "model_repository" / "cpu" / MODEL
    config = (source / "config.pbtxt").read_text(encoding="utf-8")
    config = re.sub(r'backend: "\w+"', 'backend: "stand_in"', config)
    config = re.sub(
        r"instance_group \{[^}]*\}", f"instance_group {{ count: {_INSTANCES} kind: KIND_CPU }}", config
    )
    config = re.sub(r"^(model_warmup|dynamic_batching).*\n", "", config, flags=re.M)
    version = folder / MODEL / "1"
    version.mkdir(parents=True)
    (folder / MODEL / "config.pbtxt").write_text(config, encoding="utf-8")
    picture = decode(PICTURE.read_bytes(), NO_LIMITS)
    core = openvino.Core()
    candidates = {}
    for height, width in shapes_hw:
        graph = core.read_model(source / "1" / "model.onnx")
        graph.reshape({graph.input(0): [1, height, width, 3]})
        tensor, _ = letterbox(picture, (height, width))
        candidates[f"{height}x{width}"] = core.compile_model(graph, "CPU")([tensor[None]])[0][0]
    np.savez(version / "candidates.npz", **candidates)


@asynccontextmanager
async def stand_in_triton(folder: Path, shapes_hw: set[tuple[int, int]]) -> AsyncIterator[str]:
    """Triton with the stand-in model for these shapes, for the time of the block; gives its gRPC address."""
    write_stand_in(folder / "models", {_WARM_UP_HW, *shapes_hw})
    launch = Launch(
        runtime=_RUNTIME,
        model_repository=folder / "models",
        backends=ROOT / "scripts",
        cache=folder / "cache",
    )
    async with TritonProcess(launch) as triton:
        yield triton.grpc_url


async def _with_triton(folder: Path, arguments: argparse.Namespace) -> list[Row]:
    async with stand_in_triton(folder, {SHAPES_HW[size] for size in arguments.sizes}) as url:
        return await asyncio.to_thread(_with_gateway, url, arguments)


def _with_gateway(triton_url: str, arguments: argparse.Namespace) -> list[Row]:
    most = str(max(arguments.in_flight))
    with running_service(
        triton_url,
        MODEL,
        {
            "POSEGATE_MAX_IN_FLIGHT": most,
            "POSEGATE_MAX_STREAMS": most,
            "POSEGATE_MAX_STREAM_INFERENCES": "16",
            "POSEGATE_LOG_LEVEL": "info",  # a line a call, as in production
        },
        quiet=True,
    ) as (address, _, process):
        return asyncio.run(_measure(arguments, address, process))


async def _measure(arguments: argparse.Namespace, address: str, process: psutil.Process) -> list[Row]:
    original = decode(PICTURE.read_bytes(), NO_LIMITS)
    rows = []
    async with connect(address) as channel:
        stub = PoseServiceStub(channel)
        for source in arguments.sources:
            for size in arguments.sizes:
                picture = _fit(original, SIZES_WH[size])
                for count in arguments.in_flight:
                    with _calls(stub, source, picture) as new_call:
                        row = await _load(new_call, count, arguments.seconds, process)
                    rows.append(Row(source, size, count, *row))
    return rows


@contextmanager
def _calls(stub: PoseServiceAsyncStub, source: str, picture: Rgb8) -> Iterator[Callable[[], Call]]:
    """Gives the function that makes a caller."""
    if source == "JPEG":
        content = encode(picture, "jpeg", jpeg_quality=90)
        request = pb.DetectPosesRequest(image=types_pb2.Image(content=content), model=MODEL)

        async def call() -> None:
            await stub.DetectPoses(request, timeout=60)

        yield lambda: call
        return
    height, width = picture.shape[:2]
    raw = pb.RawImage(size=types_pb2.ImageSize(width=width, height=height), rgb=picture.tobytes())
    frame = pb.StreamPosesRequest(frame=pb.StreamFrame(raw=raw))
    streams: list[grpc.aio.StreamStreamCall[pb.StreamPosesRequest, pb.StreamPosesResponse]] = []

    def stream() -> Call:
        opened = stub.StreamPoses()
        streams.append(opened)
        begun = False

        async def call() -> None:
            nonlocal begun
            if not begun:
                begun = True
                await opened.write(pb.StreamPosesRequest(config=pb.StreamConfig(model=MODEL, track=False)))
            await opened.write(frame)
            while isinstance(answer := await opened.read(), pb.StreamPosesResponse):
                if answer.WhichOneof("response") == "result":
                    return
            raise RuntimeError("the stream ended")

        return call

    try:
        yield stream
    finally:
        for opened in streams:
            opened.cancel()


async def _load(
    new_call: Callable[[], Call], in_flight: int, seconds: float, process: psutil.Process
) -> tuple[float, float, float, float]:
    """Images per second, p50 and p99 in ms, CPU-ms per image, with so many callers that never pause."""
    calls = [new_call() for _ in range(in_flight)]
    await asyncio.gather(*(call() for call in calls))
    latencies: list[float] = []
    started, before = time.perf_counter(), _cpu_s(process)

    async def caller(call: Call) -> None:
        while time.perf_counter() < started + seconds:
            began = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(caller(call) for call in calls))
    wall_s, cpu_s = time.perf_counter() - started, _cpu_s(process) - before
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    count = len(latencies)
    return (
        round(count / wall_s, 1),
        round(cuts[49] * 1e3, 1),
        round(cuts[98] * 1e3, 1),
        round(cpu_s / count * 1e3, 2),
    )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _table(rows: list[Row], machine: str) -> Table:
    table = Table(title=machine)
    for column in ("source", "size", "in flight", "per s", "p50 ms", "p99 ms", "CPU-ms", "per s and core"):
        table.add_column(column, justify="left" if column in ("source", "size") else "right")
    for row in rows:
        table.add_row(
            row.source,
            row.size,
            str(row.in_flight),
            f"{row.per_second:.1f}",
            f"{row.p50_ms:.1f}",
            f"{row.p99_ms:.1f}",
            f"{row.cpu_ms:.2f}",
            f"{1e3 / row.cpu_ms:.0f}",
        )
    return table


if __name__ == "__main__":
    raise SystemExit(main())
