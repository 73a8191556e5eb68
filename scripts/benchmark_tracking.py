"""Trackers on synthetic crossings and on the clips of the tests, in one run.

Three contestants get the same detections: ByteTrack alone (package edgefirst-tracker), the tracker of the
service alone, and the service's tracker with ByteTrack's matches as proposals. For every kind of scene it
prints id switches and IDF1 (Ristani et al., ECCV 2016 workshops, https://arxiv.org/abs/1609.01775).

The synthetic scenes are seeded: persons 340 px high with boxes that jitter, at 30, 10 and 5 frames per second
and at the speeds of a walk (1.4 m/s), a jog (2.8 m/s) and a run (5 m/s); a person behind another one or
behind a wall is not detected. On the clips, a person's identity is the band in which the feet stay.

ByteTrack is no dependency of the service: `pip install edgefirst-tracker` brings it into the comparison.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from service.core.geometry import Rgb8, choose_shape, letterbox
from service.core.poses import Floats, Poses
from service.core.sequence.tracking import Tracker
from service.core.yolo import decode_candidates

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
GRAPH = ROOT / "model_repository" / "cpu" / "yolo11n_pose" / "1" / "model.onnx"
SHAPES_HW = ((384, 640), (480, 640), (640, 480), (640, 640))

HEIGHT_PX, WIDTH_PX = 340.0, 120.0
METRE_PX = HEIGHT_PX / 1.7
SPEEDS = {"walk": 1.4 * METRE_PX, "jog": 2.8 * METRE_PX, "run": 5.0 * METRE_PX}
RATES = (30, 10, 5)
FRAME_W = 1920.0
_HIDDEN = 0.6  # share of a box that others or a wall cover: from here on the person is not detected
_MISSED = 0.02  # of all detections


class Contestant(Protocol):
    """A tracker in the comparison."""

    def update(
        self, boxes_xyxy: Floats, scores: Floats, time_s: float, keypoints: Floats | None = None
    ) -> list[int]:
        """The track id of every box."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Detections of one frame.

    Attributes:
        time_s: capture time.
        boxes_xyxy: (N, 4) px.
        persons: (N,) number of the person of each; -1 for one that does not count.
        keypoints: (N, K, 3), where there are some.
    """

    time_s: float
    boxes_xyxy: Floats
    persons: NDArray[np.intp]
    keypoints: Floats | None = None


@dataclass
class Score:
    """Sums over scenes."""

    switches: int = 0
    matched: int = 0
    detections: int = 0

    @property
    def idf1(self) -> float:
        """Every detection of a scene gets an id, so precision, recall and F1 are the same number."""
        return self.matched / self.detections if self.detections else 1.0


Path2d = Callable[[float], tuple[float, float] | None]
"""Where a person's feet are at a time, px; None while out of the scene."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Persons on their ways, in front of one another by y; `wall` hides what is behind it."""

    seconds: float
    paths: Sequence[Path2d]
    heights: Iterable[float]
    wall: tuple[float, float] | None = None


def crossing(speed: float, rng: np.random.Generator) -> Scene:
    """Two persons walk past each other."""
    x1, x2 = rng.uniform(150, 250), rng.uniform(1500, 1700)
    y1 = rng.uniform(600, 700)
    y2 = y1 + rng.uniform(-40, 40)
    other = speed * rng.uniform(0.8, 1.2)
    seconds = (x2 - x1) / speed
    return Scene(
        seconds,
        [lambda t: (x1 + speed * t, y1), lambda t: (x2 - other * t, y2)],
        rng.uniform(0.85, 1.1, 2) * HEIGHT_PX,
    )


def overtaking(speed: float, rng: np.random.Generator) -> Scene:
    """One person overtakes another who goes the same way at half the speed."""
    y1 = rng.uniform(600, 700)
    y2, lead = y1 + rng.uniform(-40, 40), rng.uniform(300, 500)
    return Scene(
        1500 / speed,
        [lambda t: (150 + speed * t, y1), lambda t: (150 + lead + 0.5 * speed * t, y2)],
        rng.uniform(0.85, 1.1, 2) * HEIGHT_PX,
    )


def passing(speed: float, rng: np.random.Generator) -> Scene:
    """One person passes in front of two who stand."""
    y = rng.uniform(600, 650)
    places = rng.uniform(500, 700), rng.uniform(1000, 1200)
    return Scene(
        1600 / speed,
        [lambda t: (150 + speed * t, y + 40), lambda _t: (places[0], y), lambda _t: (places[1], y)],
        rng.uniform(0.85, 1.1, 3) * HEIGHT_PX,
    )


