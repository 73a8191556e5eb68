"""The cost of API keys: two gateways on one Triton, with keys and without, called alternately in one run.

It prints the median of GetServerInfo and of DetectPoses with keys off and on, their difference with its 95 %
interval, and the CPU time that the gateway takes for a call; what one tenant's DetectPoses takes beside
another tenant that has eight calls at work all the time; and the memory of a gateway before and after ten
thousand tenants have each called once. With --flood it also sends fifty thousand wrong keys, see
`scripts.benchmark_flood`: the memory before and after each fifth of them, the statements to the database
meanwhile, and how fast a right key is answered before, meanwhile and after.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import psutil
from rich.console import Console
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from scripts.benchmark import running_service
from scripts.benchmark_flood import DRAWING, Flood, flood
from scripts.chaos_callers import photo, strip
from scripts.ports import free_address
from service.accounts.keys import ApiKey, new_key
from service.client import connect
from service.store.address import parse
from service.store.database import Database
from service.store.schema import api_keys, tenants
from service.store.tenants import TenantStore

_LIMIT_MS, _LIMIT_MB = 0.15, 30
_CALLS = 10  # in a turn
_SAMPLES = 40  # of a tenant alone, and beside another
_AT_ONCE = 8  # calls of a tenant with the plan `standard`
_STATEMENTS = "statements"
_PLANS = """
[bench]
calls_per_month = 5400000
max_batch_size = "unlimited"
max_skeletons = "unlimited"
max_video_seconds = "unlimited"
own_models = true
calls_at_once = "unlimited"
streams_at_once = "unlimited"
calls_per_second = "unlimited"
burst = 1
"""


def main() -> int:
    """Entry point of `scripts/bench accounts`."""
    parser = argparse.ArgumentParser(prog="scripts/bench accounts", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=300, help=f"of {_CALLS} calls with keys off and as many with keys on"
    )
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument(
        "--flood", metavar="N", type=int, nargs="?", const=50_000, default=0, help="wrong keys; %(const)s"
    )
    parser.add_argument("--triton", metavar="URL", help="host:port of a running Triton, not the bundled one")
    arguments = parser.parse_args()
    console = Console(width=110)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(arguments.triton) as (off, triton_url, without),
    ):
        keys = asyncio.run(_fill(Path(folder), arguments.tenants))
        on = free_address()
        process = _gateway(on, triton_url, Path(folder))
        try:
            asyncio.run(_compare(console, arguments.rounds, (off, on), (without, process), keys[0].text))
            asyncio.run(_fairness(console, on, keys))
            asyncio.run(_memory(console, on, process, keys))
            if arguments.flood:
                count, statements = arguments.flood, Path(folder) / _STATEMENTS
                result = asyncio.run(
                    flood(on, process, keys[0].text, count, lambda: statements.stat().st_size)
                )
                console.print(_flooded(result, count))
        finally:
            process.terminate()
            process.wait(60)
    return 0


async def _fill(folder: Path, count: int) -> list[ApiKey]:
    """Tenants with a key each."""
    database = Database(parse(f"sqlite:///{folder}/posegate.db"), connections=2, timeout_s=120)
    await TenantStore(database).page(length=1)  # the tables are there
    keys, now = [new_key() for _ in range(count)], datetime.now(UTC)
    names = [f"tenant{number}" for number in range(count)]
    rows = [{"name": name, "plan": "bench", "create_time": now, "revision": 1} for name in names]
    own = {"label": "", "create_time": now, "revision": 1}
    key_rows = [
        {"key_id": key.key_id, "tenant": name, "digest": key.digest, **own}
        for name, key in zip(names, keys, strict=True)
    ]
    async with database.write() as connection:
        await connection.execute(tenants.insert(), rows)
        await connection.execute(api_keys.insert(), key_rows)
    await database.close()
    return keys


def _gateway(address: str, triton_url: str, folder: Path) -> psutil.Popen:
    plans = folder / "plans.toml"
    plans.write_text(_PLANS, encoding="utf-8")
    environment = {
        **os.environ,
        "POSEGATE_LISTEN": address,
        "POSEGATE_LOG_LEVEL": "error",
        "POSEGATE_TRITON_URL": triton_url,
        "POSEGATE_AUTH": "keys",
        "POSEGATE_PLANS": str(plans),
        "POSEGATE_DATABASE_URL": f"sqlite:///{folder}/posegate.db",
    }
    command = [sys.executable, "-m", "scripts.counted_gateway", str(folder / _STATEMENTS)]
    return psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL)


async def _compare(
    console: Console,
    rounds: int,
    addresses: tuple[str, str],
    processes: tuple[psutil.Process, psutil.Process],
    key: str,
) -> None:
    info = pb.GetServerInfoRequest()
    picture = strip()  # with a whole picture the model's own variation would hide the difference
    table = Table(
        "call",
        "off, ms",
        "on, ms",
        "on − off, ms",
        "95 %",
        "p95 off",
        "p95 on",
        "CPU off",
        "CPU on",
        title=f"medians of {rounds} rounds, in which both take turns",
    )
    async with connect(addresses[0]) as without, connect(addresses[1]) as with_keys:
        # The key goes as metadata on both sides, so that only the gateway makes the difference.
        stubs = [PoseServiceStub(without), PoseServiceStub(with_keys)]
        await asyncio.wait_for(with_keys.channel_ready(), 60)
        rpcs: list[tuple[str, Callable[[Any], Awaitable[Any]]]] = [
            ("GetServerInfo", lambda stub: stub.GetServerInfo(info, metadata=_sent(key))),
            ("DetectPoses", lambda stub: stub.DetectPoses(picture, metadata=_sent(key))),
        ]
        for name, call in rpcs:
            for stub in stubs:
                for _ in range(20):
                    await _until_ready(call, stub)
            medians: list[list[float]] = [[], []]
            took: list[list[float]] = [[], []]
            cpu_s = [0.0, 0.0]
            for number in range(rounds):
                for which in (0, 1) if number % 2 else (1, 0):
                    cpu_s[which] -= _cpu_s(processes[which])
                    some = [await _timed_ms(call, stubs[which]) for _ in range(_CALLS)]
                    medians[which].append(statistics.median(some))
                    took[which] += some
                    cpu_s[which] += _cpu_s(processes[which])
            p95 = [statistics.quantiles(one, n=20)[-1] for one in took]
            # Of neighbouring rounds: what else the machine does is the same for both.
            differences = sorted(b - a for a, b in zip(*medians, strict=True))
            difference = statistics.median(differences)
            verdict = "" if difference <= _LIMIT_MS else f" (more than {_LIMIT_MS})"
            low, high = _interval(differences)
            p50 = [f"{statistics.median(one):.3f}" for one in medians]
            rest = [*p95, *(1e3 * one / (rounds * _CALLS) for one in cpu_s)]
            table.add_row(
                name,
                *p50,
                f"{difference:+.3f}{verdict}",
                f"{low:+.3f} to {high:+.3f}",
                *(f"{one:.3f}" for one in rest),
            )
    console.print(table)


def _interval(values: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median of sorted values: the ranks between which a binomial count lies."""
    half = 0.98 * math.sqrt(len(values))
    middle, last = len(values) / 2, len(values) - 1
    return values[max(0, int(middle - half))], values[min(last, math.ceil(middle + half))]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _timed_ms(call: Callable[[Any], Awaitable[Any]], stub: Any) -> float:
    began = time.perf_counter()
    await call(stub)
    return (time.perf_counter() - began) * 1e3


