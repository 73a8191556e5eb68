"""Two gateways in turn: this checkout's and another's, on one Triton with the stand-in model.

Rounds of a second alternate, so that what else the machine does meets both. For each gateway it prints
CPU milliseconds per image of the event loop and of all other threads, the median over the rounds and the
lowest eighth, which a busy machine disturbs least; and the median of the ratios round by round. It fails
where the answers of the two differ. Both run in this environment, with this checkout's messages.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from scripts.benchmark import NO_LIMITS, PICTURE, ROOT, SIZES_WH, _fit, running_service
from scripts.benchmark_gateway import MODEL, SHAPES_HW, stand_in_triton
from service.client import connect
from service.media.image import decode, encode

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub

_WARM_UP = 200  # calls


class Round(NamedTuple):
    """One round: CPU-ms per image of the event loop, of the other threads and of all; p50 in ms."""

    loop_ms: float
    others_ms: float
    all_ms: float
    p50_ms: float


def main() -> int:
    """Entry point of `scripts/bench against`."""
    parser = argparse.ArgumentParser(prog="scripts/bench against", description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="folder of the other one")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--size", default="640×480", choices=list(SHAPES_HW))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds = asyncio.run(_with_triton(Path(folder), arguments))
    Console(width=120).print(_table(rounds))
    return 0


async def _with_triton(folder: Path, arguments: argparse.Namespace) -> list[list[Round]]:
    async with stand_in_triton(folder, {SHAPES_HW[arguments.size]}) as url:
        return await asyncio.to_thread(_with_gateways, url, arguments)


def _with_gateways(triton_url: str, arguments: argparse.Namespace) -> list[list[Round]]:
    settings = {"POSEGATE_MAX_IN_FLIGHT": "64", "POSEGATE_LOG_LEVEL": "info"}
    with ExitStack() as running:
        gateways = [
            running.enter_context(running_service(triton_url, MODEL, settings, quiet=True, checkout=checkout))
            for checkout in (arguments.checkout.resolve(), ROOT)
        ]
        return asyncio.run(_measure([(address, process) for address, _, process in gateways], arguments))


async def _measure(
    gateways: Sequence[tuple[str, psutil.Process]], arguments: argparse.Namespace
) -> list[list[Round]]:
    picture = _fit(decode(PICTURE.read_bytes(), NO_LIMITS), SIZES_WH[arguments.size])
    image = types_pb2.Image(content=encode(picture, "jpeg", jpeg_quality=90))
    request = pb.DetectPosesRequest(image=image, model=MODEL)
    async with AsyncExitStack() as connections:
        stubs = [
            PoseServiceStub(await connections.enter_async_context(connect(address)))
            for address, _ in gateways
        ]
        answers = [await _warmed_up(stub, request) for stub in stubs]
        if answers[0] != answers[1]:
            raise SystemExit("the answers of the two differ")
        rounds: list[list[Round]] = [[], []]
        for number in range(arguments.rounds):
            for place in (0, 1) if number % 2 else (1, 0):
                process = gateways[place][1]
                rounds[place].append(await _round(stubs[place], request, process, arguments))
    return rounds


async def _warmed_up(stub: PoseServiceAsyncStub, request: pb.DetectPosesRequest) -> pb.DetectPosesResponse:
    for _ in range(_WARM_UP):
        answer = await stub.DetectPoses(request, timeout=60)
    answer.ClearField("timings")
    return answer


async def _round(
    stub: PoseServiceAsyncStub,
    request: pb.DetectPosesRequest,
    process: psutil.Process,
    arguments: argparse.Namespace,
) -> Round:
    took_s: list[float] = []
    before, end = _threads_ns(process.pid), time.perf_counter() + arguments.seconds

    async def caller() -> None:
        while time.perf_counter() < end:
            began = time.perf_counter()
            await stub.DetectPoses(request, timeout=60)
            took_s.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(arguments.in_flight)))
    used = {thread: ns - before.get(thread, 0) for thread, ns in _threads_ns(process.pid).items()}
    all_ms = sum(used.values()) / 1e6 / len(took_s)
    loop_ms = used[process.pid] / 1e6 / len(took_s)
    return Round(loop_ms, all_ms - loop_ms, all_ms, statistics.median(took_s) * 1e3)


def _threads_ns(pid: int) -> dict[int, int]:
    """CPU time of each thread of a process, ns (Linux: /proc/PID/task/TID/schedstat)."""
    used = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # one that has just ended
            used[int(thread.name)] = int((thread / "schedstat").read_text(encoding="ascii").split()[0])
    return used


def _table(rounds: Sequence[Sequence[Round]]) -> Table:
    table = Table(title="CPU-ms per image: median (lowest eighth)")
    for column in ("gateway", "event loop", "other threads", "together", "p50 ms", "ratio, round by round"):
        table.add_column(column, justify="left" if column == "gateway" else "right")
    ratio = statistics.median(
        here.all_ms / other.all_ms for other, here in zip(rounds[0], rounds[1], strict=True)
    )
    for name, own, compared in (("the other", rounds[0], ""), ("this one", rounds[1], f"{ratio:.3f}")):
        columns = [sorted(values) for values in zip(*own, strict=True)]
        cells = [f"{statistics.median(values):.2f} ({values[len(values) // 8]:.2f})" for values in columns]
        table.add_row(name, *cells, compared)
    return table


if __name__ == "__main__":
    raise SystemExit(main())
