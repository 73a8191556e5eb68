"""AnalyzeVideo, the bare model, and a loop of single calls on the same frames, in one run.

For every clip it prints frames per second of (a) the compiled model alone on a decoded frame, at its
best number in flight, (b) `DetectPoses` calls one after another on the frames as JPEG files, (c)
`AnalyzeVideo` with decoding and all, how (b) and (c) compare with (a), and the time to the first frame
result. Decoding alone, in one thread, stands beside them: its share of (a) is what (c) could reach if nothing
but the model and decoding took time. `--fairness N` adds the latency of single calls beside N videos;
`--minutes M` analyses a clip of that length and watches the memory of the gateway.

Figures of a busy machine are noise: read the ratios, which come from one run.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import psutil
from av.video.stream import VideoStream
from rich.console import Console
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from scripts.benchmark import _cpu_name, running_service
from scripts.benchmark_decoding import frame_cpu_s, most_of_bare
from scripts.benchmark_peers import BareModel
from service.client import connect
from service.core.geometry import Rgb8, choose_shape, letterbox
from service.core.model import Model
from service.media.image import encode
from service.settings import cpu_count
from service.triton.client import TritonClient

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
_CHUNK_BYTES = 1 << 18
_LOOPS = 4
_DECODING = "decoding alone, on one CPU"


@dataclass(frozen=True)
class Row:
    """One measurement; `first_s` is the time from the first chunk to the first frame result."""

    clip: str
    what: str
    per_second: float
    first_s: float | None = None


def main() -> int:
    """Entry point of `scripts/bench_video`."""
    parser = argparse.ArgumentParser(prog="scripts/bench_video", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="length of (a) and (b)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is measured; the best counts")
    parser.add_argument("--fairness", type=int, metavar="N", help="single calls beside N videos")
    parser.add_argument("--minutes", type=float, help="memory over a 1080p clip of so many minutes")
    parser.add_argument("--model", default="yolo11n_pose")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench_video.json")
    arguments = parser.parse_args()
    console = Console(width=110, highlight=False)
    machine = f"{_cpu_name()}, {cpu_count()} CPUs, Python {platform.python_version()}"
    with running_service(None) as (address, triton_url, process):
        rows = asyncio.run(_measure(arguments, address, triton_url))
        console.print(_table(rows, machine))
        report: dict[str, object] = {"machine": machine, "rows": [asdict(row) for row in rows]}
        if arguments.fairness:
            report["fairness"] = asyncio.run(_fairness(address, arguments.fairness, arguments.seconds))
            console.print(f"single calls beside {arguments.fairness} videos: {report['fairness']}")
        if arguments.minutes:
            report["memory"] = asyncio.run(_memory(address, process, arguments.minutes))
            console.print(f"{arguments.minutes:g} minutes of 1080p: {report['memory']}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(f"written to {arguments.out}")
    return 0


async def _measure(arguments: argparse.Namespace, address: str, triton_url: str) -> list[Row]:
    client = TritonClient(triton_url, shared_memory=False)
    model = {one.name: one for one in await client.models()}[arguments.model]
    await client.close()
    bare = BareModel(model)
    clips = {
        "single_person.mp4": _looped(DATA / "single_person.mp4", _LOOPS),
        "1080p": _looped_bytes(_landscape(DATA / "two_people.mp4"), _LOOPS),
    }
    rows: list[Row] = []
    async with connect(address) as channel:
        stub: PoseServiceAsyncStub = PoseServiceStub(channel)
        for name, content in clips.items():
            frames = _some_frames(content, 40)
            best: dict[str, Row] = {}
            for _ in range(arguments.rounds):
                for row in (
                    _bare_row(name, bare, model, frames[0], arguments.seconds),
                    await _calls_row(name, stub, frames, arguments.seconds),
                    await _video_row(name, stub, content),
                    Row(name, _DECODING, 1 / frame_cpu_s(content, model)),
                ):
                    if row.what not in best or row.per_second > best[row.what].per_second:
                        best[row.what] = row
            rows += best.values()
    return rows


def _bare_row(clip: str, bare: BareModel, model: Model, frame: Rgb8, seconds: float) -> Row:
    """The model on one frame that is decoded and fitted into its input: nothing but the model is counted."""
    tensor, _ = letterbox(frame, choose_shape((frame.shape[1], frame.shape[0]), model.shapes_hw))
    rates = []
    for in_flight in (1, cpu_count()):
        latencies, wall_s = bare.loop(tensor[None], in_flight, seconds / 2)
        rates.append(len(latencies) / wall_s)
    return Row(clip, "(a) bare model", max(rates))


async def _calls_row(clip: str, stub: PoseServiceAsyncStub, frames: Sequence[Rgb8], seconds: float) -> Row:
    files = [encode(frame, "jpeg", jpeg_quality=95) for frame in frames]
    count, started = 0, time.perf_counter()
    while time.perf_counter() < started + seconds:
        request = pb.DetectPosesRequest(image=types_pb2.Image(content=files[count % len(files)]))
        await stub.DetectPoses(request, timeout=60)
        count += 1
    return Row(clip, "(b) DetectPoses, one by one", count / (time.perf_counter() - started))


async def _video_row(clip: str, stub: PoseServiceAsyncStub, content: bytes) -> Row:
    started = time.perf_counter()
    first_s = None
    count = 0
    async for answer in stub.AnalyzeVideo(_requests(content)):
        if answer.HasField("frame"):
            count += 1
            first_s = first_s or time.perf_counter() - started
    return Row(clip, "(c) AnalyzeVideo", count / (time.perf_counter() - started), first_s)


async def _requests(content: bytes) -> AsyncIterator[pb.AnalyzeVideoRequest]:
    yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())
    for start in range(0, len(content), _CHUNK_BYTES):
        yield pb.AnalyzeVideoRequest(chunk=content[start : start + _CHUNK_BYTES])


async def _fairness(address: str, videos: int, seconds: float) -> dict[str, float]:
    """Latency of single calls, ms: alone, and beside so many videos."""
    content = _looped(DATA / "single_person.mp4", 20)
    picture = (DATA / "two_people.jpg").read_bytes()
    request = pb.DetectPosesRequest(image=types_pb2.Image(content=picture))
    async with connect(address) as channel:
        stub: PoseServiceAsyncStub = PoseServiceStub(channel)

        async def latencies() -> list[float]:
            found = []
            started = time.perf_counter()
            while time.perf_counter() < started + seconds:
                before = time.perf_counter()
                await stub.DetectPoses(request, timeout=60)
                found.append((time.perf_counter() - before) * 1e3)
                await asyncio.sleep(0.02)
            return found

        frames = [0] * videos

        async def watch(number: int) -> None:
            async for answer in stub.AnalyzeVideo(_requests(content)):
                frames[number] += answer.HasField("frame")

        idle = await latencies()
        watching = [asyncio.create_task(watch(number)) for number in range(videos)]
        await asyncio.sleep(2)
        before = list(frames)
        loaded = await latencies()
        each = [now - then for now, then in zip(frames, before, strict=True)]
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    return {
        "idle_p50": round(statistics.median(idle), 1),
        "idle_p99": round(_p99(idle), 1),
        "loaded_p50": round(statistics.median(loaded), 1),
        "loaded_p99": round(_p99(loaded), 1),
        "p99_ratio": round(_p99(loaded) / _p99(idle), 2),
        "frames_of_the_slowest_video": min(each),
        "frames_of_the_fastest_video": max(each),
    }


def _p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


async def _memory(address: str, process: psutil.Process, minutes: float) -> dict[str, float]:
    """Growth of the gateway's memory over a long clip, MB, and what is left of the spool."""
    clip = _landscape(DATA / "two_people.mp4", fps=30)
    async with connect(address) as channel:
        stub: PoseServiceAsyncStub = PoseServiceStub(channel)
        await _video_row("warm-up", stub, clip)
        before = process.memory_info().rss / 1e6
        peak = before
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "long.mkv"
            frames = _loop_to(io.BytesIO(clip), path, minutes * 60)
            size = path.stat().st_size

            async def upload() -> AsyncIterator[pb.AnalyzeVideoRequest]:
                yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())
                with path.open("rb") as file:
                    while chunk := file.read(_CHUNK_BYTES):
                        yield pb.AnalyzeVideoRequest(chunk=chunk)

            started = time.perf_counter()
            count = 0
            async for answer in stub.AnalyzeVideo(upload()):
                count += answer.HasField("frame")
                if answer.HasField("progress"):
                    peak = max(peak, process.memory_info().rss / 1e6)
            wall_s = time.perf_counter() - started
    left = sum("(deleted)" in file.path and "/tmp/" in file.path for file in process.open_files())  # noqa: S108
    return {
        "frames": count,
        "of": frames,
        "file_mb": round(size / 1e6, 1),
        "fps": round(count / wall_s, 1),
        "rss_before_mb": round(before),
        "rss_growth_mb": round(peak - before),
        "spool_files_left": left,
    }


