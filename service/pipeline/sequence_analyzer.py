"""From people on single pictures to people over time: who is who, smoothed coordinates, angles and what
becomes of them. One follower per video or stream; pictures come in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.core.angles import (
    MEASUREMENTS,
    AngleOptions,
    Measured,
    Measurement,
    PersonMeasures,
    Side,
    SideSelection,
    Status,
    measure,
    person_measures,
)
from service.core.poses import Floats, Poses, present
from service.core.sequence.motion import TURN_DEG, Motion, MotionSeen
from service.core.sequence.smoothing import OneEuro, OneEuroSettings
from service.core.skeleton.mapping import MappingPlan, apply
from service.core.skeleton.template import Skeleton
from service.pipeline.tracking import MEMORY_S, Tracker

# Keypoints are smoothed in units of the person's size, so that near and far people are treated alike:
# beta is in Hz per (body size and second). Chosen on a recording at 60 Hz: who stands still loses four
# fifths of the jitter and lags by two frames; a fast limb does not lag by a whole frame.
KEYPOINT_SMOOTHING = OneEuroSettings(min_cutoff_hz=1.0, beta=30.0)
ANGLE_SMOOTHING = OneEuroSettings(min_cutoff_hz=1.0, beta=0.05)

# Smaller movements than at other joints count as repetitions here.
_TURN_DEG = {"neck": 8.0, "back": 8.0}
_TRACKED_PX = 1000.0  # longer side of the pictures that the tracker sees
_HELD_S = 1.0  # the most prominent person may be out of sight for so long before somebody else is
_SIDES: tuple[Side, Side] = ("left", "right")


@dataclass(frozen=True)
class SequenceConfig:
    """What is wanted of a follower.

    Attributes:
        plan: from the model's own skeleton to the one asked for.
        track: number the people.
        smooth: give smoothed values too; needs `track`.
        names: measurements to take; may be empty.
        side: which sides of them.
        angles: how they are taken; the size of the picture is filled in.
        prominent_only: one person only, the most prominent.
    """

    plan: MappingPlan
    track: bool
    smooth: bool
    names: tuple[str, ...]
    side: SideSelection
    angles: AngleOptions
    prominent_only: bool


@dataclass(frozen=True)
class PersonAngles:
    """The angles of one person on one picture.

    Attributes:
        place: of the person among `FrameAnalysis.native`.
        measures: raw values.
        smoothed: degrees by (measurement, side); empty where smoothing is off.
    """

    place: int
    measures: PersonMeasures
    smoothed: dict[tuple[str, Side], float]


@dataclass(frozen=True, eq=False)
class FrameAnalysis:
    """The people on one picture.

    Attributes:
        native: in the model's own skeleton.
        poses: in the skeleton asked for; parts such as hands name the person they belong to.
        track_ids: of `native`; None where tracking is off.
        smoothed: keypoints of `poses` after smoothing, (N, K, 3); None where it is off.
        angles: one for each of `native` that is measured.
        measured: what the angles were read from, to draw them; None without measurements.
        prominent: place of the most prominent person among `native`; None when they are not there.
    """

    native: Poses
    poses: Poses
    track_ids: tuple[int, ...] | None
    smoothed: Floats | None
    angles: tuple[PersonAngles, ...]
    measured: Measured | None
    prominent: int | None

    def owner(self, place: int) -> int:
        """Place in `native` of the person that `poses[place]` is or belongs to."""
        if self.poses.person_index is None or self.poses.person_index[place] < 0:
            return place
        return int(self.poses.person_index[place])


@dataclass(frozen=True)
class SideMotion:
    """One side of a measurement over time. `motion` is None where it was never measured."""

    motion: MotionSeen | None
    frames_measured: int
    frames_degraded: int


@dataclass(frozen=True)
class MeasurementMotion:
    """One measurement of one person over time; a side that was not asked for is None."""

    measurement: Measurement
    track_id: int | None
    left: SideMotion | None
    right: SideMotion | None


class SequenceAnalyzer:
    """Follows the people of one video or stream.

    Args:
        wanted: what is asked for.
        skeleton: the model's own.
    """

    def __init__(self, wanted: SequenceConfig, skeleton: Skeleton) -> None:
        self._wanted = wanted
        self._skeleton = skeleton
        self._tracker = Tracker() if wanted.track else None
        self._keypoints: dict[tuple[int, str], tuple[OneEuro, float]] = {}
        self._smooth_angles: dict[tuple[int, str, Side], OneEuro] = {}
        self._motions = Motions()
        self._held: tuple[int, float] | None = None  # the most prominent person, and when last seen

    @property
    def persons_tracked(self) -> int:
        """Different people seen; 0 where tracking is off."""
        return self._tracker.count if self._tracker is not None else 0

    def follow(self, native: Poses, size_wh: tuple[int, int], time_s: float) -> FrameAnalysis:
        """The next picture.

        Args:
            native: its people, in the model's own skeleton.
            size_wh: of the picture, px.
            time_s: when it was taken; never falling.
        """
        ids = None
        if self._tracker is not None:
            # In pictures of one size, whatever theirs is: the sender of a stream may change it.
            scale = np.float32(_TRACKED_PX / max(size_wh))
            points = native.keypoints * np.array([scale, scale, 1], np.float32)
            ids = tuple(self._tracker.update(native.boxes_xyxy * scale, native.scores, time_s, points))
        prominent = self._prominent(native, ids, time_s)
        poses = apply(self._wanted.plan, native)
        smoothed = (
            self._smooth(poses, native, ids, time_s) if self._wanted.smooth and ids is not None else None
        )
        measured: Measured | None = None
        angles: tuple[PersonAngles, ...] = ()
        if self._wanted.names:
            measured, angles = self._measure(native, ids, prominent, size_wh, time_s)
        return FrameAnalysis(
            native=native,
            poses=poses,
            track_ids=ids,
            smoothed=smoothed,
            angles=angles,
            measured=measured,
            prominent=prominent,
        )

    def summary(self) -> list[MeasurementMotion]:
        """Every measurement of every person over time, people in the order they appeared. The last call."""
        return self._motions.summary(self._wanted.names, self._wanted.side)

    def _prominent(self, native: Poses, ids: Sequence[int] | None, time_s: float) -> int | None:
        """The person with the largest box, held on to while followed."""
        if ids is not None and self._held is not None:
            number, seen_s = self._held
            if number in ids:
                self._held = number, time_s
                return ids.index(number)
            if time_s - seen_s <= _HELD_S:
                return None
        if not len(native):
            return None
        sides = native.boxes_xyxy[:, 2:] - native.boxes_xyxy[:, :2]
        place = int(np.argmax(sides.prod(axis=1)))
        if ids is not None:
            self._held = ids[place], time_s
        return place

    def _smooth(self, poses: Poses, native: Poses, ids: Sequence[int], time_s: float) -> Floats:
        smoothed = poses.keypoints.copy()
        sizes = np.linalg.norm(native.boxes_xyxy[:, 2:] - native.boxes_xyxy[:, :2], axis=1)
        there = present(poses.keypoints)
        for place in range(len(poses)):
            owner = place
            side = ""
            if poses.person_index is not None and poses.person_index[place] >= 0:
                owner = int(poses.person_index[place])
                side = str(poses.sides[place]) if poses.sides is not None else ""
            size = float(max(sizes[owner], 1.0))
            key = (ids[owner], side)
            # The filter keeps px; its speed is measured against the size the person has now.
            settings = replace(KEYPOINT_SMOOTHING, beta=KEYPOINT_SMOOTHING.beta / size)
            known = self._keypoints.get(key)
            euro = known[0] if known is not None else OneEuro((poses.keypoint_count, 2), settings)
            euro.settings = settings
            values = np.where(there[place][:, None], poses.keypoints[place, :, :2], np.nan)
            result = euro.smooth(values.astype(np.float64), time_s)
            smoothed[place, :, :2] = np.where(np.isfinite(result), result, 0.0)
            self._keypoints[key] = euro, time_s
        if len(self._keypoints) > 2 * len(poses) + 16:
            self._keypoints = {
                key: kept for key, kept in self._keypoints.items() if time_s - kept[1] <= MEMORY_S
            }
            here = {key[0] for key in self._keypoints}
            self._smooth_angles = {key: kept for key, kept in self._smooth_angles.items() if key[0] in here}
        return smoothed

    def _measure(
        self,
        native: Poses,
        ids: Sequence[int] | None,
        prominent: int | None,
        size_wh: tuple[int, int],
        time_s: float,
    ) -> tuple[Measured, tuple[PersonAngles, ...]]:
        places = list(range(len(native)))
        if self._wanted.prominent_only:
            places = [] if prominent is None else [prominent]
        measured = measure(
            native.select(np.array(places, np.intp)),
            self._skeleton,
            self._wanted.names,
            replace(self._wanted.angles, size_wh=size_wh),
            side=self._wanted.side,
        )
        seen = []
        for row, place in enumerate(places):
            measures = person_measures(measured, row)
            number = ids[place] if ids is not None else None
            collect = ids is not None or place == prominent
            smoothed: dict[tuple[str, Side], float] = {}
            for result in measures.results:
                for side, value in zip(_SIDES, (result.left, result.right), strict=True):
                    if value is None:
                        continue
                    name = result.measurement.name
                    if collect:
                        self._motions.add(number, name, side, time_s, value.degrees, value.status)
                    if self._wanted.smooth and number is not None and value.degrees is not None:
                        euro = self._smooth_angles.setdefault(
                            (number, name, side), OneEuro((), ANGLE_SMOOTHING)
                        )
                        smoothed[name, side] = float(euro.smooth(np.array(value.degrees), time_s))
            seen.append(PersonAngles(place, measures, smoothed))
        return measured, tuple(seen)


class Motions:
    """The angles of people over time."""

    def __init__(self) -> None:
        self._collected: dict[tuple[int | None, str, Side], _Collected] = {}

    def add(
        self, person: int | None, name: str, side: Side, time_s: float, degrees: float | None, status: Status
    ) -> None:
        """One value of a measurement; None and UNAVAILABLE where there was none."""
        key = person, name, side
        if key not in self._collected:
            self._collected[key] = _Collected(_TURN_DEG.get(MEASUREMENTS[name].body_part, TURN_DEG))
        self._collected[key].add(time_s, degrees, status)

    def summary(self, names: Sequence[str], side: SideSelection) -> list[MeasurementMotion]:
        """These measurements of every person, people in the order they appeared. The last call."""
        people = sorted({key[0] for key in self._collected}, key=lambda number: number or 0)
        asked = _SIDES if side == "both" else (side,)
        found = []
        for person in people:
            for name in names:
                sides = {
                    one: self._collected.get((person, name, one), _Collected(TURN_DEG)).result()
                    for one in asked
                }
                found.append(
                    MeasurementMotion(MEASUREMENTS[name], person, sides.get("left"), sides.get("right"))
                )
        return found


class _Collected:
    """One angle of one person, and how often it could be had."""

    def __init__(self, turn_deg: float) -> None:
        self._motion = Motion(turn_deg)
        self._measured = self._degraded = 0

    def add(self, time_s: float, degrees: float | None, status: Status) -> None:
        if degrees is None:
            return
        self._measured += 1
        self._degraded += status is Status.DEGRADED
        self._motion.add(time_s, degrees)

    def result(self) -> SideMotion:
        return SideMotion(self._motion.result(), self._measured, self._degraded)
