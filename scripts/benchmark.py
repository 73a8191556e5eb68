"""The bare model, Triton, and the gateway on the same images, in one run.

For every image size and every number in flight it prints images per second, latency, CPU time
per image and memory of (a) the compiled model alone, called in a loop on a prepared tensor, (b)
Triton alone, on the same tensor, and (c) the gateway, on the JPEG file; and how (b) and (c) compare
with (a). Decoding alone, in one thread, stands beside them: its share of (a) is what (c) could reach if
nothing but the model and decoding took time. `--ultralytics PYTHON` measures (d) Ultralytics' own
`predict` on the bytes of the JPEG file too, one after another, in an environment of its own.

All take turns, in rounds, because the speed of a shared machine changes from minute to minute: read the
ratios, which are medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from scripts.benchmark_decoding import decode_images, most_of_bare
from scripts.benchmark_peers import BareModel, Ultralytics
from scripts.ports import free_address, free_port
from service.cli.connection import Target
from service.cli.health import health
from service.client import connect
from service.core.geometry import Rgb8, choose_shape, letterbox
from service.media.image import ImageLimits, decode, encode
from service.settings import cpu_count
from service.triton.client import TritonClient

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "tests" / "data" / "two_people.jpg"
SIZES_WH = {"640×480": (640, 480), "1080p": (1920, 1080), "12 MP": (4032, 3024)}
NO_LIMITS = ImageLimits(max_bytes=1 << 30, max_pixels=1 << 30)


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        picture: name of the image size.
        what: what was measured, such as (a).
        in_flight: calls at once.
        per_second: images per second.
        of_bare: those of those of (a), the median over the rounds; None without (a). Of decoding alone, what
            it would leave of them.
        p50_ms, p95_ms, p99_ms: latency of one image.
        cpu_s: CPU seconds per image of the processes that serve, the caller's own left out.
        rss_mb: peak resident memory of those processes; the gateway's alone stands in gateway_rss_mb.
        gateway_rss_mb: peak resident memory of the gateway process; 0 where it takes no part.
    """

    picture: str
    what: str
    in_flight: int
    per_second: float
    of_bare: float | None
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_s: float
    rss_mb: float
    gateway_rss_mb: float


@dataclass
class _Contestant:
    """One that takes turns.

    Attributes:
        what: name.
        turn: makes calls for a while; latencies and wall time, seconds.
        serving: processes that serve.
        gateway: the gateway's, where it takes part.
        latencies, rates, cpu_s, rss_mb, gateway_rss_mb: of its turns; rates in images per second.
    """

    what: str
    turn: Callable[[], Awaitable[tuple[list[float], float]]]
    serving: Callable[[], Sequence[psutil.Process]]
    gateway: psutil.Process | None = None
    latencies: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    gateway_rss_mb: list[float] = field(default_factory=list)

    async def take_turn(self) -> None:
        """Take one."""
        with self._watched():
            latencies, wall_s = await self.turn()
        self.latencies += latencies
        self.rates.append(len(latencies) / wall_s)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """CPU seconds and memory of the processes while the block runs."""
        processes, done = self.serving(), threading.Event()

        def watch() -> None:
            while not done.is_set():
                self.rss_mb.append(sum(process.memory_info().rss for process in processes) / 1e6)
                self.gateway_rss_mb.append(self.gateway.memory_info().rss / 1e6 if self.gateway else 0.0)
                done.wait(0.1)

        before = sum(_cpu_s(process) for process in processes)
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            self.cpu_s.append(sum(_cpu_s(process) for process in processes) - before)

    def row(self, picture: str, in_flight: int, bare: _Contestant | None) -> Row:
        """What its turns showed, beside those of the bare model."""
        cuts = statistics.quantiles(self.latencies, n=100, method="inclusive")
        shares = [] if bare is None else [own / its for own, its in zip(self.rates, bare.rates, strict=True)]
        return Row(
            picture=picture,
            what=self.what,
            in_flight=in_flight,
            per_second=round(statistics.median(self.rates), 1),
            of_bare=round(statistics.median(shares), 3) if shares else None,
            p50_ms=round(cuts[49] * 1e3, 1),
            p95_ms=round(cuts[94] * 1e3, 1),
            p99_ms=round(cuts[98] * 1e3, 1),
            cpu_s=round(sum(self.cpu_s) / len(self.latencies), 4),
            rss_mb=round(max(self.rss_mb), 0),
            gateway_rss_mb=round(max(self.gateway_rss_mb), 0),
        )


