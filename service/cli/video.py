"""`posegate video`: a video to JSON Lines, an annotated video, a plot of angles and a table.

Results are written to `.partial` files that get their names when they are complete. A JSON Lines file
that an interruption left is gone on with.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.cli.connection import Target
from service.cli.files import is_device, partial, write_whole
from service.cli.plots import Curve, draw_curves
from service.cli.resume import Earlier, earlier

_CHUNK_BYTES = 1 << 18
_MOST_S = 86_400.0 * 365
_MOST_CURVES = 8
_TABLE_WIDTH = 120
_USELESS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)


@dataclass(frozen=True)
class Wish:
    """What to do with the video; None and empty are the service's defaults, or nothing."""

    gateway: Target
    model: str
    skeleton: str
    measurements: tuple[str, ...]
    every_nth: int | None
    target_fps: float | None
    start_s: float
    end_s: float | None
    smooth: bool
    out: Path | None
    annotated: Path | None
    plot: Path | None


class BadWish(Exception):
    """The options cannot be meant; the text says which, and what to change."""


class CutShort(Exception):
    """The analysis ended before its time; the text says why."""


async def video(clip: Path, wish: Wish) -> None:
    """Send the video and write what comes.

    Raises:
        BadWish: an option cannot be meant; nothing was sent.
        CutShort: the service refused it, or the stream ended early.
        OSError: a file cannot be read or written.
    """
    _check(clip, wish)
    console = Console(stderr=True, highlight=False)
    config = _config(wish)
    head = {
        "clip": clip.name,
        "bytes": await asyncio.to_thread(lambda: clip.stat().st_size),
        "config": MessageToDict(config, preserving_proto_field_name=True),
    }
    before = await asyncio.to_thread(_earlier, wish, head, console)
    if before.last is not None:
        console.print(f"going on after frame {before.last['frame_index']}, {before.last['time']}")
        start_s = before.start_s(wish.start_s, wish.target_fps)
        config.start.FromNanoseconds(round(start_s * 1e9))
    lines = list(before.lines)
    summary = None
    with ExitStack() as files:
        out = _open_text(files, wish.out, before.end)
        annotated = _open_binary(files, wish.annotated)
        if not before.end:
            _write(out, head)
        progress = files.enter_context(_progress(console))
        task = progress.add_task(clip.name, total=100.0, frames="", rate="")
        try:
            async with wish.gateway.connect() as channel:
                async for answer in PoseServiceStub(channel).AnalyzeVideo(_requests(clip, config)):
                    kind = answer.WhichOneof("response")
                    if kind == "frame":
                        line = _as_dict(answer.frame)
                        line["frame_index"] = answer.frame.frame_index  # a number; JSON has int64 as text
                        if before.add(line):
                            lines.append(_kept(line))
                            _write(out, line)
                    elif kind == "progress":
                        _show(progress, task, answer.progress)
                    elif kind == "annotated_chunk" and annotated is not None:
                        annotated.write(answer.annotated_chunk)
                    elif kind == "summary":
                        summary = before.whole(answer.summary, lines)
                        _write(out, {"summary": _as_dict(summary)})
        except grpc.aio.AioRpcError as error:
            can_go_on = wish.out is not None and wish.annotated is None and error.code() not in _USELESS
            again = " Run it again to go on." if can_go_on else ""
            raise CutShort(f"{clip}: {wish.gateway.explain(error)}{again}") from error
    if summary is None:
        raise CutShort(f"{clip}: the stream ended without a summary")
    for path in (wish.out, wish.annotated):
        if path is not None:
            partial(path).replace(path)
    if wish.plot is not None:
        curves = _Curves()
        for line in lines:
            curves.add(line)
        left_out = await asyncio.to_thread(_plot, wish.plot, clip.name, curves)
        if left_out:
            console.print(
                f"{wish.plot}: the {_MOST_CURVES} longest curves; {left_out} more are in --out only"
            )
    _report(summary, before)