async def _until_ready(call: Callable[[Any], Awaitable[Any]], stub: Any) -> None:
    """Wait until the gateway answers: it may still be reading Triton's models."""
    for _ in range(100):
        try:
            await call(stub)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(0.1)
        else:
            return
    raise SystemExit("the gateway with keys did not become ready")


async def _fairness(console: Console, on: str, keys: list[ApiKey]) -> None:
    """What one tenant feels of another that has as many calls at work as a plan allows."""
    picture = photo()
    busy, other = keys[:2]
    over = False
    async with connect(on) as channel, connect(on) as others:
        stub = PoseServiceStub(others)

        async def hammer() -> None:
            mine = PoseServiceStub(channel)
            while not over:
                await mine.DetectPoses(picture, metadata=_sent(busy.text))

        async def p50_ms() -> float:
            took = [
                await _timed_ms(lambda one: one.DetectPoses(picture, metadata=_sent(other.text)), stub)
                for _ in range(_SAMPLES)
            ]
            return statistics.median(took)

        alone = await p50_ms()
        hammers = [asyncio.create_task(hammer()) for _ in range(_AT_ONCE)]
        beside = await p50_ms()
        over = True
        await asyncio.gather(*hammers)
    console.print(
        f"DetectPoses of one tenant: p50 {alone:.1f} ms alone, {beside:.1f} ms ({beside / alone:.2f} ×) "
        f"beside another with {_AT_ONCE} calls at once"
    )


async def _memory(console: Console, on: str, process: psutil.Popen, keys: list[ApiKey]) -> None:
    async with connect(on) as channel:
        stub = SkeletonServiceStub(channel)
        for _ in range(500):
            await stub.RenderPoses(DRAWING, metadata=_sent(keys[0].text))
        before = process.memory_info().rss / 1e6

        async def some(first: int) -> None:
            for key in keys[first::8]:
                await stub.RenderPoses(DRAWING, metadata=_sent(key.text))

        await asyncio.gather(*(some(first) for first in range(8)))
        after = process.memory_info().rss / 1e6
    grown = after - before
    verdict = "" if grown <= _LIMIT_MB else f", more than {_LIMIT_MB}"
    console.print(
        f"{len(keys)} tenants that called once: RSS {before:.1f} → {after:.1f} MB (+{grown:.1f}{verdict})"
    )


def _flooded(result: Flood, count: int) -> Table:
    """A flood and what right keys felt of it."""
    rss, before = result.rss_mb, result.p50_ms["before"]
    grown = ", ".join(f"{one - rss[0]:+.1f}" for one in rss[1:])
    table = Table("right key", "p50, ms", "of before", "p99, ms", title=f"{count} wrong keys")
    for name, p50 in result.p50_ms.items():
        table.add_row(name, f"{p50:.2f}", f"{p50 / before:.2f} ×", f"{result.p99_ms[name]:.1f}")
    answers = ", ".join(f"{number} {code}" for code, number in result.answers.items())
    table.caption = (
        f"{result.seconds:.0f} s; {answers}; {result.queries} statements to the database; "
        f"RSS {rss[0]:.1f} MB, after each fifth {grown}"
    )
    return table


def _sent(key: str) -> tuple[tuple[str, str], ...]:
    return (("x-api-key", key),)


if __name__ == "__main__":
    sys.exit(main())