def main() -> int:
    """Entry point of `scripts/bench`."""
    arguments = _arguments()
    console = Console(width=120)
    with running_service(arguments.triton, arguments.model) as (address, triton_url, process):
        rows = asyncio.run(_measure(arguments, address, triton_url, process))
    machine = f"{_cpu_name()}, {cpu_count()} CPUs, Python {platform.python_version()}"
    console.print(_table(rows, machine))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1, ensure_ascii=False)
        + "\n",
        encoding="utf-8",
    )
    console.print(f"written to {arguments.out}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each turn")
    parser.add_argument("--rounds", type=int, default=5, help="in which each takes its turn")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--sizes", nargs="+", default=list(SIZES_WH), choices=list(SIZES_WH))
    parser.add_argument("--model", default="yolo11n_pose", help="one that finds people itself")
    parser.add_argument(
        "--triton",
        metavar="URL",
        help="host:port of a running Triton, such as one with GPUs, not the bundled one",
    )
    parser.add_argument(
        "--ultralytics",
        type=Path,
        metavar="PYTHON",
        help="interpreter of an environment with ultralytics: its predict is measured too, one at a time",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench.json")
    return parser.parse_args()


@contextmanager
def running_service(
    triton_url: str | None,
    model: str = "yolo11n_pose",
    more: Mapping[str, str] | None = None,
    *,
    quiet: bool = False,
    checkout: Path = ROOT,
) -> Iterator[tuple[str, str, psutil.Process]]:
    """A gateway of its own, and Triton with it unless one is given; stopped at the end.

    It is ready once `model` has answered. `more` are environment variables of the service; `quiet` drops
    its log; `checkout` is the folder whose service it is.
    """
    address = free_address()
    bundled_port = free_port()
    environment = {
        **os.environ,
        "POSEGATE_LISTEN": address,
        "POSEGATE_LOG_LEVEL": "error",
        "POSEGATE_DEFAULT_MODEL": model,
        "POSEGATE_TRITON_URL": triton_url or f"127.0.0.1:{bundled_port}",
        **(more or {}),
    }
    command = "serve" if triton_url else "up"
    served = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "service", command],
        env=environment,
        cwd=checkout,
        stderr=subprocess.DEVNULL if quiet else None,
    )
    try:
        asyncio.run(_wait_until_serving(address, served))
        yield address, environment["POSEGATE_TRITON_URL"], psutil.Process(served.pid)
    finally:
        served.terminate()
        served.wait(60)