def behind_a_wall(speed: float, rng: np.random.Generator) -> Scene:
    """Two persons go, one after the other, behind a wall and come out of it."""
    y, gap = rng.uniform(600, 700), rng.uniform(250, 400)
    width = speed * rng.uniform(0.4, 0.8)
    return Scene(
        (1500 + gap) / speed,
        [lambda t: (150 + speed * t, y), lambda t: (150 - gap + speed * t, y)],
        rng.uniform(0.85, 1.1, 2) * HEIGHT_PX,
        wall=(800, 800 + width),
    )


def crossing_behind_a_wall(speed: float, rng: np.random.Generator) -> Scene:
    """Two persons cross while a wall hides both."""
    y = rng.uniform(600, 700)
    width = speed * rng.uniform(0.4, 0.8)
    middle = 900.0
    seconds = 1400 / speed
    return Scene(
        seconds,
        [lambda t: (middle - 700 + speed * t, y), lambda t: (middle + 700 - speed * t, y + 20)],
        rng.uniform(0.85, 1.1, 2) * HEIGHT_PX,
        wall=(middle - width / 2, middle + width / 2),
    )


def re_entry(speed: float, rng: np.random.Generator) -> Scene:
    """One person leaves by the edge and comes back a moment later; another one stands in the middle."""
    y, away_s = rng.uniform(600, 700), rng.uniform(0.5, 1.5)
    way_s = 500 / speed

    def path(t: float) -> tuple[float, float] | None:
        if t < way_s:
            return FRAME_W - 450 + speed * t, y
        if t < way_s + away_s:
            return None
        return FRAME_W + 50 - speed * (t - way_s - away_s), y

    return Scene(2 * way_s + away_s, [path, lambda _t: (700, y)], rng.uniform(0.85, 1.1, 2) * HEIGHT_PX)


def group(speed: float, rng: np.random.Generator) -> Scene:
    """Five persons walk to and fro at different speeds and depths."""
    paths: list[Path2d] = []
    heights = []
    for number in range(5):
        y = 560 + 45 * number
        reach, phase = rng.uniform(300, 600), rng.uniform(0, 2 * math.pi)
        rate = speed * rng.uniform(0.7, 1.0) / reach  # the highest speed of a sine of that reach

        def path(
            t: float, y: float = y, reach: float = reach, rate: float = rate, phase: float = phase
        ) -> tuple[float, float]:
            return 960 + reach * math.sin(rate * t + phase), y

        paths.append(path)
        heights.append(HEIGHT_PX * (0.85 + 0.06 * number))
    return Scene(8.0, paths, heights)


SCENES: dict[str, Callable[[float, np.random.Generator], Scene]] = {
    "crossing": crossing,
    "overtaking": overtaking,
    "passing two who stand": passing,
    "behind a wall": behind_a_wall,
    "crossing behind a wall": crossing_behind_a_wall,
    "re-entry": re_entry,
    "group of five": group,
}


def frames_of(scene: Scene, rate: int, rng: np.random.Generator) -> Iterator[Frame]:
    """What a detector gives for a scene."""
    for step in range(int(scene.seconds * rate)):
        time_s = step / rate
        boxes, persons = [], []
        for person, (path, height) in enumerate(zip(scene.paths, scene.heights, strict=True)):
            feet = path(time_s)
            if feet is not None and -WIDTH_PX / 2 < feet[0] < FRAME_W + WIDTH_PX / 2:
                width = (
                    WIDTH_PX * height / HEIGHT_PX * (1 + 0.15 * math.sin(2 * math.pi * 1.8 * time_s + person))
                )
                boxes.append((feet[0] - width / 2, feet[1] - height, feet[0] + width / 2, feet[1]))
                persons.append(person)
        seen = [
            place
            for place in range(len(boxes))
            if _covered(boxes, place, scene.wall) < _HIDDEN and rng.random() > _MISSED
        ]
        found = np.array([boxes[place] for place in seen], np.float32).reshape(-1, 4)
        found[:, [0, 2]] = np.clip(found[:, [0, 2]], 0, FRAME_W)
        found += rng.normal(0, 3, found.shape).astype(np.float32)
        order = rng.permutation(len(seen))  # by score, which tells nothing of identity
        yield Frame(time_s, found[order], np.array([persons[place] for place in seen], np.intp)[order])


