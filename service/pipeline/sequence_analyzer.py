"""Sequence analysis: tracks the persons of successive frames, smooths their keypoints, measures angles and
their motion. One analyzer per video or stream; frames come in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.core.angles import (
    AngleOptions,
    Measured,
    PersonMeasures,
    Side,
    SideSelection,
    measure,
    person_measures,
)
from service.core.poses import Floats, Poses, largest, present
from service.core.sequence.recording import SIDES, MeasurementMotion, Motions
from service.core.sequence.smoothing import OneEuro, OneEuroSettings
from service.core.sequence.tracking import MEMORY_S, Tracker
from service.core.skeleton.mapping import MappingPlan, apply
from service.core.skeleton.template import Skeleton

# Keypoints are smoothed in units of the person's size, so that near and far persons are treated alike:
# beta is in Hz per (body size and second). Chosen on a recording at 60 Hz: a person who stands still loses
# four fifths of the jitter and lags by two frames; a fast limb does not lag by a whole frame.
KEYPOINT_SMOOTHING = OneEuroSettings(min_cutoff_hz=1.0, beta=30.0)
ANGLE_SMOOTHING = OneEuroSettings(min_cutoff_hz=1.0, beta=0.05)

_TRACKED_PX = 1000.0  # longer side of the frames, as the tracker gets them
_HELD_S = 1.0  # out of sight for so long, the most prominent person stays that


@dataclass(frozen=True)
class SequenceConfig:
    """Options of an analyzer.

    Attributes:
        plan: from the model's own skeleton to the one asked for.
        track: number the persons.
        smooth: smooth keypoints and angles too; needs `track`.
        measurements: names of the angles to measure; may be empty.
        side: which sides of them.
        angles: how they are measured; the size of the frame is filled in.
        prominent_only: measure the most prominent person only.
    """

    plan: MappingPlan
    track: bool
    smooth: bool
    measurements: tuple[str, ...]
    side: SideSelection
    angles: AngleOptions
    prominent_only: bool


@dataclass(frozen=True)
class PersonAngles:
    """The angles of one person on one frame.

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
    """The persons on one frame.

    Attributes:
        native: in the model's own skeleton.
        poses: in the skeleton asked for; parts such as hands name the person they belong to.
        track_ids: of `native`; None where tracking is off.
        smoothed: keypoints of `poses` after smoothing, (N, K, 3); None where it is off.
        angles: one for each of `native` that is measured.
        measured: what the angles were read from, to draw them; None without measurements.
        prominent: place of the most prominent person among `native`; None while out of sight.
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


class SequenceAnalyzer:
    """Analyses the frames of one video or stream.

    Args:
        config: options.
        skeleton: the model's own.
    """

    def __init__(self, config: SequenceConfig, skeleton: Skeleton) -> None:
        self._config = config
        self._skeleton = skeleton
        self._tracker = Tracker() if config.track else None
        self._keypoints: dict[tuple[int, str], tuple[OneEuro, float]] = {}
        self._smooth_angles: dict[tuple[int, str, Side], OneEuro] = {}
        self._motions = Motions()
        self._held: tuple[int, float] | None = None  # the most prominent person, and when last seen

    @property
    def persons_tracked(self) -> int:
        """Number of distinct persons; 0 where tracking is off."""
        return self._tracker.count if self._tracker is not None else 0

    def add_frame(self, native: Poses, size_wh: tuple[int, int], time_s: float) -> FrameAnalysis:
        """Analyse the next frame.

        Args:
            native: its persons, in the model's own skeleton.
            size_wh: of the frame, px.
            time_s: capture time; never falling.
        """
        ids = None
        if self._tracker is not None:
            # At one frame size, since the sender of a stream may change it.
            scale = np.float32(_TRACKED_PX / max(size_wh))
            points = native.keypoints * np.array([scale, scale, 1], np.float32)
            ids = tuple(self._tracker.update(native.boxes_xyxy * scale, native.scores, time_s, points))
        prominent = self._prominent(native, ids, time_s)
        poses = apply(self._config.plan, native)
        smoothed = (
            self._smooth(poses, native, ids, time_s) if self._config.smooth and ids is not None else None
        )
        measured: Measured | None = None
        angles: tuple[PersonAngles, ...] = ()
        if self._config.measurements:
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
        """Every measurement of every person over time, by track id; after the last frame."""
        return self._motions.summary(self._config.measurements, self._config.side)

    def _prominent(self, native: Poses, ids: Sequence[int] | None, time_s: float) -> int | None:
        """The person with the largest box, kept while tracked."""
        if ids is not None and self._held is not None:
            track_id, seen_s = self._held
            if track_id in ids:
                self._held = track_id, time_s
                return ids.index(track_id)
            if time_s - seen_s <= _HELD_S:
                return None
        if not len(native):
            return None
        place = largest(native)
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
            # The filter works in px; its speed is in units of the person's present size.
            settings = replace(KEYPOINT_SMOOTHING, beta=KEYPOINT_SMOOTHING.beta / size)
            kept = self._keypoints.get(key)
            euro = kept[0] if kept is not None else OneEuro((poses.keypoint_count, 2), settings)
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
        if self._config.prominent_only:
            places = [] if prominent is None else [prominent]
        measured = measure(
            native.select(np.array(places, np.intp)),
            self._skeleton,
            self._config.measurements,
            replace(self._config.angles, size_wh=size_wh),
            side=self._config.side,
        )
        angles = []
        for row, place in enumerate(places):
            measures = person_measures(measured, row)
            track_id = ids[place] if ids is not None else None
            collect = ids is not None or place == prominent
            smoothed: dict[tuple[str, Side], float] = {}
            for result in measures.results:
                for side, value in zip(SIDES, (result.left, result.right), strict=True):
                    if value is None:
                        continue
                    name = result.measurement.name
                    if collect:
                        self._motions.add(track_id, name, side, time_s, value.degrees, value.status)
                    if self._config.smooth and track_id is not None and value.degrees is not None:
                        euro = self._smooth_angles.setdefault(
                            (track_id, name, side), OneEuro((), ANGLE_SMOOTHING)
                        )
                        smoothed[name, side] = float(euro.smooth(np.array(value.degrees), time_s))
            angles.append(PersonAngles(place, measures, smoothed))
        return measured, tuple(angles)
