"""Measured angles drawn on the image, as a goniometer would be laid on the body.

The reference ray is dashed (dotted where it is the plumb line), the moving ray is solid, and an arc
with an arrow leads from one to the other in the direction of the angle. Sides have the colours of
their limbs; a degraded value is grey, and one that could not be measured is a label with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import atan2, cos, degrees, hypot, radians, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from service.core.angles import Goniometer, Status, title_text, value_text
from service.core.cancellation import checkpoint
from service.core.drawing.poses import SIDE_COLORS
from service.core.drawing.text import (
    LabelRequest,
    Line,
    draw_plate,
    font_size_px,
    place,
    plate_size_wh,
    shortened,
)
from service.core.geometry import Rgb8
from service.core.skeleton.template import Rgb

LEFT, RIGHT, BOTH = SIDE_COLORS["left"], SIDE_COLORS["right"], SIDE_COLORS["middle"]
DOUBTFUL: Rgb = (200, 200, 200)
_PLATE: Rgb = (16, 18, 22)
_TEXT: Rgb = (255, 255, 255)
_FAINT: Rgb = (205, 208, 212)
_OUTLINE: Rgb = (0, 0, 0)

_SHIFT = 4  # cv2 takes coordinates in sixteenths of a px
_WEDGE = 0.25  # opacity of the filled sector
_MOST_ON_A_PLATE = 4


_Segment = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Plate:
    """Lines of text on a plate.

    Attributes:
        corner: left and top, px.
        lines: top to bottom, a title and a value for each goniometer.
        color: of the edge, the same as that of the rays.
        lead: from what it is about to the plate, where the plate had to move away.
    """

    corner: tuple[int, int]
    lines: tuple[Line, ...]
    color: Rgb
    lead: _Segment | None


def draw_angles(image: Rgb8, goniometers: Iterable[Goniometer], *, labels: bool = True) -> Rgb8:
    """A copy of the image with every goniometer on it; labels stay inside and apart.

    Args:
        image: RGB (H, W, 3) of any size, left as it is.
        goniometers: what to draw, the most important first. Where an image has no room for the plates
            of all, the last ones are counted instead.
        labels: write name and value beside every arc.

    Returns:
        RGB (H, W, 3), a new array.
    """
    canvas = np.ascontiguousarray(image).copy()
    high, wide = canvas.shape[:2]
    if high == 0 or wide == 0:
        return canvas
    font = font_size_px((wide, high))
    dials = _dials(goniometers, (wide, high), font)
    for dial in dials:
        checkpoint()
        _draw_wedge(canvas, dial)
    stroke = max(round(font / 8), 2)
    for dial in dials:
        checkpoint()
        # thin enough strokes for a small person in a large image
        _draw_dial(canvas, dial, min(stroke, max(round(dial.moving_px / 24), 2)))
    plates = _plates(dials, (wide, high), font) if labels else ()
    thin = max(stroke // 2, 1)
    for plate in plates:
        if plate.lead is not None:
            _line(canvas, *plate.lead, _OUTLINE, thin + 1)
            _line(canvas, *plate.lead, plate.color, thin)
    for plate in plates:
        draw_plate(canvas, plate.corner, plate.lines, _PLATE, plate.color)
    return canvas


def lay_out(goniometers: Iterable[Goniometer], size_wh: tuple[int, int]) -> tuple[Plate, ...]:
    """Where `draw_angles` puts its plates on an image of this size, and what is on them."""
    font = font_size_px(size_wh)
    return _plates(_dials(goniometers, size_wh, font), size_wh, font)


@dataclass(frozen=True)
class _Dial:
    """One arc with its rays and its plate, for all goniometers that lie the same way.

    A flexion, its extension and a squat's flexion are one arc with three numbers. `centre` is None
    where there is nothing but a plate to draw.
    """

    goniometers: tuple[Goniometer, ...]
    color: Rgb
    centre: tuple[float, float] | None
    drawn: bool
    start_deg: float
    sweep_deg: float
    moving_px: float
    reference_px: float
    radius_px: float


def _dials(goniometers: Iterable[Goniometer], size_wh: tuple[int, int], font: int) -> list[_Dial]:
    alike: dict[tuple[object, ...], list[Goniometer]] = {}
    for goniometer in goniometers:
        key = _lie(goniometer, size_wh)
        while len(alike.get(key, ())) >= _MOST_ON_A_PLATE:
            key = (*key, "more")
        alike.setdefault(key, []).append(goniometer)
    dials: list[_Dial] = []
    for group in alike.values():
        dials.append(_dial(tuple(group), dials, size_wh, font))
    return dials


def _lie(goniometer: Goniometer, size_wh: tuple[int, int]) -> tuple[object, ...]:
    """Where and which way a goniometer lies; those that lie the same way share a dial."""
    centre, moving = _centre(goniometer, size_wh), goniometer.moving_xy
    if centre is None:
        return (goniometer.side,)
    place = (goniometer.side, round(centre[0]), round(centre[1]))
    if moving is None or goniometer.value.degrees is None:
        return place
    return (*place, round(degrees(atan2(moving[1], moving[0]))), round(goniometer.sweep_deg))


def _dial(
    group: tuple[Goniometer, ...], before: Sequence[_Dial], size_wh: tuple[int, int], font: int
) -> _Dial:
    first = group[0]
    sure = any(goniometer.value.status is Status.OK for goniometer in group)
    color = {"left": LEFT, "right": RIGHT, None: BOTH}[first.side] if sure else DOUBTFUL
    centre, moving = _centre(first, size_wh), first.moving_xy
    if centre is None or moving is None or first.value.degrees is None:
        return _Dial(group, color, centre, False, 0.0, 0.0, 0.0, 0.0, 0.0)
    length = min(hypot(*moving), hypot(*size_wh))
    # arcs around the same joint go outward one after another
    nested = sum(
        dial.drawn and dial.centre is not None and hypot(*np.subtract(dial.centre, centre)) < font
        for dial in before
    )
    radius = min(max(0.4 * length, 0.8 * font), 2.6 * font) + 0.7 * font * nested
    return _Dial(
        group,
        color,
        centre,
        drawn=True,
        start_deg=degrees(atan2(moving[1], moving[0])) - first.sweep_deg,
        sweep_deg=first.sweep_deg,
        moving_px=max(length, radius + 0.6 * font),
        reference_px=max(0.8 * length, radius + 0.6 * font),
        radius_px=radius,
    )


def _centre(goniometer: Goniometer, size_wh: tuple[int, int]) -> tuple[float, float] | None:
    """The centre, if it is in the image or so near that its rays may be."""
    at = goniometer.centre_xy
    if at is None or not all(-size < v < 2 * size for v, size in zip(at, size_wh, strict=True)):
        return None
    return at


def _ray(dial: _Dial, deg: float, length: float) -> tuple[float, float]:
    """The point at `length` from the centre in a direction."""
    x, y = dial.centre or (0.0, 0.0)
    return x + length * cos(radians(deg)), y + length * sin(radians(deg))


def _arc(dial: _Dial) -> NDArray[np.float64]:
    """(S, 2) points along the arc, from the reference to the moving ray."""
    steps = max(int(abs(dial.sweep_deg) / 3), 1) + 1
    turns = np.radians(dial.start_deg + np.linspace(0.0, dial.sweep_deg, steps))
    return np.array(dial.centre) + dial.radius_px * np.stack([np.cos(turns), np.sin(turns)], axis=1)


def _fixed(points: NDArray[np.float64] | Sequence[tuple[float, float]]) -> NDArray[np.int32]:
    return np.round(np.asarray(points) * (1 << _SHIFT)).astype(np.int32)


def _draw_wedge(canvas: Rgb8, dial: _Dial) -> None:
    if not dial.drawn or dial.centre is None:
        return
    high, wide = canvas.shape[:2]
    outline = np.concatenate([[dial.centre], _arc(dial)])
    x1, y1 = np.clip(np.floor(outline.min(axis=0)).astype(int) - 1, 0, (wide, high))
    x2, y2 = np.clip(np.ceil(outline.max(axis=0)).astype(int) + 2, 0, (wide, high))
    if x1 >= x2 or y1 >= y2:
        return
    under = canvas[y1:y2, x1:x2]
    filled = under.copy()
    cv2.fillPoly(filled, [_fixed(outline - (x1, y1))], dial.color, cv2.LINE_AA, _SHIFT)
    canvas[y1:y2, x1:x2] = cv2.addWeighted(filled, _WEDGE, under, 1 - _WEDGE, 0.0)


def _draw_dial(canvas: Rgb8, dial: _Dial, stroke: int) -> None:
    if not dial.drawn or dial.centre is None:
        return
    end_deg = dial.start_deg + dial.sweep_deg
    gravity = dial.goniometers[0].gravity
    dash, gap = (0.01, 4.2) if gravity else (3.0, 3.2)
    broken = _dashes(dial, dial.start_deg, dash * stroke, gap * stroke)
    solid = [(dial.centre, _ray(dial, end_deg, dial.moving_px))]
    arc = _fixed(_arc(dial))
    head = _arrow(dial, stroke)
    for color, width in ((_OUTLINE, stroke + 2), (dial.color, stroke)):
        thick = round(1.4 * stroke) if gravity else stroke
        for start, end in broken:
            _line(canvas, start, end, color, thick + width - stroke)
        for start, end in solid:
            _line(canvas, start, end, color, round(1.4 * stroke) + width - stroke)
        cv2.polylines(canvas, [arc], False, color, width, cv2.LINE_AA, _SHIFT)
        if head is not None:
            cv2.fillPoly(canvas, [_fixed(head)], color, cv2.LINE_AA, _SHIFT)
        _dot(canvas, dial.centre, color, 1.8 * stroke + (width - stroke) / 2)


def _dashes(dial: _Dial, deg: float, dash: float, gap: float) -> list[_Segment]:
    starts = np.arange(0.0, dial.reference_px, dash + gap).tolist()
    return [(_ray(dial, deg, s), _ray(dial, deg, min(s + dash, dial.reference_px))) for s in starts]


def _arrow(dial: _Dial, stroke: int) -> NDArray[np.float64] | None:
    """The head at the end of the arc, None where the arc is too short to point."""
    long = 4.5 * stroke
    if radians(abs(dial.sweep_deg)) * dial.radius_px < 1.5 * long:
        return None
    end_deg = dial.start_deg + dial.sweep_deg
    # the head's tail lies on the arc
    back_deg = end_deg - np.copysign(degrees(long / dial.radius_px), dial.sweep_deg)
    return np.array(
        [
            _ray(dial, end_deg, dial.radius_px),
            _ray(dial, back_deg, dial.radius_px + 0.45 * long),
            _ray(dial, back_deg, dial.radius_px - 0.45 * long),
        ]
    )


def _line(canvas: Rgb8, start: tuple[float, float], end: tuple[float, float], color: Rgb, width: int) -> None:
    a, b = _fixed([start, end]).tolist()
    cv2.line(canvas, a, b, color, width, cv2.LINE_AA, _SHIFT)


def _dot(canvas: Rgb8, at: tuple[float, float], color: Rgb, radius: float) -> None:
    x, y = _fixed([at])[0].tolist()
    cv2.circle(canvas, (x, y), round(radius * (1 << _SHIFT)), color, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _plates(dials: Sequence[_Dial], size_wh: tuple[int, int], font: int) -> tuple[Plate, ...]:
    texts = [_text(dial, font, max(round(0.9 * size_wh[0]), 1)) for dial in dials]
    # measured values come before reasons for missing ones
    order = sorted(range(len(dials)), key=lambda i: not dials[i].drawn)
    requests = [_request(dials[i], texts[i], font) for i in order]
    clear = _keep_clear(dials)
    corners = list(place(requests, size_wh, clear))
    found = []
    if None in corners:
        # the count is placed first, so that it always gets a place
        request = LabelRequest(plate_size_wh(_count(99, font)), size_wh, (-1.0, -1.0), 0.0)
        first, *corners = place([request, *requests], size_wh, clear)
        lost = sum(len(dials[i].goniometers) for i, c in zip(order, corners, strict=True) if c is None)
        if first is not None:
            found.append(Plate(first, tuple(_count(lost, font)), DOUBTFUL, None))
    found += [
        Plate(corner, tuple(texts[i]), dials[i].color, _lead(dials[i], corner, texts[i], font))
        for i, corner in zip(order, corners, strict=True)
        if corner is not None
    ]
    return tuple(found)


def _count(left_over: int, font: int) -> list[Line]:
    return [Line(f"+{left_over} more", font, _FAINT)]


def _text(dial: _Dial, font: int, most_px: int) -> list[Line]:
    small = max(round(0.75 * font), 10)
    lines = []
    for goniometer in dial.goniometers:
        value, measurement = goniometer.value, goniometer.measurement
        known, sure = value.degrees is not None, value.status is Status.OK
        title = Line(title_text(measurement, goniometer.side), small, _FAINT if sure else DOUBTFUL)
        text = value_text(value, measurement)
        number = Line(text, font if known else small, _TEXT if sure else DOUBTFUL, bold=known)
        lines += [shortened(title, most_px), shortened(number, most_px)]
    return lines


def _request(dial: _Dial, plate: Sequence[Line], font: int) -> LabelRequest:
    size = plate_size_wh(plate)
    if dial.centre is None:
        return LabelRequest(size, (0.0, 0.0), (1.0, 1.0), 0.0)
    half = radians(dial.start_deg + dial.sweep_deg / 2)
    toward = (cos(half), sin(half)) if dial.drawn else (1.0, 0.0)
    return LabelRequest(size, dial.centre, toward, dial.radius_px + 0.4 * font)


def _keep_clear(dials: Sequence[_Dial]) -> NDArray[np.float64]:
    """Points on the rays and arcs, which plates should not cover."""
    points = [np.zeros((0, 2))]
    for dial in dials:
        if dial.drawn:
            for deg, length in (
                (dial.start_deg, dial.reference_px),
                (dial.start_deg + dial.sweep_deg, dial.moving_px),
            ):
                points.append(np.array([_ray(dial, deg, length * part / 8) for part in range(9)]))
            points.append(_arc(dial)[::4])
        elif dial.centre is not None:
            points.append(np.array([dial.centre]))
    return np.concatenate(points)


def _lead(dial: _Dial, corner: tuple[int, int], text: Sequence[Line], font: int) -> _Segment | None:
    """A line to what a plate is about, where the plate had to move away from it."""
    if dial.centre is None:
        return None
    wide, high = plate_size_wh(text)
    x = min(max(dial.centre[0], corner[0]), corner[0] + wide)
    y = min(max(dial.centre[1], corner[1]), corner[1] + high)
    if hypot(x - dial.centre[0], y - dial.centre[1]) < dial.radius_px + 1.2 * font:
        return None
    toward = degrees(atan2(y - dial.centre[1], x - dial.centre[0]))
    start = _ray(dial, toward, dial.radius_px + 0.2 * font) if dial.drawn else dial.centre
    return start, (x, y)
