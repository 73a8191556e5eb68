"""`posegate video`: a video to JSON Lines, an annotated video, a plot of angles and a table.

Results are written to `.partial` files that get their names when they are complete. A JSON Lines file
that an interruption left is gone on with: the video is analysed from its last frame on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
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
from service.commands.angle_plot import Curve, draw_curves
from service.commands.target import Target

_CHUNK_BYTES = 1 << 18


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


class CutShort(Exception):
    """The analysis ended before its time; the text says why."""


@dataclass
class _Earlier:
    """What an interrupted run left.

    Attributes:
        lines: its frames.
        numbers: from this run's track ids to that run's.
    """

    lines: list[dict[str, Any]]
    numbers: dict[int, int] = field(default_factory=dict)

    @property
    def last(self) -> dict[str, Any] | None:
        return self.lines[-1] if self.lines else None


async def video(clip: Path, wish: Wish) -> None:
    """Send the video and write what comes.

    Raises:
        CutShort: the service refused it, or the stream ended early.
        OSError: a file cannot be read or written.
    """
    console = Console(stderr=True, highlight=False)
    config = _config(wish)
    head = {
        "clip": clip.name,
        "bytes": await asyncio.to_thread(lambda: clip.stat().st_size),
        "config": MessageToDict(config, preserving_proto_field_name=True),
    }
    earlier = await asyncio.to_thread(_earlier, wish, head)
    if earlier.last is not None:
        console.print(f"going on after frame {earlier.last['frame_index']}, {earlier.last['time']}")
        config.start.FromJsonString(earlier.last["time"])
    curves = _Curves()
    for line in earlier.lines:
        curves.add(line)
    summary = None
    with ExitStack() as files:
        out = _open_text(files, wish.out)
        annotated = _open_binary(files, wish.annotated)
        if out is not None:
            _write(out, head)
            for line in earlier.lines:
                _write(out, line)
        progress = files.enter_context(_progress(console))
        task = progress.add_task(clip.name, total=100.0, frames="", rate="")
        try:
            async with wish.gateway.connect() as channel:
                async for answer in PoseServiceStub(channel).AnalyzeVideo(_requests(clip, config)):
                    kind = answer.WhichOneof("response")
                    if kind == "frame":
                        told = _line(answer.frame, earlier)
                        if told is not None:
                            curves.add(told)
                            _write(out, told)
                    elif kind == "progress":
                        _show(progress, task, answer.progress)
                    elif kind == "annotated_chunk" and annotated is not None:
                        annotated.write(answer.annotated_chunk)
                    elif kind == "summary":
                        summary = answer.summary
                        _write(out, {"summary": _as_dict(summary)})
        except grpc.aio.AioRpcError as error:
            again = " Run it again to go on." if wish.out is not None and wish.annotated is None else ""
            raise CutShort(f"{clip}: {wish.gateway.explain(error)}{again}") from error
    if summary is None:
        raise CutShort(f"{clip}: the stream ended without a summary")
    for path in (wish.out, wish.annotated):
        if path is not None:
            _partial(path).replace(path)
    if wish.plot is not None:
        await asyncio.to_thread(_plot, wish.plot, clip.name, curves)
    _report(summary, earlier)


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


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _open_text(files: ExitStack, path: Path | None) -> TextIO | None:
    return (
        None if path is None else files.enter_context(_partial(path).open("w", encoding="utf-8", buffering=1))
    )


def _open_binary(files: ExitStack, path: Path | None) -> BinaryIO | None:
    return None if path is None else files.enter_context(_partial(path).open("wb"))


def _write(file: TextIO | None, line: dict[str, Any]) -> None:
    if file is not None:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _earlier(wish: Wish, head: dict[str, Any]) -> _Earlier:
    """The frames that an interrupted run of the same analysis left; none for an annotated video, which
    cannot be gone on with."""
    if wish.out is None or wish.annotated is not None or not _partial(wish.out).is_file():
        return _Earlier([])
    with _partial(wish.out).open(encoding="utf-8") as file:
        lines = list(_whole_lines(file))
    if not lines or lines[0] != head:
        return _Earlier([])
    return _Earlier([line for line in lines[1:] if "frame_index" in line])


def _whole_lines(file: TextIO) -> Iterator[dict[str, Any]]:
    for line in file:
        try:
            yield json.loads(line)
        except ValueError:  # cut off in the middle of a word
            return


def _line(frame: pb.FrameResult, earlier: _Earlier) -> dict[str, Any] | None:
    """A frame as it is written; None for one that an earlier run has written."""
    line = _as_dict(frame)
    line["frame_index"] = frame.frame_index
    if earlier.last is None:
        return line
    known = earlier.last
    if frame.frame_index <= known["frame_index"]:
        if frame.frame_index == known["frame_index"]:
            _recognise(line, known, earlier)
        return None
    _renumber(line, earlier)
    return line


def _recognise(now: dict[str, Any], then: dict[str, Any], earlier: _Earlier) -> None:
    """The same frame in both runs says who is who."""
    for person in now.get("persons", []):
        for old in then.get("persons", []):
            if all(abs(person["box"][side] - old["box"][side]) < 2 for side in ("x1", "y1", "x2", "y2")):
                earlier.numbers[person["track_id"]] = old["track_id"]


def _renumber(line: dict[str, Any], earlier: _Earlier) -> None:
    for one in (*line.get("persons", []), *line.get("angles", [])):
        if "track_id" in one:
            number = one["track_id"]
            if number not in earlier.numbers:
                taken = [
                    person.get("track_id", 0) for old in earlier.lines for person in old.get("persons", [])
                ]
                earlier.numbers[number] = max([*taken, *earlier.numbers.values(), 0]) + 1
            one["track_id"] = earlier.numbers[number]


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

    def best(self, most: int) -> list[Curve]:
        """Those with the most values, whoever was seen longest first."""
        ranked = sorted(self._curves.items(), key=lambda item: -item[1].count())
        kept = sorted(key for key, curve in ranked[:most] if curve.count())
        return [self._curves[key] for key in kept]


def _title(name: str, person: int) -> str:
    words = name.replace("_", " ").capitalize()
    return f"{words} · person {person}" if person else words


def _plot(path: Path, clip: str, curves: _Curves) -> None:
    partial = _partial(path)
    partial.write_bytes(draw_curves(clip, curves.best(8)))
    partial.replace(path)


def _report(summary: pb.VideoSummary, earlier: _Earlier) -> None:
    seconds = summary.wall_time.ToNanoseconds() / 1e9
    rate = summary.frames_analyzed / seconds if seconds else 0.0
    print(
        f"{summary.frames_analyzed} of {summary.total_frames} frames of "
        f"{summary.frame_width}×{summary.frame_height} px in {seconds:.1f} s ({rate:.1f} a second), "
        f"{summary.persons_tracked} {'person' if summary.persons_tracked == 1 else 'people'} followed"
        + (", after those of the earlier run" if earlier.lines else "")
    )
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
    console = Console(highlight=False)
    # In a file or a pipe nothing is cut off.
    Console(highlight=False, width=None if console.is_terminal else 120).print(table)


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
