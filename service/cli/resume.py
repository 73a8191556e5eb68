"""Continues an interrupted analysis, so that the result is that of one run.

The frames of the interrupted run are kept. The new run analyses the rest and, before it, the last seconds of
the kept frames again: its trackers and filters have settled by the first new frame, and its track ids can be
mapped to those of the interrupted run. Measurements over time are summarised again from all frames.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posegate.v1 import pose_service_pb2 as pb
from service.core.angles import Side, Status
from service.core.sequence.recording import Motions
from service.core.sequence.tracking import MEMORY_S
from service.servicers.responses.frames import motions

_AGAIN_S = MEMORY_S + 0.5  # seconds analysed again; the tracker forgets a person after MEMORY_S anyway
_BEFORE_S = 1e-6  # a written time may be rounded up; frames are further apart than this
_SAME_PX = 2.0
_STATUS = {"ANGLE_STATUS_OK": Status.OK, "ANGLE_STATUS_DEGRADED": Status.DEGRADED}
DAMAGE = ("frames_damaged", "gaps")
"""Counts of a frame that say what was damaged up to it; the summary has both, too."""
_SIDES: tuple[Side, Side] = ("left", "right")


@dataclass
class Earlier:
    """The frames of an interrupted run.

    Attributes:
        lines: its frames, as they were written.
        end: bytes of its file up to the end of the last complete line.
    """

    lines: list[dict[str, Any]] = field(default_factory=list)
    end: int = 0

    def __post_init__(self) -> None:
        self._by_index = {line["frame_index"]: line for line in self.lines}
        self._votes: dict[int, Counter[int]] = defaultdict(Counter)
        self._ids: dict[int, int] = {}
        self._next = 1 + max(
            (person.get("track_id", 0) for line in self.lines for person in line.get("persons", [])),
            default=0,
        )
        self._first_again: int | None = None
        self._since_s = 0.0
        self._missed: dict[str, int] | None = None  # what the new run does not count, by its key

    @property
    def last(self) -> dict[str, Any] | None:
        """The last frame; None without frames."""
        return self.lines[-1] if self.lines else None

    def start_s(self, asked_s: float, target_fps: float | None) -> float:
        """Start of the new run, seconds, such that it samples the same frames.

        Args:
            asked_s: start of the whole analysis.
            target_fps: sampling rate asked for; None for every or every n-th frame.
        """
        if not self.lines:
            return asked_s
        since_s = seconds(self.lines[-1]) - _AGAIN_S
        first = next(line for line in self.lines if seconds(line) >= since_s)
        if first is self.lines[0]:
            return asked_s
        if target_fps is not None:  # on the sampling grid of the whole analysis
            samples = math.floor((seconds(first) - asked_s) * target_fps)
            return asked_s + max(samples, 0) / target_fps
        return seconds(first) - _BEFORE_S

    def add(self, line: dict[str, Any]) -> bool:
        """Map the track ids of a frame of the new run, in place; whether the frame is new."""
        if not self.lines:
            return True
        if self._first_again is None:
            self._first_again = _begin(line)
            self._since_s = seconds(line)
        kept = self._by_index.get(line["frame_index"])
        if kept is not None:
            self._vote(line, kept)
        last = self.lines[-1]
        if line["frame_index"] <= last["frame_index"]:
            if line["frame_index"] == last["frame_index"]:
                self._missed = {key: int(last.get(key, 0)) - line[key] for key in DAMAGE}
            return False
        for key, missed in (self._missed or {}).items():
            line[key] += missed
        for one in (*line.get("persons", []), *line.get("angles", [])):
            if "track_id" in one:
                one["track_id"] = self._mapped(one["track_id"])
        return True

    def whole(self, summary: pb.VideoSummary, lines: list[dict[str, Any]]) -> pb.VideoSummary:
        """The summary of all frames; the wall time is that of the new run.

        Args:
            summary: of the new run.
            lines: frames of both runs.
        """
        if not self.lines:
            return summary
        total = pb.VideoSummary()
        total.CopyFrom(summary)
        total.total_frames += (self._first_again or 0) - _begin(self.lines[0])
        for key, missed in (self._missed or {}).items():
            setattr(total, key, getattr(total, key) + missed)
        total.fps = self._fps(summary, total.total_frames)
        del total.measurements[:]
        total.MergeFrom(summary_of(lines))
        return total

    def _fps(self, summary: pb.VideoSummary, total_frames: int) -> float:
        """Frames per second of both runs, by the times of the first and the last frame."""
        if summary.total_frames < 2 or not summary.fps:
            return summary.fps
        end_s = self._since_s + (summary.total_frames - 1) / summary.fps
        first = self.lines[0]
        steps = total_frames - 1 - (first["frame_index"] - _begin(first))
        shown_s = end_s - seconds(first)
        return steps / shown_s if steps > 0 and shown_s > 0 else summary.fps

    def _vote(self, frame: dict[str, Any], kept: dict[str, Any]) -> None:
        """Pair the track ids of one frame in both runs, by equal boxes."""
        for person in frame.get("persons", []):
            for old in kept.get("persons", []):
                if all(abs(person["box"][side] - old["box"][side]) < _SAME_PX for side in person["box"]):
                    self._votes[person["track_id"]][old["track_id"]] += 1

    def _mapped(self, track_id: int) -> int:
        """The id in the interrupted run that got most votes, or a new one."""
        if track_id not in self._ids:
            taken = set(self._ids.values())
            voted = (old for old, _ in self._votes[track_id].most_common() if old not in taken)
            self._ids[track_id] = next(voted, self._next)
            self._next = max(self._next, self._ids[track_id] + 1)
        return self._ids[track_id]


def summary_of(lines: list[dict[str, Any]]) -> pb.VideoSummary:
    """The part of a summary that the frames give: their number, the people on them, the angles."""
    return pb.VideoSummary(
        frames_analyzed=len(lines),
        frames_with_persons=sum(bool(line.get("persons")) for line in lines),
        persons_tracked=len({one["track_id"] for line in lines for one in line.get("persons", [])}),
        measurements=_measurements(lines),
    )


def earlier(partial: Path, head: dict[str, Any]) -> Earlier | None:
    """The frames in the file of an interrupted run of the same analysis; None for a file of another one."""
    lines: list[dict[str, Any]] = []
    end = 0
    with partial.open("rb") as file:
        for content in file:
            try:
                line = json.loads(content)
            except ValueError:  # cut off within a line
                break
            if not content.endswith(b"\n") or (end and "frame_index" not in line):
                break
            if not end and line != head:
                return None
            if end:
                lines.append(line)
            end += len(content)
    return Earlier(lines, end) if end else None


def _begin(line: dict[str, Any]) -> int:
    """Number of the first frame of a run by the first line of it: frames before it are lost ones."""
    return int(line["frame_index"]) - int(line.get("frames_damaged", 0)) + bool(line.get("damaged"))


def seconds(line: dict[str, Any]) -> float:
    """Presentation time of a frame, s."""
    return float(line["time"].removesuffix("s"))


def _measurements(lines: list[dict[str, Any]]) -> list[pb.MeasurementSummary]:
    collected = Motions()
    names: dict[str, None] = {}  # in the order of the request
    sides: dict[Side, None] = {}
    for line in lines:
        for angle in line.get("angles", []):
            names[angle["name"]] = None
            for side in _SIDES:
                value = angle.get(side)
                if value is None:
                    continue
                sides[side] = None
                status = _STATUS.get(value.get("status", ""), Status.UNAVAILABLE)
                collected.add(
                    angle.get("track_id"), angle["name"], side, seconds(line), value.get("degrees"), status
                )
    if not sides:
        return []
    return motions(collected.summary(list(names), "both" if len(sides) > 1 else next(iter(sides))))
