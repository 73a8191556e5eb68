"""What the scenarios of `scripts/chaos` share: the service, the size of the run, rows and their bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from scripts.chaos_callers import PLAIN, Outcomes, photo, quantile
from scripts.chaos_service import CLIP, Process, Watched
from service.client import connect

MAX_RSS = 3 << 30  # the smallest limit that the chart sets for a gateway


@dataclass(frozen=True)
class Row:
    """What one scenario showed.

    Attributes:
        scenario: its name.
        outcomes: of the calls.
        watched: of the gateway.
        bounds: what has to hold, and whether it does.
    """

    scenario: str
    outcomes: Outcomes
    watched: Watched
    bounds: Sequence[tuple[str, bool]]

    @property
    def holds(self) -> bool:
        """Whether every bound does."""
        return all(holds for _, holds in self.bounds)


@dataclass(frozen=True)
class World:
    """What the scenarios share.

    Attributes:
        up: `posegate up`.
        folder: for logs and videos.
        scale: 1 for the whole run, less for a smaller one.
        soak_s: seconds of `soak`.
    """

    up: Process
    folder: Path
    scale: float
    soak_s: float

    def beside(self, **environment: str) -> Process:
        """Another gateway on the same Triton."""
        return Process("serve", self.folder, self.up.triton_url, environment=environment)

    def count(self, of_a_whole_run: int, at_least: int = 1) -> int:
        """A number of calls or rounds, of the size of this run."""
        return max(at_least, round(of_a_whole_run * self.scale))


def none_lost(outcomes: Outcomes) -> tuple[str, bool]:
    """Every call was answered."""
    return "0 lost", outcomes.sent > 0 and not outcomes.lost


def memory(watched: Watched) -> tuple[str, bool]:
    """The gateway stayed below the limit of its memory."""
    return f"RSS < {MAX_RSS >> 20} MiB", max(watched.rss, default=0) < MAX_RSS


def health_below(watched: Watched, seconds: float) -> tuple[str, bool]:
    """Health was answered in time."""
    return f"health p99 < {seconds * 1000:g} ms", 0 < quantile(watched.health_s, 0.99) < seconds


def bare_channel(address: str) -> grpc.aio.Channel:
    """A channel that never tries again."""
    return grpc.aio.insecure_channel(address, options=PLAIN)


async def answered(address: str, outcomes: Outcomes, count: int) -> None:
    """Calls of an ordinary caller, one after the other."""
    async with connect(address) as channel:
        stub = PoseServiceStub(channel)
        with outcomes.timed():
            for _ in range(count):
                await outcomes.of(stub.DetectPoses(photo(), timeout=30))


async def clip() -> AsyncIterator[pb.AnalyzeVideoRequest]:
    """A video, as its caller sends it."""
    yield pb.AnalyzeVideoRequest(config=pb.VideoConfig(target_fps=2))
    yield pb.AnalyzeVideoRequest(chunk=CLIP)
