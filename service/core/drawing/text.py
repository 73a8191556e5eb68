"""Text on images: labels of a few lines, and a layout in which none covers another.

Glyphs are those of the variable font inside OpenCV 5, so degree signs and minus signs are drawn
the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, hypot, pi, sin, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from service.core.geometry import Rgb8
from service.core.skeleton.template import Rgb

Box = tuple[int, int, int, int]

_ASCENT, _DESCENT = 0.8, 0.22  # of the embedded font, over its size
_REGULAR, _BOLD = 500, 700
_TURNS = tuple(step * pi / 8 * sign for step in range(9) for sign in (1, -1))
_REACHES = (0.0, 0.5, 1.0, 1.6, 2.4, 3.4, 4.6, 6.0)  # in heights of the plate


@dataclass(frozen=True)
class Line:
    """One line of text.

    Attributes:
        text: characters that the font lacks come out as question marks.
        size_px: of the font.
        color: RGB.
        bold: heavier strokes.
    """

    text: str
    size_px: int
    color: Rgb
    bold: bool = False


@dataclass(frozen=True)
class LabelRequest:
    """Preferred place of a label: beside `at_xy`, in the direction of `toward_xy`, `gap_px` away."""

    size_wh: tuple[int, int]
    at_xy: tuple[float, float]
    toward_xy: tuple[float, float]
    gap_px: float


def font_size_px(size_wh: tuple[int, int]) -> int:
    """A size that is read at a glance on an image of any size: 11 px at 320×240, 48 px at 4K."""
    return round(min(max(sqrt(size_wh[0] * size_wh[1]) / 60.0, 11.0), 96.0))


def text_width_px(line: Line) -> int:
    """Width of a line in px."""
    return int(_extent(line)[2])


def shortened(line: Line, most_px: int) -> Line:
    """The line, cut with an ellipsis so that it is at most `most_px` wide."""
    clean = "".join(c if c.isprintable() else " " for c in line.text)
    text = clean
    while len(text) > 1 and text_width_px(Line(text, line.size_px, line.color, line.bold)) > most_px:
        # names can be very long: halve first, then take letters
        clean = clean[: max(len(clean) // 2, 64)] if len(clean) > 128 else clean[:-1]
        text = clean.rstrip() + "…"
    return Line(text, line.size_px, line.color, line.bold)


def plate_size_wh(lines: Sequence[Line]) -> tuple[int, int]:
    """Size of the plate that holds these lines."""
    pad = _padding(lines)
    width = max(text_width_px(line) for line in lines)
    return width + 2 * pad, sum(_height(line) for line in lines) + 2 * pad


def draw_plate(canvas: Rgb8, left_top: tuple[int, int], lines: Sequence[Line], fill: Rgb, edge: Rgb) -> Box:
    """Draw lines of text on a dark, slightly transparent plate. Writes into `canvas`.

    Args:
        canvas: RGB (H, W, 3).
        left_top: of the plate.
        lines: top to bottom.
        fill: of the plate.
        edge: of the bar at its left.

    Returns:
        The plate as x1, y1, x2, y2.
    """
    width, height = plate_size_wh(lines)
    x, y = left_top
    box = (x, y, x + width, y + height)
    rows, columns = slice(max(y, 0), max(y + height, 0)), slice(max(x, 0), max(x + width, 0))
    under = canvas[rows, columns]
    if under.size == 0:
        return box
    canvas[rows, columns] = cv2.addWeighted(under, 0.25, np.full_like(under, fill), 0.75, 0.0)
    pad = _padding(lines)
    cv2.rectangle(canvas, (x, y), (x + max(pad // 2, 1), y + height - 1), edge, cv2.FILLED)
    at = y + pad
    for line in lines:
        baseline = at + round(_ASCENT * line.size_px)
        _put(canvas, line, (x + pad, baseline))
        at += _height(line)
    return box


def place(
    requests: Sequence[LabelRequest], area_wh: tuple[int, int], keep_clear: NDArray[np.float64]
) -> tuple[tuple[int, int] | None, ...]:
    """Left top corners of plates inside the image, no two of which overlap.

    Every plate takes the place nearest to its request that covers no plate placed before it, and as few
    of the points to keep clear as possible.

    Args:
        requests: in order of importance.
        area_wh: of the image.
        keep_clear: (S, 2) x and y of what should stay visible.

    Returns:
        One corner per request, None where no room is left.
    """
    taken = np.zeros((0, 4))
    corners: list[tuple[int, int] | None] = []
    crowd = _Crowd.of(keep_clear, area_wh)
    targets = np.array([request.at_xy for request in requests], np.float64).reshape(-1, 2)
    for number, request in enumerate(requests):
        others = np.delete(targets, number, axis=0)
        corner = None
        if request.size_wh[0] <= area_wh[0] and request.size_wh[1] <= area_wh[1]:
            for tried in (_around, _everywhere):
                corner = corner or _best(tried(request, area_wh), request, taken, crowd, others)
        corners.append(corner)
        if corner is not None:
            wide, high = request.size_wh
            box = (corner[0], corner[1], corner[0] + wide, corner[1] + high)
            taken = np.concatenate([taken, np.array([box], np.float64)])
    return tuple(corners)


@dataclass(frozen=True, eq=False)
class _Crowd:
    """How many points lie in a rectangle, from a table of sums over cells of the image."""

    sums: NDArray[np.int64]
    cell_px: int

    @classmethod
    def of(cls, points: NDArray[np.float64], area_wh: tuple[int, int]) -> _Crowd:
        """The table for (S, 2) points; those outside the image do not count."""
        cell = max(-(-max(area_wh) // 256), 1)
        wide, high = area_wh[0] // cell + 1, area_wh[1] // cell + 1
        inside = points[((points >= 0) & (points < area_wh)).all(axis=1)]
        columns, rows = (inside // cell).astype(np.intp).T
        counts = np.bincount(rows * wide + columns, minlength=high * wide).reshape(high, wide)
        sums = np.zeros((high + 1, wide + 1), np.int64)
        sums[1:, 1:] = counts.cumsum(axis=0).cumsum(axis=1)
        return cls(sums, cell)

    def count(self, corners: NDArray[np.float64], size: NDArray[np.float64]) -> NDArray[np.int64]:
        """(C,) points in the cells that plates of one size at (C, 2) corners cover."""
        most = np.array(self.sums.shape[::-1]) - 1
        x1, y1 = np.clip(corners // self.cell_px, 0, most).astype(np.intp).T
        x2, y2 = np.clip((corners + size) // self.cell_px + 1, 0, most).astype(np.intp).T
        counted: NDArray[np.int64] = (
            self.sums[y2, x2] - self.sums[y1, x2] - self.sums[y2, x1] + self.sums[y1, x1]
        )
        return counted


def _around(request: LabelRequest, area_wh: tuple[int, int]) -> NDArray[np.float64]:
    """(C, 2) corners around the preferred place, moved into the image, the most preferred first."""
    wide, high = request.size_wh
    length = hypot(*request.toward_xy)
    ahead = complex(*request.toward_xy) / length if length > 0 else 1 + 0j
    found = []
    for reach in _REACHES:
        for turn in _TURNS:
            way = ahead * complex(cos(turn), sin(turn))
            # from the point to the centre of a plate whose edge is `away` from it
            half = min(
                wide / 2 / abs(way.real) if way.real else np.inf,
                high / 2 / abs(way.imag) if way.imag else np.inf,
            )
            centre = complex(*request.at_xy) + way * (request.gap_px + reach * high + half)
            found.append((centre.real - wide / 2, centre.imag - high / 2))
    most = np.maximum(np.subtract(area_wh, request.size_wh), 0)
    corners: NDArray[np.float64] = np.round(np.clip(np.array(found), 0, most))
    return corners


def _everywhere(request: LabelRequest, area_wh: tuple[int, int]) -> NDArray[np.float64]:
    """(C, 2) corners on a grid over the whole image."""
    wide, high = request.size_wh
    xs = np.arange(0, max(area_wh[0] - wide, 0) + 1, max(wide // 4, 1))
    ys = np.arange(0, max(area_wh[1] - high, 0) + 1, max(high // 4, 1))
    return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(np.float64)


def _best(
    corners: NDArray[np.float64],
    request: LabelRequest,
    taken: NDArray[np.float64],
    crowd: _Crowd,
    others: NDArray[np.float64],
) -> tuple[int, int] | None:
    """The best of the corners that cover no plate, None if all do."""
    size = np.array(request.size_wh, np.float64)
    # one px between plates keeps them apart
    low, high = corners[:, None], corners[:, None] + size
    apart = (low >= taken[:, 2:] + 1) | (high <= taken[:, :2] - 1)
    corners = corners[np.all(np.any(apart, axis=2), axis=1)]
    if not len(corners):
        return None
    covered = crowd.count(corners, size)
    own = np.maximum(_distances(corners, size, np.array([request.at_xy]))[:, 0], request.gap_px)
    # a label nearer to another label's point would be read as belonging to that one
    rival = _distances(corners, size, others).min(axis=1, initial=np.inf)
    confusing = np.clip(1.5 * own - rival, 0.0, 3 * size[1])
    # the first ones are the most preferred
    later = np.linspace(0.0, 0.5 * size[1], len(corners))
    best = corners[(own + confusing + later + 0.5 * size[1] * covered).argmin()]
    return int(best[0]), int(best[1])


def _distances(
    corners: NDArray[np.float64], size: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(C, P) distance from the nearest edge of a plate to each point, 0 inside."""
    beyond = np.maximum(corners[:, None] - points, points - corners[:, None] - size)
    distances: NDArray[np.float64] = np.hypot(*np.maximum(beyond, 0.0).transpose(2, 0, 1))
    return distances


def _padding(lines: Sequence[Line]) -> int:
    return max(round(0.35 * lines[0].size_px), 2)


def _height(line: Line) -> int:
    return round((_ASCENT + _DESCENT) * line.size_px)


def _extent(line: Line) -> Sequence[int]:
    weight = _BOLD if line.bold else _REGULAR
    return cv2.getTextSize((1, 1), line.text, (0, 0), cv2.FontFace(), line.size_px, weight)


def _put(canvas: Rgb8, line: Line, origin: tuple[int, int]) -> None:
    weight = _BOLD if line.bold else _REGULAR
    cv2.putText(canvas, line.text, origin, line.color, cv2.FontFace(), line.size_px, weight)