def _covered(
    boxes: Sequence[tuple[float, float, float, float]], place: int, wall: tuple[float, float] | None
) -> float:
    """Share of a box that lies behind the wall or behind the nearer box that hides most of it."""
    x1, y1, x2, y2 = boxes[place]
    shares = [0.0]
    if wall is not None:
        shares.append(max(0.0, min(x2, wall[1]) - max(x1, wall[0])) / (x2 - x1))
    for other, (a1, b1, a2, b2) in enumerate(boxes):
        if other != place and (b2, other) > (y2, place):
            overlap = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
            shares.append(overlap / ((x2 - x1) * (y2 - y1)))
    return max(shares)


def score(tracker: Contestant, frames: Sequence[Frame], into: Score) -> None:
    """Add one scene."""
    pairs: dict[tuple[int, int], int] = {}
    last: dict[int, int] = {}
    for frame in frames:
        sizes = np.full(len(frame.boxes_xyxy), 0.9, np.float32)
        ids = tracker.update(frame.boxes_xyxy, sizes, frame.time_s, frame.keypoints)
        for person, track in zip(frame.persons.tolist(), ids, strict=True):
            if person < 0:
                continue
            into.detections += 1
            into.switches += last.get(person, track) != track
            last[person] = track
            pairs[person, track] = pairs.get((person, track), 0) + 1
    into.matched += _best_assignment(pairs)


def _best_assignment(pairs: dict[tuple[int, int], int]) -> int:
    """The most detections that a one-to-one assignment of tracks to persons can explain."""
    persons = sorted({person for person, _ in pairs})
    best = {0: 0}  # persons that have a track, as bits, to detections
    for track in sorted({track for _, track in pairs}):
        grown = dict(best)
        for taken, matched in best.items():
            for bit, person in enumerate(persons):
                if not taken >> bit & 1 and (person, track) in pairs:
                    key, value = taken | 1 << bit, matched + pairs[person, track]
                    grown[key] = max(grown.get(key, 0), value)
        best = grown
    return max(best.values())


class ByteTrackAlone:
    """ByteTrack as `edgefirst-tracker` implements it, with the parameters that did best on these scenes of
    overlaps of 0.01, 0.1, 0.2 and 0.3 and memories of 0.5, 1 and 3 s."""

    def __init__(self, byte_track: Any, iou: float = 0.01, memory_s: float = 1.0) -> None:
        self._tracks = byte_track(high_conf=0.0, iou=iou, lifespan_ns=int(memory_s * 1e9))
        self._ids: dict[str, int] = {}
        self._count = 0

    def update(
        self, boxes_xyxy: Floats, scores: Floats, time_s: float, keypoints: Floats | None = None
    ) -> list[int]:
        """The track id of every box."""
        names = self.names(boxes_xyxy, scores, time_s)
        ids = []
        for name in names:
            if name is None or name not in self._ids:
                self._count += 1
                self._ids[name or f"row {self._count}"] = self._count
                ids.append(self._count)
            else:
                ids.append(self._ids[name])
        return ids

    def names(self, boxes_xyxy: Floats, scores: Floats, time_s: float) -> list[str | None]:
        """ByteTrack's own name of every box's track; None without one."""
        found = self._tracks.update(
            boxes_xyxy.astype(np.float32),
            scores.astype(np.float32),
            np.zeros(len(scores), np.uintp),
            round(time_s * 1e9) + 1,
        )
        return [track.uuid if track is not None else None for track in found]


class Both(Tracker):
    """The service's tracker, to which ByteTrack proposes matches."""

    _PROPOSED = 0.05  # body heights that a proposal may be off before another match wins
    _REFUSED = 1.5  # cost of a proposal that the motion model alone would refuse

    def __init__(self, byte_track: Any) -> None:
        super().__init__()
        self._byte_track = ByteTrackAlone(byte_track, iou=0.2)
        self._named: dict[str, int] = {}
        self._names: list[str | None] = []

    def _assign(self, boxes_xyxy: Floats, scores: Floats, time_s: float) -> list[int]:
        self._names = self._byte_track.names(boxes_xyxy, scores, time_s)
        ids = super()._assign(boxes_xyxy, scores, time_s)
        self._named |= {name: track_id for name, track_id in zip(self._names, ids, strict=True) if name}
        return ids

    def _costs(self, boxes_xyxy: Floats, scores: Floats, time_s: float) -> list[tuple[float, int, int]]:
        costs = {(row, place): cost for cost, row, place in super()._costs(boxes_xyxy, scores, time_s)}
        for row, name in enumerate(self._names):
            for place, track in enumerate(self._tracks):
                if name is not None and self._named.get(name) == track.track_id:
                    costs[row, place] = costs.get((row, place), self._REFUSED) - self._PROPOSED
        return [(cost, row, place) for (row, place), cost in costs.items()]