def _check(clip: Path, wish: Wish) -> None:
    """Refuse what would fail only after the whole upload."""
    if not clip.is_file():
        raise BadWish(f"{clip}: {'is a folder' if clip.is_dir() else 'there is no such file'}")
    if wish.every_nth is not None and wish.target_fps is not None:
        raise BadWish("--every-nth and --target-fps: give one of them")
    for option, seconds in (("--start", wish.start_s), ("--end", wish.end_s)):
        if seconds is not None and not 0 <= seconds <= _MOST_S:
            raise BadWish(f"{option} {seconds:g}: must be a number of seconds from 0 to {_MOST_S:.0f}")
    outputs = [path for path in (wish.out, wish.annotated, wish.plot) if path is not None]
    if len({path.resolve() for path in (*outputs, clip)}) <= len(outputs):
        raise BadWish("--out, --annotated, --plot and the clip: must be different files")
    for path in outputs:
        if not path.absolute().parent.is_dir():
            raise BadWish(f"{path}: there is no folder {path.absolute().parent}")
        if path.is_dir() or is_device(path):
            raise BadWish(f"{path}: is {'a folder' if path.is_dir() else 'no file'}")


def _config(wish: Wish) -> pb.VideoConfig:
    config = pb.VideoConfig(
        model=wish.model,
        skeleton=wish.skeleton,
        measurements=wish.measurements,
        include_positions=True,
        smoothing=pb.SMOOTHING_ONE_EURO if wish.smooth else pb.SMOOTHING_OFF,
    )
    if wish.every_nth is not None:
        config.every_nth_frame = wish.every_nth
    elif wish.target_fps is not None:
        config.target_fps = wish.target_fps
    config.start.FromNanoseconds(round(wish.start_s * 1e9))
    if wish.end_s is not None:
        config.end.FromNanoseconds(round(wish.end_s * 1e9))
    if wish.annotated is not None:
        config.annotated_video = pb.ANNOTATED_VIDEO_MP4
        config.overlay.CopyFrom(types_pb2.OverlayOptions())
    return config


async def _requests(clip: Path, config: pb.VideoConfig) -> AsyncIterator[pb.AnalyzeVideoRequest]:
    yield pb.AnalyzeVideoRequest(config=config)
    file = await asyncio.to_thread(clip.open, "rb")
    with file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield pb.AnalyzeVideoRequest(chunk=chunk)


def _open_text(files: ExitStack, path: Path | None, end: int) -> TextIO | None:
    """The partial file, to go on writing it after so many bytes; what it holds up to there stays."""
    if path is None:
        return None
    file = files.enter_context(partial(path).open("a", encoding="utf-8", buffering=1))
    file.truncate(end)
    return file


def _open_binary(files: ExitStack, path: Path | None) -> BinaryIO | None:
    return None if path is None else files.enter_context(partial(path).open("wb"))


def _write(file: TextIO | None, line: dict[str, Any]) -> None:
    if file is not None:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _earlier(wish: Wish, head: dict[str, Any], console: Console) -> Earlier:
    """What an interrupted run of the same analysis left."""
    if wish.out is None or not partial(wish.out).is_file():
        return Earlier()
    if wish.annotated is not None:
        console.print(f"{partial(wish.out)}: an annotated video cannot be gone on with, starting anew")
        return Earlier()
    found = earlier(partial(wish.out), head)
    if found is None:
        console.print(f"{partial(wish.out)} is of another video or other options: starting anew")
    return found or Earlier()


def _kept(line: dict[str, Any]) -> dict[str, Any]:
    """What is still needed of a frame that was written."""
    people = [{"track_id": one["track_id"]} for one in line.get("persons", [])]
    return {key: line[key] for key in ("frame_index", "time", "angles")} | {"persons": people}


