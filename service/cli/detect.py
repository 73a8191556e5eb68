"""`posegate detect`: pictures to JSON Lines and overlays, several requests in flight."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import grpc
from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.cli.connection import Target
from service.cli.files import is_device, partial, write_whole

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub  # what a stub on an aio channel is

_IN_FLIGHT = 8


@dataclass(frozen=True)
class Wish:
    """What to do with each picture.

    Attributes:
        gateway: to ask.
        model: empty for the service's default.
        skeleton: that keypoints are reported in; empty for the model's own.
        min_score: people must be above it; None for the service's default.
        overlay: folder for the drawn pictures, or None.
        overlay_format: png or jpeg.
        space_panel: draw the people in space beside the picture.
        results: file for JSON Lines, or None for a summary on the terminal.
        timeout_s: of each picture.
    """

    gateway: Target
    model: str
    skeleton: str
    min_score: float | None
    overlay: Path | None
    overlay_format: str
    space_panel: bool
    results: Path | None
    timeout_s: float


async def detect(pictures: Sequence[Path], wish: Wish) -> int:
    """Send every picture; returns the number that failed. One line on stderr for each of those."""
    console = Console(stderr=True, highlight=False, emoji=False)
    if wish.overlay is not None:
        wish.overlay.mkdir(parents=True, exist_ok=True)
    targets = _overlay_paths(pictures, wish)
    failed = 0
    async with wish.gateway.connect() as channel, _results(wish.results) as results:
        stub = PoseServiceStub(channel)
        with _progress(console, shown=len(pictures) > 1) as progress:
            task = progress.add_task("pictures", total=len(pictures))
            async for picture, answer in _in_order(stub, pictures, wish):
                progress.advance(task)
                if isinstance(answer, str):
                    failed += 1
                    progress.console.print(f"{picture}: {answer}", style="red", markup=False, soft_wrap=True)
                    if results is not None:
                        _write(results, {"picture": str(picture), "error": answer})
                    continue
                target = targets.get(picture)
                if target is not None:
                    write_whole(target, answer.overlay.content)
                if results is not None:
                    _write(results, {"picture": str(picture), **_as_dict(answer)})
                else:
                    _summarise(picture, answer, target)
    return failed


async def _in_order(
    stub: PoseServiceAsyncStub, pictures: Sequence[Path], wish: Wish
) -> AsyncIterator[tuple[Path, pb.DetectPosesResponse | str]]:
    """Answers in the order of the pictures, at most so many requests under way."""
    waiting: list[tuple[Path, asyncio.Task[pb.DetectPosesResponse | str]]] = []
    remaining = iter(pictures)
    try:
        while True:
            while len(waiting) < _IN_FLIGHT and (picture := next(remaining, None)) is not None:
                waiting.append((picture, asyncio.create_task(_one(stub, picture, wish))))
            if not waiting:
                return
            picture, task = waiting.pop(0)
            yield picture, await task
    finally:
        for _, task in waiting:
            task.cancel()


async def _one(stub: PoseServiceAsyncStub, picture: Path, wish: Wish) -> pb.DetectPosesResponse | str:
    try:
        content = await asyncio.to_thread(picture.read_bytes)
    except OSError as error:
        return error.strerror or str(error)
    request = pb.DetectPosesRequest(
        image=types_pb2.Image(content=content),
        model=wish.model,
        skeleton=wish.skeleton,
        include_positions=True,
    )
    if wish.min_score is not None:
        request.min_score = wish.min_score
    if wish.overlay is not None:
        request.overlay.format = (
            types_pb2.OVERLAY_FORMAT_JPEG if wish.overlay_format == "jpeg" else types_pb2.OVERLAY_FORMAT_PNG
        )
        request.overlay.space_panel = wish.space_panel
    try:
        return await stub.DetectPoses(request, timeout=wish.timeout_s)
    except grpc.aio.AioRpcError as error:
        return wish.gateway.explain(error)


def _overlay_paths(pictures: Sequence[Path], wish: Wish) -> dict[Path, Path]:
    """Where each overlay goes; pictures of one name in different folders get a number, and no overlay
    takes the place of a picture."""
    if wish.overlay is None:
        return {}
    suffix = ".jpg" if wish.overlay_format == "jpeg" else ".png"
    targets: dict[Path, Path] = {}
    folder = wish.overlay.resolve()
    taken = {picture.resolve() for picture in pictures}
    for picture in pictures:
        name, number = f"{picture.stem}{suffix}", 1
        while folder / name in taken:
            number += 1
            name = f"{picture.stem}-{number}{suffix}"
        taken.add(folder / name)
        targets[picture] = wish.overlay / name
    return targets


@asynccontextmanager
async def _results(path: Path | None) -> AsyncIterator[TextIO | None]:
    """A file that has its name only once it is complete; `-` is the terminal."""
    if path is None:
        yield None
    elif str(path) == "-":
        yield sys.stdout
    else:
        growing = path if is_device(path) else partial(path)
        with growing.open("w", encoding="utf-8") as file:
            yield file
        if growing != path:
            growing.replace(path)


def _write(file: TextIO, line: dict[str, object]) -> None:
    file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _as_dict(answer: pb.DetectPosesResponse) -> dict[str, object]:
    without_picture = pb.DetectPosesResponse()
    without_picture.CopyFrom(answer)
    without_picture.ClearField("overlay")
    return MessageToDict(
        without_picture, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _summarise(picture: Path, answer: pb.DetectPosesResponse, target: Path | None) -> None:
    size = answer.image_size
    count = len(answer.persons)
    print(
        f"{picture}: {count} {'person' if count == 1 else 'people'} in {size.width}×{size.height} px, "
        f"{answer.model}:{answer.model_version}, {answer.timings.total_ms:.1f} ms"
    )
    for number, person in enumerate(answer.persons):
        box = person.box
        sure = sum(point.score >= 0.5 for point in person.keypoints)
        print(
            f"  {number}. score {person.score:.2f}  "
            f"box {box.x1:.0f},{box.y1:.0f} to {box.x2:.0f},{box.y2:.0f}  "
            f"{sure} of {len(person.keypoints)} keypoints with score ≥ 0.5"
        )
    if target is not None:
        print(f"  overlay: {target}")


def _progress(console: Console, *, shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not (shown and console.is_terminal),
    )