async def _wait_until_serving(address: str, served: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if served.poll() is not None:
            raise SystemExit(f"the service ended with {served.returncode}")
        if await health(Target(address)) == "SERVING":
            return
        await asyncio.sleep(0.2)
    raise SystemExit(
        "the service did not become ready within two minutes: is Triton there, and the model in it?"
    )


async def _measure(
    arguments: argparse.Namespace, address: str, triton_url: str, process: psutil.Process
) -> list[Row]:
    client = TritonClient(triton_url, shared_memory=triton_url.startswith("127."), slots=32)
    models = {model.name: model for model in await client.models() if model.family == "yolo_pose"}
    if arguments.model not in models:
        raise SystemExit(f"{arguments.model} is none of {', '.join(models)}")
    model = models[arguments.model]
    await client.attach(max(3 * h * w for h, w in model.shapes_hw) + model.candidates_bytes)
    original = decode(PICTURE.read_bytes(), NO_LIMITS)
    compiled = None if arguments.triton else BareModel(model)
    ultralytics = None
    if arguments.ultralytics is not None:
        ultralytics = Ultralytics(arguments.ultralytics, ROOT / ".posegate" / "weights" / model.weights)
        print(ultralytics.version, file=sys.stderr)
    rows: list[Row] = []
    plan = [(size, count) for size in arguments.sizes for count in arguments.in_flight]
    seconds = arguments.seconds
    async with connect(address) as channel:
        stub = PoseServiceStub(channel)
        for size, count in track(plan, description="measuring", console=Console(stderr=True)):
            picture = _fit(original, SIZES_WH[size])
            content = encode(picture, "jpeg", jpeg_quality=90)
            tensor, _ = letterbox(picture, choose_shape(SIZES_WH[size], model.shapes_hw))
            request = pb.DetectPosesRequest(image=types_pb2.Image(content=content), model=model.name)

            def here(what: str, loop: Callable[[], tuple[list[float], float]]) -> _Contestant:
                async def turn() -> tuple[list[float], float]:
                    return loop()

                return _Contestant(what, turn, lambda: [psutil.Process()])

            def alone(compiled: BareModel, tensor: Rgb8 = tensor, count: int = count) -> _Contestant:
                return here("(a) bare model", lambda: compiled.loop(tensor[None], count, seconds))

            def served(what: str, call: Callable[[], Awaitable[object]], count: int = count) -> _Contestant:
                return _Contestant(
                    what,
                    lambda: _load(call, count, seconds),
                    lambda: [process, *process.children(recursive=True)],
                    process,
                )

            def peer(ultralytics: Ultralytics, content: bytes = content) -> _Contestant:
                async def turn() -> tuple[list[float], float]:
                    return ultralytics.loop(content, seconds)

                return _Contestant("(d) Ultralytics", turn, lambda: [ultralytics.usage])

            def direct(tensor: Rgb8 = tensor) -> Awaitable[object]:
                deadline = time.monotonic() + 60
                return client.infer(model, {"images": tensor[None]}, ["candidates"], deadline=deadline)

            def through(request: pb.DetectPosesRequest = request) -> Awaitable[object]:
                return stub.DetectPoses(request, timeout=60)

            bare = None if compiled is None else alone(compiled)
            contestants = [
                *([] if bare is None else [bare]),
                served("(b) Triton", direct),
                served("(c) gateway", through),
                *([] if ultralytics is None else [peer(ultralytics)]),
            ]
            decoding = here("decoding alone", partial(decode_images, content, model, seconds))
            for one in (*contestants, decoding):
                await one.turn()  # warms it up
            for _ in range(arguments.rounds):
                for one in (*contestants, decoding):
                    await one.take_turn()
            rows += [one.row(size, count, bare) for one in contestants]
            if bare is not None:
                rows.append(_left_by_decoding(decoding.row(size, count, None), bare.row(size, count, bare)))
    if ultralytics is not None:
        ultralytics.close()
    await client.close()
    return rows


def _left_by_decoding(decoding: Row, bare: Row) -> Row:
    """The row of decoding with the share that it would leave of the bare model's images per second."""
    cpus = 1 if bare.in_flight == 1 else cpu_count()
    return replace(decoding, of_bare=round(most_of_bare(bare.per_second, decoding.cpu_s, cpus), 3))


async def _load(
    call: Callable[[], Awaitable[object]], in_flight: int, seconds: float
) -> tuple[list[float], float]:
    """Latencies in seconds, and the wall time, of so many callers that never pause."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < end:
            started = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return latencies, time.perf_counter() - started


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _table(rows: Sequence[Row], machine: str) -> Table:
    table = Table(title=machine)
    columns = (
        "picture",
        "in flight",
        "what",
        "per s",
        "of (a)",
        "p50 ms",
        "p95",
        "p99",
        "CPU-ms",
        "RSS MB",
        "gateway",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("picture", "what") else "right")
    for row in rows:
        table.add_row(
            row.picture,
            str(row.in_flight),
            row.what,
            f"{row.per_second:.1f}",
            "" if row.of_bare is None else f"{row.of_bare:.2f}",
            f"{row.p50_ms:.1f}",
            f"{row.p95_ms:.1f}",
            f"{row.p99_ms:.1f}",
            f"{row.cpu_s * 1e3:.1f}",
            f"{row.rss_mb:.0f}",
            f"{row.gateway_rss_mb:.0f}" if row.gateway_rss_mb else "",
        )
    return table


def _fit(picture: Rgb8, size_wh: tuple[int, int]) -> Rgb8:
    """The middle of the image with the wanted aspect, scaled to the wanted size."""
    width, height = size_wh
    full_h, full_w = picture.shape[:2]
    scale = min(full_w / width, full_h / height)
    cut_w, cut_h = round(width * scale), round(height * scale)
    left, top = (full_w - cut_w) // 2, (full_h - cut_h) // 2
    middle = picture[top : top + cut_h, left : left + cut_w]
    resized: Rgb8 = cv2.resize(middle, size_wh, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return resized


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
