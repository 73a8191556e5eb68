"""`POST /infer/video`: the whole body of the most prominent person on every frame, as Server-Sent Events."""

from __future__ import annotations

import array
import json
import math
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, BinaryIO, cast

from starlette.requests import Request
from starlette.responses import Response

from posegate.v1 import pose_service_pb2 as pb
from service.web import answers
from service.web.analysis import analyze, begin_upload
from service.web.door import Door
from service.web.fields import Fields
from service.web.gateway import Caller, caller_of
from service.web.problems import Problem

SKELETON = "coco_wholebody_133"
_VALUES = 6  # of one keypoint: x, y, score, and x, y, z in space
_MEMORY_BYTES = 4 << 20  # of the frames; the rest is in a file
_QUIET_S = 10.0  # after which a comment keeps proxies from giving up
# What the file can be blamed for is an event; what the caller may not do, or the service cannot, is a status.
_EVENTS = frozenset({"INVALID_ARGUMENT", "DATA_LOSS", "OUT_OF_RANGE"})


class InferCalls:
    """The whole body in videos.

    Args:
        door: what the calls share.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    async def video(self, request: Request) -> Response:
        """A video in; progress after each frame and one result out."""
        door, caller = self._door, caller_of(request)
        upload = await begin_upload(request, door)
        try:
            Fields(upload.values).check()
            config = pb.VideoConfig(
                model=door.settings.whole_body_model or await self._model(caller),
                skeleton=SKELETON,
                layout=pb.FRAME_LAYOUT_FLAT,
            )
            running = analyze(door, caller, config, upload)
        except BaseException:
            upload.resources.close()
            raise
        run = _Run()
        try:
            first: pb.AnalyzeVideoResponse | dict[str, str] | Problem = await anext(running)
        except Problem as problem:
            await running.aclose()
            if problem.code not in _EVENTS:
                raise
            first = problem
        except BaseException:
            await running.aclose()
            raise
        return answers.Streamed(run.events(first, running), "text/event-stream")

    async def _model(self, caller: Caller) -> str:
        """The first model ready that gives positions; with the skeleton of its own before all others."""
        gateway = self._door.gateway
        answered = await gateway.call(
            gateway.pose.ListModels, pb.ListModelsRequest(page_size=1000), caller, pb.ListModelsResponse
        )
        able = [one for one in answered.message.models if one.ready and one.positions]
        if not able:
            raise Problem(
                503,
                "MODEL_NOT_READY",
                "No model of the whole body is ready; POSEGATE_WEB_WHOLE_BODY_MODEL may name one.",
                code="UNAVAILABLE",
                retry_after_s=5.0,
            )
        return min(able, key=lambda one: (one.skeleton != SKELETON, one.name)).name


class _Run:
    """One video: counts its frames, and keeps their numbers in a file until the end."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last_sent = self._started
        self._frames = 0
        self._total: int | None = None
        self._fps = 0.0
        self._file: BinaryIO

    async def events(
        self,
        first: pb.AnalyzeVideoResponse | dict[str, str] | Problem,
        rest: AsyncGenerator[pb.AnalyzeVideoResponse | dict[str, str], None],
    ) -> AsyncGenerator[bytes, None]:
        with tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as file:
            self._file = cast("BinaryIO", file)
            async with aclosing(rest):
                try:
                    if isinstance(first, Problem):
                        raise first
                    answer = first
                    while True:
                        if isinstance(answer, pb.AnalyzeVideoResponse):
                            async for piece in self._told(answer):
                                self._last_sent = time.monotonic()
                                yield piece
                        answer = await anext(rest)
                except StopAsyncIteration:
                    return
                except Problem as problem:
                    yield answers.event({"type": "error", "code": problem.reason, "message": problem.detail})

    async def _told(self, answer: pb.AnalyzeVideoResponse) -> AsyncGenerator[bytes, None]:
        kind = answer.WhichOneof("response")
        if kind == "started":
            video = answer.started.video
            if video.HasField("frame_count"):
                self._total = video.frame_count
        elif kind == "progress":
            self._fps = answer.progress.fps
            if answer.progress.HasField("total"):
                self._total = answer.progress.total
            if time.monotonic() - self._last_sent > _QUIET_S:
                yield b": at work\n\n"
        elif kind == "frame":
            array.array("f", answer.frame.values).tofile(self._file)
            self._frames += 1
            yield answers.event({"type": "progress", **self._progress()})
        elif kind == "summary":
            summary = answer.summary
            head = {
                "type": "result",
                "fps": round(summary.fps, 6),
                "frame_width": summary.frame_width,
                "frame_height": summary.frame_height,
                "total_frames": self._frames,
                "n_kpts": summary.n_kpts,
            }
            yield b"data: " + answers.dumped(head)[:-1] + b',"frames":['
            for piece in self._rows(summary.n_kpts * _VALUES):
                yield piece
            yield b"]}\n\n"

    def _progress(self) -> dict[str, Any]:
        elapsed = time.monotonic() - self._started
        fps = self._fps or self._frames / max(elapsed, 1e-3)
        total = None if self._total is None else max(self._total, self._frames)
        return {
            "frame": self._frames,
            "total": total,
            "pct": None if total is None else round(100 * self._frames / total, 1),
            "fps": round(fps, 2),
            "elapsed": round(elapsed, 2),
            "eta": None if total is None else round((total - self._frames) / fps, 2),
        }

    def _rows(self, length: int) -> list[bytes] | Any:
        """Every frame as a list of numbers, read back one by one."""
        self._file.seek(0)
        for number in range(self._frames):
            row = array.array("f")
            row.frombytes(self._file.read(length * row.itemsize))
            numbers = [round(value, 4) if math.isfinite(value) else 0 for value in row]
            yield (b"," if number else b"") + json.dumps(numbers, separators=(",", ":")).encode()
