"""Compiles measurement definitions into matrices, once per skeleton and selection of measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.core.angles import anatomy
from service.core.angles.compiled import (
    DOWNWARD,
    UPWARD,
    CompiledAngles,
    Cues,
    DetailRow,
    Indices,
    PlannedChoice,
    Rows,
    Slot,
)
from service.core.angles.definitions import (
    SIDES,
    Angle,
    Choice,
    Detail,
    Measurement,
    Orientation,
    Ratio,
    Ray,
    Side,
    Vertical,
    Wrap,
)
from service.core.angles.limits import LIMITS
from service.core.angles.noise import FACTORS, mixing_of, noise_of
from service.core.angles.posture import POSTURES
from service.core.angles.registry import MEASUREMENTS
from service.core.skeleton.template import Skeleton

_LOWEST = {Wrap.HALF: -180.0, Wrap.OVERHEAD: -120.0, Wrap.NONE: 0.0}


def plan_for(skeleton: Skeleton, measurements: tuple[str, ...]) -> CompiledAngles:
    """The compiled measurements for a skeleton's keypoints, cached.

    Raises:
        KeyError: a measurement that does not exist; `parse_names` refuses those.
    """
    sigmas = tuple(keypoint.sigma for keypoint in skeleton.keypoints)
    return _plan(skeleton.name, skeleton.names, sigmas, measurements)


@lru_cache(maxsize=64)
def _plan(
    skeleton: str,
    names: tuple[str, ...],
    sigmas: tuple[float | None, ...],
    measurements: tuple[str, ...],
) -> CompiledAngles:
    chosen = tuple(MEASUREMENTS[name] for name in measurements)
    build = _Builder(names)
    slots = tuple(build.slot(measurement, side) for measurement in chosen for side in SIDES)
    return _assemble(build, skeleton, chosen, slots, sigmas)


class _Builder:
    """Assigns indices to keypoints, directions and angles while it walks the definitions."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.columns = {name: i for i, name in enumerate(names)}
        self.places: dict[str, int] = {}
        self.rays: dict[Ray, int] = {}
        self.rows: dict[Angle, int] = {}
        self.ratios: dict[tuple[int, int], int] = {}

        def pair(part: Callable[[Side], Ray]) -> Indices:
            return np.array([self.ray(part(side)) for side in SIDES], np.intp)

        def foot(side: Side) -> Ray:
            toe = "big_toe" if f"{side}_big_toe" in self.columns else "foot_index"
            return anatomy.segment(side, "heel", toe)

        self.cues = Cues(
            shoulders=self.ray(anatomy.SHOULDERS),
            midline=self.ray(anatomy.MIDLINE),
            hips=self.ray(anatomy.HIPS),
            legs=self.ray(anatomy.LEGS),
            neck=self.ray(Ray(anatomy.NOSE, anatomy.MID_SHOULDER)),
            flanks=pair(anatomy.flank),
            thighs=pair(anatomy.thigh),
            shanks=pair(anatomy.shank),
            upper_arms=pair(anatomy.upper_arm),
            forearms=pair(anatomy.forearm),
            heads=np.array([self.ray(anatomy.EARS), self.ray(anatomy.EYES)], np.intp),
            faces=pair(lambda side: Ray(anatomy.joint(side, "ear"), anatomy.NOSE)),
            feet=pair(foot),
            hands=pair(lambda side: anatomy.segment(side, "wrist", "middle_finger1")),
            fingers=pair(lambda side: anatomy.segment(side, "middle_finger1", "middle_finger4")),
        )

    def ray(self, ray: Ray | Vertical | None) -> int:
        """Index of a direction; None maps to UPWARD (index 0)."""
        if ray is None:
            return UPWARD
        if isinstance(ray, Vertical):
            return UPWARD if ray.sign > 0 else DOWNWARD
        for name in ray.weights:
            self.places.setdefault(name, len(self.places))
        return self.rays.setdefault(ray, len(self.rays) + 2)

    def row(self, angle: Angle) -> int:
        """Number of an angle."""
        for ray in (angle.moving, angle.reference, angle.through):
            self.ray(ray)
        return self.rows.setdefault(angle, len(self.rows))

    def ratio(self, ratio: Ratio) -> int:
        """Number of a ratio."""
        pair = (self.ray(ratio.numerator), self.ray(ratio.denominator))
        return self.ratios.setdefault(pair, len(self.ratios))

    def slot(self, measurement: Measurement, side: Side) -> Slot:
        """One side of a measurement in numbers."""
        described = measurement.of(side)
        gate = described.gate
        return Slot(
            measurement,
            side,
            choices=tuple(self.choice(choice) for choice in self.supplied(described.choices)),
            details=tuple(self.detail(detail) for detail in described.details),
            gate=(UPWARD, UPWARD) if gate is None else (self.ray(gate.numerator), self.ray(gate.denominator)),
        )

    def choice(self, choice: Choice) -> PlannedChoice:
        """A choice with the numbers of what it uses."""
        angle = choice.angle
        row = self.row(angle)
        rays = [ray for ray in (angle.moving, angle.reference, angle.through) if isinstance(ray, Ray)]
        return PlannedChoice(
            choice,
            row,
            points=tuple((name, self.places[name]) for name in angle.names),
            segments=tuple((anatomy.SEGMENTS[r][0], self.rays[r]) for r in rays if r in anatomy.SEGMENTS),
        )

    def detail(self, detail: Detail) -> DetailRow:
        """A detail with the number of its row."""
        quantity = detail.quantity
        is_ratio = isinstance(quantity, Ratio)
        row = self.ratio(quantity) if isinstance(quantity, Ratio) else self.row(quantity)
        return DetailRow(detail.key, row, is_ratio, tuple(self.row(angle) for angle in detail.when_straight))

    def supplied(self, choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
        """Choices whose keypoints the skeleton has; without any, the one that lacks the fewest."""

        def lacking(choice: Choice) -> int:
            return sum(name not in self.columns for name in choice.angle.names)

        return tuple(c for c in choices if not lacking(c)) or (min(choices, key=lacking),)


def _assemble(
    build: _Builder,
    skeleton: str,
    measurements: tuple[Measurement, ...],
    slots: tuple[Slot, ...],
    sigmas: tuple[float | None, ...],
) -> CompiledAngles:
    place, names = build.places, tuple(build.places)
    directions = len(build.rays) + 2

    weights = np.zeros((len(place), directions))
    points = np.full((directions, max(len(ray.weights) for ray in build.rays)), len(place), np.intp)
    stature = np.full(directions, np.nan)
    for ray, j in build.rays.items():
        for i, (name, weight) in enumerate(ray.weights.items()):
            weights[place[name], j] = weight
            points[j, i] = place[name]
        if ray in anatomy.SEGMENTS:
            stature[j] = anatomy.SEGMENTS[ray][1]
    vertical = np.zeros(directions)
    vertical[UPWARD], vertical[DOWNWARD] = 1.0, -1.0

    anchors = np.zeros((len(place), len(build.rows)), np.complex128)
    for angle, row in build.rows.items():
        for name, weight in (angle.anchor or angle.moving.origin).weights:
            anchors[place[name], row] = weight

    choices = np.full((len(slots), max((len(slot.choices) for slot in slots), default=1)), -1, np.intp)
    fallback = np.zeros(len(build.rows), np.bool_)
    for g, slot in enumerate(slots):
        for i, planned in enumerate(slot.choices):
            choices[g, i] = planned.row
            fallback[planned.row] = planned.choice.fallback

    def sigma(name: str) -> float:
        column = build.columns.get(name)
        published = None if column is None else sigmas[column]
        return anatomy.default_sigma(name) if published is None else published

    def of_slots(property_of: Callable[[Measurement], bool]) -> NDArray[np.bool_]:
        return np.array([property_of(slot.measurement) for slot in slots], np.bool_)

    def presumed(name: str) -> list[bool]:
        return [posture in LIMITS[name].postures for posture in range(len(POSTURES))]

    return CompiledAngles(
        measurements=measurements,
        slots=slots,
        names=names,
        columns=np.array([build.columns.get(name, -1) for name in names], np.intp),
        swapped=np.array([build.columns.get(anatomy.opposite(name), -1) for name in names], np.intp),
        oks_sigmas=np.array([sigma(name) for name in names], np.float64),
        noise=noise_of(skeleton, names),
        mixing=mixing_of(skeleton, names),
        factors=np.array([FACTORS.get(slot.measurement.name, 1.0) for slot in slots], np.float64),
        cues=build.cues,
        weights=weights.astype(np.complex128),
        vertical=vertical,
        points=points,
        stature=stature,
        rows=_rows(build, tuple(build.rows)),
        choices=choices,
        anchors=anchors,
        ratios=np.array(list(build.ratios), np.intp).reshape(-1, 2),
        gates=np.array([slot.gate for slot in slots], np.intp).reshape(-1, 2),
        fallback=fallback,
        wants_frontal=of_slots(lambda m: m.view == "frontal"),
        wants_sagittal=of_slots(lambda m: m.view == "sagittal"),
        strict=of_slots(lambda m: m.strict_view),
        opposite=of_slots(lambda m: m.opposite),
        lowest_deg=np.array([LIMITS[slot.measurement.name].lowest_deg for slot in slots], np.float64),
        highest_deg=np.array([LIMITS[slot.measurement.name].highest_deg for slot in slots], np.float64),
        presumed=np.array([presumed(slot.measurement.name) for slot in slots], np.bool_).reshape(
            -1, len(POSTURES)
        ),
        own_side=np.array([_own_side(slot) for slot in slots], np.float64),
    )


def _rows(build: _Builder, angles: Sequence[Angle]) -> Rows:
    moving = np.array([build.ray(angle.moving) for angle in angles], np.intp)
    reference = np.array([build.ray(angle.reference) for angle in angles], np.intp)
    magnitude = [angle.unsigned or angle.orientation is Orientation.NONE for angle in angles]
    return Rows(
        moving=moving,
        reference=reference,
        through=np.array([build.ray(angle.through) for angle in angles], np.intp),
        is_through=np.array([angle.through is not None for angle in angles], np.bool_),
        orientation=np.array([angle.orientation.value for angle in angles], np.intp),
        factor=np.array([angle.factor for angle in angles], np.float64),
        offset_deg=np.array([angle.offset_deg for angle in angles], np.float64),
        outer=np.array([angle.outer for angle in angles], np.float64),
        lowest_deg=np.array([_LOWEST[angle.wrap] for angle in angles], np.float64),
        turns=np.array([angle.wrap is not Wrap.NONE for angle in angles], np.float64),
        unsigned=np.array(magnitude, np.bool_),
        neutral=np.array([angle.neutral for angle in angles], np.bool_),
    )


def _own_side(slot: Slot) -> float:
    if slot.measurement.mirror != "own":
        return 0.0
    return 1.0 if slot.side == "left" else -1.0