def contestants() -> dict[str, Callable[[], Contestant]]:
    """All that can be compared here."""
    found: dict[str, Callable[[], Contestant]] = {"motion model": Tracker}
    try:
        from edgefirst.tracker import ByteTrack
    except ImportError:
        return found
    return {"ByteTrack": lambda: ByteTrackAlone(ByteTrack), **found, "both": lambda: Both(ByteTrack)}


def detections(path: Path) -> list[tuple[float, Poses]]:
    """The persons on every frame of a clip, by the default model."""
    import openvino

    core = openvino.Core()
    compiled: dict[tuple[int, ...], Any] = {}
    found = []
    with av.open(str(path)) as video:
        for frame in video.decode(video=0):
            image: Rgb8 = frame.to_ndarray(format="rgb24")  # type: ignore[assignment]
            tensor, to_input = letterbox(image, choose_shape((image.shape[1], image.shape[0]), SHAPES_HW))
            if tensor.shape not in compiled:
                graph = core.read_model(GRAPH)
                graph.reshape({graph.input(0): [1, *tensor.shape]})
                compiled[tensor.shape] = core.compile_model(graph, "CPU").create_infer_request()
            (candidates,) = compiled[tensor.shape].infer([tensor[None]]).values()
            poses = decode_candidates(
                candidates[0], to_input, min_score=0.25, iou_threshold=0.7, max_persons=100
            )
            found.append((float(frame.time or 0.0), poses))
    return found


def labelled(found: Sequence[tuple[float, Poses]], bands: int) -> list[Frame]:
    """Frames whose persons are identified by where their feet are: bands that do not overlap, cut at the
    widest gaps between all lower edges of the clip."""
    edges = np.sort(np.concatenate([poses.boxes_xyxy[:, 3] for _, poses in found]))
    widest = np.sort(np.argsort(np.diff(edges))[-(bands - 1) :]) if bands > 1 else np.array([], np.intp)
    cuts = (edges[widest] + edges[widest + 1]) / 2
    return [
        Frame(time_s, poses.boxes_xyxy, np.digitize(poses.boxes_xyxy[:, 3], cuts), poses.keypoints)
        for time_s, poses in found
    ]


def main() -> int:
    """Entry point of `scripts/bench tracking`."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench tracking", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--scenes", type=int, default=5, help="seeded scenes of each kind, speed and rate")
    parser.add_argument("--no-clips", action="store_true", help="synthetic scenes only; needs no model")
    arguments = parser.parse_args()
    console = Console(width=110, highlight=False)
    named = contestants()
    if len(named) == 1:
        console.print("ByteTrack is not installed: pip install edgefirst-tracker")
    table = Table(title=f"id switches / IDF1; {arguments.scenes} scenes for each of {len(SPEEDS)} speeds")
    table.add_column("scene")
    table.add_column("fps", justify="right")
    table.add_column("detections", justify="right")
    for name in named:
        table.add_column(name, justify="right")
    totals = {name: Score() for name in named}
    for kind, make in SCENES.items():
        for rate in RATES:
            scores = {name: Score() for name in named}
            for speed in SPEEDS.values():
                for seed in range(arguments.scenes):
                    rng = np.random.default_rng([seed, rate, int(speed), len(kind)])
                    frames = list(frames_of(make(speed, rng), rate, rng))
                    for name, tracker in named.items():
                        score(tracker(), frames, scores[name])
                        score(tracker(), frames, totals[name])
            _add_row(table, kind, rate, scores)
        table.add_section()
    _add_row(table, "all", "", totals)
    console.print(table)
    if not arguments.no_clips:
        console.print(_clips(named))
    return 0


def _clips(named: dict[str, Callable[[], Contestant]]) -> Table:
    table = Table(title="id switches / IDF1 on the clips; every n-th frame of 60 per second")
    for title in ("clip", "fps", "detections", *named):
        table.add_column(title, justify="left" if title == "clip" else "right")
    for clip, bands in (("single_person.mp4", 2), ("two_people.mp4", 3)):
        frames = labelled(detections(DATA / clip), bands)
        for every in (1, 2, 6, 12, 20):
            scores = {name: Score() for name in named}
            for name, tracker in named.items():
                score(tracker(), frames[::every], scores[name])
            _add_row(table, clip, 60 // every, scores)
    return table


def _add_row(table: Table, what: str, rate: int | str, scores: dict[str, Score]) -> None:
    count = str(next(iter(scores.values())).detections)
    table.add_row(what, str(rate), count, *(f"{one.switches} / {one.idf1:.3f}" for one in scores.values()))


if __name__ == "__main__":
    sys.exit(main())
