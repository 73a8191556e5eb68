"""Angles over time as a picture: one panel for each person and measurement."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageFont

Sample = tuple[float, float | None, bool]
"""Seconds, degrees (None: not measured), and whether the value is doubtful."""

_SCALE = 2  # drawn larger and scaled down: that is how lines get smooth
_WIDTH, _PANEL, _HEAD, _FOOT = 1200, 260, 64, 44
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 28, 44, 18  # around the curves of a panel
_INK, _FAINT, _GRID, _PAPER = (33, 37, 41), (108, 117, 125), (228, 231, 235), (255, 255, 255)
_SIDES = (("left", (0, 119, 182)), ("right", (225, 108, 0)))  # as on the overlays, darker for white paper
_GAP_S = 0.5  # values further apart are not joined


@dataclass
class Curve:
    """One measurement of one person."""

    title: str
    left: list[Sample] = field(default_factory=list)
    right: list[Sample] = field(default_factory=list)

    def count(self) -> int:
        """Values that there are."""
        return sum(degrees is not None for _, degrees, _ in (*self.left, *self.right))


def draw_curves(title: str, curves: Sequence[Curve]) -> bytes:
    """A PNG with a panel for each curve; says so where there is none.

    Args:
        title: of the whole picture.
        curves: top to bottom.
    """
    height = _HEAD + _PANEL * max(len(curves), 1) + _FOOT
    image = Image.new("RGB", (_WIDTH * _SCALE, height * _SCALE), _PAPER)
    pen = _Pen(ImageDraw.Draw(image))
    pen.text((_LEFT, 20), title, size=22, bold=True)
    times = [time_s for curve in curves for time_s, _, _ in (*curve.left, *curve.right)]
    span = (min(times), max(times)) if times else (0.0, 1.0)
    if span[1] <= span[0]:
        span = span[0], span[0] + 1.0
    if not curves:
        pen.text((_LEFT, _HEAD + 40), "no angle could be measured", size=18, ink=_FAINT)
    for number, curve in enumerate(curves):
        _panel(pen, curve, _HEAD + number * _PANEL, span)
    if curves:
        _time_axis(pen, _HEAD + len(curves) * _PANEL - _BOTTOM, span)
        _legend(pen)
    small = image.resize((_WIDTH, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "PNG", optimize=True)
    return file.getvalue()


class _Pen:
    """Draws in px of the finished picture."""

    def __init__(self, canvas: ImageDraw.ImageDraw) -> None:
        self._canvas = canvas

    def line(self, points: Sequence[tuple[float, float]], ink: tuple[int, int, int], width: float) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._canvas.line(scaled, fill=ink, width=max(1, round(width * _SCALE)), joint="curve")

    def dot(self, at: tuple[float, float], ink: tuple[int, int, int], radius: float) -> None:
        x, y = at
        corners = [(x - radius) * _SCALE, (y - radius) * _SCALE, (x + radius) * _SCALE, (y + radius) * _SCALE]
        self._canvas.ellipse(corners, fill=ink)

    def text(
        self,
        at: tuple[float, float],
        words: str,
        *,
        size: float = 14,
        ink: tuple[int, int, int] = _INK,
        anchor: str = "la",
        bold: bool = False,
    ) -> None:
        font = ImageFont.load_default(size * _SCALE)
        place = at[0] * _SCALE, at[1] * _SCALE
        self._canvas.text(
            place, words, fill=ink, font=font, anchor=anchor, stroke_width=int(bold), stroke_fill=ink
        )


def _panel(pen: _Pen, curve: Curve, top: float, span: tuple[float, float]) -> None:
    values = [degrees for _, degrees, _ in (*curve.left, *curve.right) if degrees is not None]
    low, high, step = _axis(min(values, default=0.0), max(values, default=90.0), 5)
    upper, lower = top + _TOP, top + _PANEL - _BOTTOM

    def place(time_s: float, degrees: float) -> tuple[float, float]:
        x = _LEFT + (time_s - span[0]) / (span[1] - span[0]) * (_WIDTH - _LEFT - _RIGHT)
        return x, lower - (degrees - low) / (high - low) * (lower - upper)

    pen.text((_LEFT, top + 14), curve.title, size=17, bold=True)
    for number in range(round((high - low) / step) + 1):
        degrees = low + number * step
        y = place(span[0], degrees)[1]
        zero = abs(degrees) < step / 1e3
        pen.line([(_LEFT, y), (_WIDTH - _RIGHT, y)], _FAINT if zero else _GRID, 1)
        pen.text((_LEFT - 10, y), f"{degrees:.0f}°", ink=_FAINT, anchor="rm")
    for time_s in _ticks(*span, 10):
        x = place(time_s, low)[0]
        pen.line([(x, upper), (x, lower)], _GRID, 1)
    for (_, ink), samples in zip(_SIDES, (curve.left, curve.right), strict=True):
        _draw_side(pen, samples, ink, place)


def _draw_side(pen: _Pen, samples: Sequence[Sample], ink: tuple[int, int, int], place: object) -> None:
    assert callable(place)  # noqa: S101 - a closure of the panel
    before: Sample | None = None
    for sample in samples:
        time_s, degrees, doubtful = sample
        if degrees is None:
            continue
        here = place(time_s, degrees)
        if before is not None and before[1] is not None and time_s - before[0] <= _GAP_S:
            pale = doubtful or before[2]
            pen.line([place(before[0], before[1]), here], _pale(ink) if pale else ink, 1.8 if pale else 2.6)
        else:
            pen.dot(here, ink, 1.5)
        before = sample


def _pale(ink: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (round(0.55 * part + 0.45 * 255) for part in ink)
    return red, green, blue


def _time_axis(pen: _Pen, y: float, span: tuple[float, float]) -> None:
    ticks = _ticks(*span, 10)
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]))) if len(ticks) > 1 else 1
    for time_s in ticks:
        x = _LEFT + (time_s - span[0]) / (span[1] - span[0]) * (_WIDTH - _LEFT - _RIGHT)
        pen.text((x, y + 8), f"{time_s:.{digits}f} s", ink=_FAINT, anchor="ma")


def _legend(pen: _Pen) -> None:
    x = _WIDTH - _RIGHT - 330
    for name, ink in _SIDES:
        pen.line([(x, 32), (x + 26, 32)], ink, 3)
        pen.text((x + 34, 32), name, anchor="lm")
        x += 90
    pen.line([(x, 32), (x + 26, 32)], _pale(_FAINT), 2)
    pen.text((x + 34, 32), "pale: doubtful", ink=_FAINT, anchor="lm")


def _axis(low: float, high: float, about: int) -> tuple[float, float, float]:
    """Round limits that hold both values, and the step between grid lines."""
    step = _step(max(high - low, 1.0) / about)
    return math.floor(low / step) * step, max(math.ceil(high / step), math.floor(low / step) + 1) * step, step


def _ticks(low: float, high: float, about: int) -> list[float]:
    step = _step((high - low) / about)
    return [
        number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _step(least: float) -> float:
    """The next of 1, 2, 5, 10, … from `least` on."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
