"""What `posegate video` prints and draws: progress, a table of angles, curves over time."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

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
from service.cli.detect import counted_people
from service.cli.plots import Curve

_TABLE_WIDTH = 120
_NUMBERS = ("min", "max", "range", "reps", "frames", "doubtful", "l − r")


class _Rate(ProgressColumn):
    """Frames, and frames per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['frames']}  {task.fields['rate']}", style="progress.data.speed")


def progress_bar(console: Console) -> Progress:
    """A bar for the terminal; nothing where the console is none."""
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


def show_progress(bar: Progress, task: Any, message: pb.VideoProgress) -> None:
    """Move the bar to what the service reported."""
    total = f"/{message.total}" if message.HasField("total") else ""
    frames = (
        f"{message.frame}{total} frames" if message.frame else f"{message.bytes_received / 1e6:.1f} MB sent"
    )
    bar.update(task, completed=message.percent, frames=frames, rate=f"{message.fps:.1f} fps")


class Curves:
    """Angles over time, by person and measurement.

    Args:
        titles: of the measurements by their names, as the summary has them.
    """

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._titles = titles
        self._curves: dict[tuple[int, str], Curve] = {}

    def add(self, line: Mapping[str, Any]) -> None:
        """The angles of one frame, as it is written to `--out`."""
        time_s = float(line["time"].removesuffix("s"))
        for angle in line.get("angles", []):
            key = angle.get("track_id", 0), angle["name"]
            curve = self._curves.setdefault(key, Curve(self._title(*key)))
            for side, values in (("left", curve.left), ("right", curve.right)):
                value = angle.get(side, {})
                degrees = value.get("smoothed_degrees", value.get("degrees"))
                doubtful = value.get("status") == "ANGLE_STATUS_DEGRADED"
                values.append((time_s, degrees, doubtful))

    def count(self) -> int:
        """Number of curves with at least one value."""
        return sum(bool(curve.count()) for curve in self._curves.values())

    def longest(self, most: int) -> list[Curve]:
        """Those with the most values, ordered by person and measurement."""
        ranked = sorted(self._curves.items(), key=lambda item: -item[1].count())
        kept = sorted(key for key, curve in ranked[:most] if curve.count())
        return [self._curves[key] for key in kept]

    def _title(self, person: int, name: str) -> str:
        title = self._titles.get(name, name)
        return f"{title} · person {person}" if person else title


def report(summary: pb.VideoSummary, *, resumed: bool, complete: bool, persons_known: bool = True) -> None:
    """Print what was analysed, and the table of angles.

    Args:
        summary: of all frames.
        resumed: frames of an earlier run are among them.
        complete: the video was read to its end; else only frames and angles of the summary are set.
        persons_known: the number of persons is set too; frames of the flat layout do not give it.
    """
    frames = f"{summary.frames_analyzed} frames until the video broke off"
    rate = ""
    if complete:
        seconds = summary.wall_time.ToNanoseconds() / 1e9
        per_second = summary.frames_analyzed / seconds if seconds else 0.0
        frames = f"{summary.frames_analyzed} of {summary.total_frames} frames"
        frames += f" of {summary.frame_width}×{summary.frame_height} px"
        rate = f" in {seconds:.1f} s ({per_second:.1f} a second)"
    earlier = ", with those of the earlier run" if resumed else ""
    tracked = f", {counted_people(summary.persons_tracked)} tracked" if persons_known else ""
    print(f"{frames}{rate}{tracked}{earlier}")
    if summary.frames_damaged or summary.gaps:
        frames = _counted(summary.frames_damaged, "damaged frame")
        print(
            f"The file is damaged: {frames} and {_counted(summary.gaps, 'gap')} stepped over; "
            "--strict ends with an error instead.",
            file=sys.stderr,
        )
    if not summary.frames_analyzed:
        print("No frame lies there: --start is behind the end of the video, or --end before its first frame.")
    if not summary.measurements:
        return
    table = Table()
    for title in ("person", "measurement", "side", *_NUMBERS):
        table.add_column(title, justify="left" if title in ("measurement", "side") else "right", no_wrap=True)
    for one in summary.measurements:
        for side in ("left", "right"):
            if one.HasField(side):
                table.add_row(*_row(one, side))
    # Never narrower than its columns: a terminal's wrapping can still be read, cut columns cannot.
    console = Console(highlight=False)
    Console(highlight=False, width=max(console.width, _TABLE_WIDTH)).print(table)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _row(one: pb.MeasurementSummary, side: str) -> list[str]:
    of_side: pb.SideSummary = getattr(one, side)
    measured = of_side.HasField("range_of_motion_deg")
    numbers = [
        f"{value:.0f}°" if measured else "–"
        for value in (of_side.min_deg, of_side.max_deg, of_side.range_of_motion_deg)
    ]
    symmetry = f"{one.symmetry.difference_deg:+.0f}°" if one.HasField("symmetry") and side == "left" else ""
    person = str(one.track_id) if one.HasField("track_id") else "–"
    repetitions = str(len(of_side.repetitions))
    frames = str(of_side.frames_measured), str(of_side.frames_degraded)
    return [person, one.title, side, *numbers, repetitions, *frames, symmetry]
