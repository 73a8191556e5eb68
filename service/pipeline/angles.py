"""Use case MeasureAngles: the joint angles of the persons in one image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from service.core.angles import (
    AngleOptions,
    Measured,
    PersonMeasures,
    SideSelection,
    goniometers,
    measure,
    person_measures,
)
from service.core.cancellation import checkpoint
from service.core.drawing.angles import draw_angles
from service.core.drawing.poses import draw_poses
from service.core.geometry import Rgb8
from service.core.poses import Poses, largest
from service.core.skeleton.template import Skeleton
from service.errors import InvalidRequest
from service.pipeline.answer_size import AnswerSize
from service.pipeline.estimator import DetectionOptions, Estimate
from service.pipeline.overlay import Overlay, OverlayConfig, encode_overlay
from service.telemetry.call_context import StageTimer

MAX_OVERLAYS = 64
"""In one call, with an overlay for each measurement."""


@dataclass(frozen=True)
class AngleRequest:
    """A checked request to measure joint angles.

    Attributes:
        names: measurements, in the order of the answer.
        side: sides to answer.
        detection: how persons are detected.
        options: how the image is read; its size is not known yet.
        index: number of the person to measure, by falling score; None where it is not chosen by number.
        all_persons: measure every person instead of the largest.
        overlay: how the angles are drawn; None for no overlay.
        overlay_all: an overlay with all measurements.
        overlay_each: an overlay per measurement.
    """

    names: tuple[str, ...]
    side: SideSelection
    detection: DetectionOptions
    options: AngleOptions
    index: int | None
    all_persons: bool
    overlay: OverlayConfig | None
    overlay_all: bool
    overlay_each: bool


@dataclass(frozen=True, eq=False)
class AngleReport:
    """Measured persons.

    Attributes:
        poses: of the persons chosen, (N) of them.
        numbers: of each among all persons by falling score, (N,).
        measures: of each, (N,).
        overlay: all angles in one image, or None.
        overlays: an image per person and measurement; (N,) of each its measurements, or empty.
    """

    poses: Poses
    numbers: tuple[int, ...]
    measures: tuple[PersonMeasures, ...]
    overlay: Overlay | None
    overlays: tuple[tuple[Overlay, ...], ...]


def choose(poses: Poses, request: AngleRequest) -> list[int]:
    """Numbers of the persons to measure, by falling score."""
    if not len(poses):
        return []
    if request.index is not None:
        return [request.index] if request.index < len(poses) else []
    if request.all_persons:
        return list(range(len(poses)))
    return [largest(poses)]


def measure_angles(
    estimate: Estimate, skeleton: Skeleton, request: AngleRequest, timer: StageTimer, size: AnswerSize
) -> AngleReport:
    """Measure the chosen persons and draw their angles. CPU work, for a worker thread.

    Args:
        estimate: the persons, and the image if there is something to draw.
        skeleton: native skeleton of the model.
        request: what to measure and draw.
        timer: records the durations of measuring and drawing.
        size: adds up the overlays.

    Raises:
        InvalidRequest: more overlays than are drawn in one call.
        AnswerTooLarge: the overlays do not fit into a message.
        ImageTooLarge: the image does not fit into the format of the overlay.
    """
    with timer.timed("postprocess"):
        chosen = choose(estimate.poses, request)
        poses = estimate.poses.select(np.array(chosen, np.intp))
        options = replace(request.options, size_wh=estimate.size_wh)
        measured = measure(poses, skeleton, request.names, options, side=request.side)
        if request.overlay is not None and request.overlay_each:
            _check_overlays(len(chosen), len(request.names))
        measures = tuple(person_measures(measured, place) for place in range(len(chosen)))
    overlay: Overlay | None = None
    overlays: tuple[tuple[Overlay, ...], ...] = ()
    if request.overlay is not None and estimate.image is not None:
        with timer.timed("draw"):
            # One person needs no label; of several, the label gives the number.
            labels = request.overlay.style.labels and len(chosen) > 1
            style = replace(request.overlay.style, labels=labels)
            base = draw_poses(estimate.image, poses, skeleton, style, numbers=chosen)
            if request.overlay_each:
                overlays = tuple(
                    _draw_each(base, measured, place, person, request.overlay, size)
                    for place, person in enumerate(measures)
                )
            if request.overlay_all:
                overlay = _draw(base, measured, list(range(len(chosen))), None, request.overlay)
                size.add(len(overlay.content))
    return AngleReport(poses, tuple(chosen), measures, overlay, overlays)


def _check_overlays(persons: int, measurements: int) -> None:
    """Check the number of overlays: each is a whole image, drawn and encoded."""
    if persons * measurements > MAX_OVERLAYS:
        raise InvalidRequest(
            f"{persons} people and {measurements} measurements make {persons * measurements} overlays; at "
            f"most {MAX_OVERLAYS} are drawn in one call: ask for fewer, or for COMBINED.",
            reason="TOO_MANY_OVERLAYS",
            metadata={"limit": str(MAX_OVERLAYS), "actual": str(persons * measurements)},
        )


def _draw_each(
    base: Rgb8,
    measured: Measured,
    place: int,
    person: PersonMeasures,
    config: OverlayConfig,
    size: AnswerSize,
) -> tuple[Overlay, ...]:
    """An overlay for each measurement of one person."""
    overlays = []
    for result in person.results:
        checkpoint()
        overlay = _draw(base, measured, [place], (result.measurement.name,), config)
        size.add(len(overlay.content))
        overlays.append(overlay)
    return tuple(overlays)


def _draw(
    base: Rgb8, measured: Measured, places: list[int], names: tuple[str, ...] | None, config: OverlayConfig
) -> Overlay:
    dials = [dial for place in places for dial in goniometers(measured, place, names)]
    return encode_overlay(draw_angles(base, dials, labels=config.style.labels), config)
