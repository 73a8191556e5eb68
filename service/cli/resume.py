"""Going on with an analysis that was interrupted, so that the result is that of one run.

The frames of the interrupted run are kept. The service is asked for the rest, and for a little of what is
kept already: by that the trackers and filters of the new run have settled, and people are recognised, when
its first new frame comes. Measurements over time are summed up anew from all the frames.
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
from service.pipeline.sequence_analyzer import Motions
from service.pipeline.tracking import MEMORY_S
from service.servicers.responses.frames import motions

_AGAIN_S = MEMORY_S + 0.5  # seconds analysed again; who was out of sight for longer is somebody new anyway
_BEFORE_S = 1e-6  # a frame's time may be written a little too late; frames are further apart than this
_SAME_PX = 2.0
_STATUS = {"ANGLE_STATUS_OK": Status.OK, "ANGLE_STATUS_DEGRADED": Status.DEGRADED}
_SIDES: tuple[Side, Side] = ("left", "right")


@dataclass
class Earlier:
    """What an interrupted run left.

    Attributes:
        lines: its frames, as they are written.
        end: bytes of its file up to the end of the last whole line.
    """

    lines: list[dict[str, Any]] = field(default_factory=list)
    end: int = 0

    def __post_init__(self) -> None:
        self._by_index = {line["frame_index"]: line for line in self.lines}
        self._votes: dict[int, Counter[int]] = defaultdict(Counter)
        self._numbers: dict[int, int] = {}
        self._next = 1 + max(
            (person.get("track_id", 0) for line in self.lines for person in line.get("persons", [])),
            default=0,
        )
        self._first_again: int | None = None

    @property
    def last(self) -> dict[str, Any] | None:
        """The last frame; None when there is nothing to go on with."""
        return self.lines[-1] if self.lines else None

    def start_s(self, asked_s: float, target_fps: float | None) -> float:
        """Where the new run has to start, seconds, so that it meets the same frames.

        Args:
            asked_s: where the whole analysis starts.
            target_fps: frames per second asked for; None for every or every n-th frame.
        """
        if not self.lines:
            return asked_s
        since_s = seconds(self.lines[-1]) - _AGAIN_S
        first = next(line for line in self.lines if seconds(line) >= since_s)
        if first is self.lines[0]:
            return asked_s
        if target_fps is not None:  # on a beat of the whole analysis
            beats = math.floor((seconds(first) - asked_s) * target_fps)
            return asked_s + max(beats, 0) / target_fps
        return seconds(first) - _BEFORE_S

    def add(self, line: dict[str, Any]) -> bool:
        """Take a frame of the new run, its people numbered as in the run before; whether it is new."""
        if not self.lines:
            return True
        if self._first_again is None:
            self._first_again = line["frame_index"]
        known = self._by_index.get(line["frame_index"])
        if known is not None:
            self._recognise(line, known)
        if line["frame_index"] <= self.lines[-1]["frame_index"]:
            return False
        for one in (*line.get("persons", []), *line.get("angles", [])):
            if "track_id" in one:
                one["track_id"] = self._number(one["track_id"])
        return True

    def whole(self, summary: pb.VideoSummary, lines: list[dict[str, Any]]) -> pb.VideoSummary:
        """The summary of all frames, from that of the new run, whose wall time stays its own.

        Args:
            summary: of the new run.
            lines: the frames of both.
        """
        if not self.lines:
            return summary
        total = pb.VideoSummary()
        total.CopyFrom(summary)
        passed = (self._first_again or 0) - self.lines[0]["frame_index"]
        total.total_frames += passed
        total.frames_analyzed = len(lines)
        total.frames_with_persons = sum(bool(line.get("persons")) for line in lines)
        total.persons_tracked = len({one["track_id"] for line in lines for one in line.get("persons", [])})
        del total.measurements[:]
        total.measurements.extend(_measurements(lines))
        return total

    def _recognise(self, now: dict[str, Any], then: dict[str, Any]) -> None:
        """The same frame in both runs says who is who."""
        for person in now.get("persons", []):
            for old in then.get("persons", []):
                if all(abs(person["box"][side] - old["box"][side]) < _SAME_PX for side in person["box"]):
                    self._votes[person["track_id"]][old["track_id"]] += 1

    def _number(self, number: int) -> int:
        if number not in self._numbers:
            taken = set(self._numbers.values())
            known = (old for old, _ in self._votes[number].most_common() if old not in taken)
            self._numbers[number] = next(known, self._next)
            self._next = max(self._next, self._numbers[number] + 1)
        return self._numbers[number]


def earlier(partial: Path, head: dict[str, Any]) -> Earlier | None:
    """What the file of an interrupted run of the same analysis holds; None where it is of another one."""
    lines: list[dict[str, Any]] = []
    end = 0
    with partial.open("rb") as file:
        for content in file:
            try:
                line = json.loads(content)
            except ValueError:  # cut off in the middle of a word
                break
            if not content.endswith(b"\n") or (end and "frame_index" not in line):
                break
            if not end and line != head:
                return None
            if end:
                lines.append(line)
            end += len(content)
    return Earlier(lines, end) if end else None


def seconds(line: dict[str, Any]) -> float:
    """When a frame is shown."""
    return float(line["time"].removesuffix("s"))


def _measurements(lines: list[dict[str, Any]]) -> list[pb.MeasurementSummary]:
    collected = Motions()
    names: dict[str, None] = {}  # in the order they were asked for
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