def _as_dict(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


class _Rate(ProgressColumn):
    """Frames, and frames a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['frames']}  {task.fields['rate']}", style="progress.data.speed")


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _show(progress: Progress, task: Any, told: pb.VideoProgress) -> None:
    total = f"/{told.total}" if told.HasField("total") else ""
    frames = f"{told.frame}{total} frames" if told.frame else f"{told.bytes_received / 1e6:.1f} MB sent"
    progress.update(task, completed=told.percent, frames=frames, rate=f"{told.fps:.1f} fps")


class _Curves:
    """Angles over time, by person and measurement."""

    def __init__(self) -> None:
        self._curves: dict[tuple[int, str], Curve] = {}

    def add(self, line: dict[str, Any]) -> None:
        time_s = float(line["time"].removesuffix("s"))
        for angle in line.get("angles", []):
            key = angle.get("track_id", 0), angle["name"]
            curve = self._curves.setdefault(key, Curve(_title(angle["name"], key[0])))
            for side, values in (("left", curve.left), ("right", curve.right)):
                value = angle.get(side, {})
                degrees = value.get("smoothed_degrees", value.get("degrees"))
                doubtful = value.get("status") == "ANGLE_STATUS_DEGRADED"
                values.append((time_s, degrees, doubtful))

    def count(self) -> int:
        """Curves with a value at least."""
        return sum(bool(curve.count()) for curve in self._curves.values())

    def best(self, most: int) -> list[Curve]:
        """Those with the most values, whoever was seen longest first."""
        ranked = sorted(self._curves.items(), key=lambda item: -item[1].count())
        kept = sorted(key for key, curve in ranked[:most] if curve.count())
        return [self._curves[key] for key in kept]


def _title(name: str, person: int) -> str:
    words = name.replace("_", " ").capitalize()
    return f"{words} · person {person}" if person else words


def _plot(path: Path, clip: str, curves: _Curves) -> int:
    """Draw the curves; how many are left out."""
    write_whole(path, draw_curves(clip, curves.best(_MOST_CURVES)))
    return max(curves.count() - _MOST_CURVES, 0)


def _report(summary: pb.VideoSummary, before: Earlier) -> None:
    seconds = summary.wall_time.ToNanoseconds() / 1e9
    rate = summary.frames_analyzed / seconds if seconds else 0.0
    print(
        f"{summary.frames_analyzed} of {summary.total_frames} frames of "
        f"{summary.frame_width}×{summary.frame_height} px in {seconds:.1f} s ({rate:.1f} a second), "
        f"{summary.persons_tracked} {'person' if summary.persons_tracked == 1 else 'people'} followed"
        + (", with those of the earlier run" if before.lines else "")
    )
    if not summary.frames_analyzed:
        print("No frame lies there: --start is behind the end of the video, or --end before its first frame.")
    if not summary.measurements:
        return
    table = Table()
    for title in (
        "person",
        "measurement",
        "side",
        "min",
        "max",
        "range",
        "reps",
        "frames",
        "doubtful",
        "l − r",
    ):
        table.add_column(title, justify="left" if title in ("measurement", "side") else "right", no_wrap=True)
    for one in summary.measurements:
        for side in ("left", "right"):
            if one.HasField(side):
                table.add_row(*_row(one, side))
    # Never narrower than its columns: what a terminal wraps can still be read, what is cut off cannot.
    console = Console(highlight=False)
    Console(highlight=False, width=max(console.width, _TABLE_WIDTH)).print(table)


def _row(one: pb.MeasurementSummary, side: str) -> list[str]:
    told: pb.SideSummary = getattr(one, side)
    measured = told.HasField("range_of_motion_deg")
    numbers = [
        f"{value:.0f}°" if measured else "–"
        for value in (told.min_deg, told.max_deg, told.range_of_motion_deg)
    ]
    symmetry = f"{one.symmetry.difference_deg:+.0f}°" if one.HasField("symmetry") and side == "left" else ""
    who = str(one.track_id) if one.HasField("track_id") else "–"
    reps = str(len(told.repetitions))
    frames = str(told.frames_measured), str(told.frames_degraded)
    return [who, one.title, side, *numbers, reps, *frames, symmetry]