def _looped(path: Path, times: int) -> bytes:
    return _looped_bytes(path.read_bytes(), times)


def _looped_bytes(content: bytes, times: int) -> bytes:
    """The same video so many times, its index in front."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with av.open(io.BytesIO(content), mode="r") as source:
            duration = source.duration or av.time_base
        _loop_to(io.BytesIO(content), path, times * duration / av.time_base - 1e-3)
        return path.read_bytes()


def _loop_to(source: io.BytesIO, path: Path, seconds: float) -> int:
    """Copy a video's packets again and again; the number of frames."""
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    count, shift = 0, 0
    with av.open(str(path), "w", options=options) as output:
        copy: VideoStream | None = None
        while True:
            source.seek(0)
            with av.open(source, mode="r") as video:
                track = video.streams.video[0]
                assert track.time_base is not None  # noqa: S101 - a file that was just made
                if copy is None:
                    copy = output.add_stream_from_template(track)
                last = 0
                for packet in video.demux(track):
                    if packet.dts is None or packet.pts is None:
                        continue
                    last = max(last, packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = copy
                    output.mux(packet)
                    count += 1
                shift += last
                if shift * track.time_base >= seconds:
                    return count


def _landscape(path: Path, fps: int = 60) -> bytes:
    """A portrait clip turned, cut to 1920×1080 and encoded anew."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "clip.mp4"
        with av.open(str(path)) as source, av.open(str(target), "w") as output:
            stream = output.add_stream("libx264", rate=fps)
            assert isinstance(stream, VideoStream)  # noqa: S101 - an encoder of images
            stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
            stream.codec_context.options = {"preset": "veryfast", "crf": "23"}
            for number, frame in enumerate(source.decode(video=0)):
                image = cv2.rotate(frame.to_ndarray(format="rgb24"), cv2.ROTATE_90_CLOCKWISE)
                turned = av.VideoFrame.from_ndarray(image[:1080, :1920].copy(), format="rgb24")  # type: ignore[arg-type]
                turned.pts, turned.time_base = number, Fraction(1, fps)
                output.mux(stream.encode(turned))
            output.mux(stream.encode(None))
        return target.read_bytes()


def _some_frames(content: bytes, count: int) -> list[Rgb8]:
    frames: list[Rgb8] = []
    with av.open(io.BytesIO(content), mode="r") as video:
        for frame in video.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))  # type: ignore[arg-type]
            if len(frames) == count:
                break
    return frames


def _table(rows: Sequence[Row], machine: str) -> Table:
    table = Table(title=machine)
    for title in ("clip", "what", "frames per s", "of (a)", "first result, s"):
        table.add_column(title, justify="left" if title in ("clip", "what") else "right")
    bare = {row.clip: row.per_second for row in rows if row.what.startswith("(a)")}
    for row in rows:
        share = row.per_second / bare[row.clip]
        if row.what == _DECODING:
            share = most_of_bare(bare[row.clip], 1 / row.per_second, cpu_count())
        table.add_row(
            row.clip,
            row.what,
            f"{row.per_second:.1f}",
            f"{share:.2f}",
            f"{row.first_s:.3f}" if row.first_s is not None else "",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
