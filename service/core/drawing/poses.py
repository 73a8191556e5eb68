"""Draws persons on an image: limbs coloured by side, keypoints by score, box and label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from service.core.cancellation import checkpoint
from service.core.geometry import Rgb8
from service.core.poses import Poses, extents, present
from service.core.skeleton.template import Laterality, Rgb, Skeleton

SIDE_COLORS: dict[Laterality, Rgb] = {
    "left": (0, 190, 255),
    "right": (255, 140, 0),
    "middle": (120, 230, 120),
}
"""The person's own left is blue, right is orange: distinguishable with every common colour blindness."""

_OUTLINE: Rgb = (20, 20, 20)
_BOX: Rgb = (245, 245, 245)
_SURE = 0.5  # from here on a keypoint is drawn full; below it is hollow, its limbs thin, and both faint
_FAINT = 0.45  # share of the colour in what is faint; the rest is the image
_SLENDER = 7.0  # a limb is at least so many times as long as wide
_STROKES_AT_ONCE = 64  # strokes between two checks for cancellation
_FEW = 40  # keypoints; of a skeleton with more, points without limbs are drawn as dots
_SHIFT = 4  # fractional bits of the coordinates given to cv2: a 16th of a pixel
_REACH = 1 << 20  # px; wider than any image, and far from overflowing cv2's fixed-point lines


@dataclass(frozen=True)
class OverlayStyle:
    """How persons are drawn.

    Attributes:
        line_width: px of a limb; 0 scales it with the image.
        boxes: draw the box around each person.
        labels: write each person's number and score at the box.
        min_keypoint_score: keypoints below it, and their limbs, are left out.
    """

    line_width: int = 0
    boxes: bool = True
    labels: bool = True
    min_keypoint_score: float = 0.0


def draw_poses(
    image: Rgb8,
    poses: Poses,
    skeleton: Skeleton,
    style: OverlayStyle,
    *,
    numbers: Sequence[int] | None = None,
) -> Rgb8:
    """A copy of the image with the persons on it.

    Points that are not there (x = y = score = 0) are not drawn. A person without a box (NaN) is drawn
    without one, and the label then stands at the keypoints.

    Args:
        image: (H, W, 3) uint8 RGB; left as it is.
        poses: keypoints in px of this image, in the skeleton's order.
        skeleton: names the limbs and the sides.
        style: widths and what to leave out.
        numbers: what the labels call each person; None: the place, zero-based.

    Raises:
        ValueError: the persons have another number of keypoints than the skeleton.
    """
    if len(poses) and poses.keypoint_count != len(skeleton.keypoints):
        raise ValueError(f"{poses.keypoint_count} keypoints do not fit skeleton {skeleton.name}")
    canvas = image.copy()
    width = style.line_width or default_line_width(image.shape[1], image.shape[0])
    # A width that was asked for is drawn as it is.
    slender = 1e-3 if style.line_width else _SLENDER
    order = skeleton.order
    limbs = [
        (order[edge.start], order[edge.end], edge.color or _limb_color(skeleton, edge.start, edge.end))
        for edge in skeleton.edges
    ]
    colors = [point.color or SIDE_COLORS[skeleton.side(point.name)] for point in skeleton.keypoints]
    # The best person is drawn last and so lies on top.
    for number in reversed(range(len(poses))):
        checkpoint()
        if style.boxes:
            _box(canvas, poses.boxes_xyxy[number], width)
        keypoints = poses.keypoints[number]
        drawable = present(keypoints) & (keypoints[:, 2] >= style.min_keypoint_score)
        shortest = _shortest(keypoints, limbs, drawable)
        for sure in (False, True):
            points = drawable & ((keypoints[:, 2] >= _SURE) == sure)
            strokes = _strokes(keypoints, limbs, drawable, width, slender, sure=sure)
            with nullcontext() if sure else _faint(canvas, keypoints, points, strokes, 2 * width):
                _limbs(canvas, keypoints, strokes)
                _points(canvas, keypoints, points, colors, width, shortest, slender)
    if style.labels:
        around = extents(poses.keypoints)
        boxes = np.where(np.isfinite(poses.boxes_xyxy).all(axis=1, keepdims=True), poses.boxes_xyxy, around)
        for place in reversed(range(len(poses))):
            number = place if numbers is None else numbers[place]
            _label(canvas, boxes[place], f"{number}  {poses.scores[place]:.2f}", width)
    return canvas


def default_line_width(width: int, height: int) -> int:
    """A limb's width in px that reads well on an image of this size."""
    return max(2, round(min(width, height) / 200))


def _limb_color(skeleton: Skeleton, start: str, end: str) -> Rgb:
    sides: set[Laterality] = {skeleton.side(start), skeleton.side(end)} - {"middle"}
    return SIDE_COLORS[sides.pop()] if len(sides) == 1 else SIDE_COLORS["middle"]


def _fixed(point: NDArray[np.float32]) -> tuple[int, int]:
    """Px to cv2's fixed point."""
    x, y = np.clip(point[:2], -_REACH, _REACH) * (1 << _SHIFT)
    return round(float(x)), round(float(y))


@dataclass(frozen=True)
class _Stroke:
    """A limb to be drawn: its length and width in px, the points it joins, its colour."""

    length: float
    thickness: int
    start: int
    end: int
    color: Rgb


def _ends(keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip(np.nan_to_num(keypoints[:, :2]), -_REACH, _REACH)


def _shortest(
    keypoints: NDArray[np.float32], limbs: list[tuple[int, int, Rgb]], drawable: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(K,) px of the shortest limb that ends in each point; infinite for a point without one."""
    ends = _ends(keypoints)
    shortest = np.full(len(keypoints), np.inf, np.float32)
    for start, end, _ in limbs:
        if drawable[start] and drawable[end]:
            length = np.hypot(*(ends[start] - ends[end]))
            shortest[[start, end]] = np.minimum(shortest[[start, end]], length)
    return shortest


def _strokes(
    keypoints: NDArray[np.float32],
    limbs: list[tuple[int, int, Rgb]],
    drawable: NDArray[np.bool_],
    width: int,
    slender: float,
    *,
    sure: bool,
) -> list[_Stroke]:
    """The limbs between sure points, or the others, by rising length, so that long ones lie over short ones.

    A limb is at least `slender` times as long as wide: fingers and lips stay readable beside arms and legs.
    """
    ends = _ends(keypoints)
    strokes = []
    for start, end, color in limbs:
        if not (drawable[start] and drawable[end]):
            continue
        if (min(keypoints[start, 2], keypoints[end, 2]) >= _SURE) != sure:
            continue
        length = float(np.hypot(*(ends[start] - ends[end])))
        thickness = max(1, min(width if sure else width // 3, round(length / slender)))
        strokes.append(_Stroke(length, thickness, start, end, color))
    return sorted(strokes, key=lambda stroke: stroke.length)


@contextmanager
def _faint(
    canvas: Rgb8,
    keypoints: NDArray[np.float32],
    points: NDArray[np.bool_],
    strokes: list[_Stroke],
    margin: int,
) -> Iterator[None]:
    """What is drawn within the block at these points and strokes shows the image through."""
    ends_of_limbs = [end for one in strokes for end in (one.start, one.end)]
    rows = sorted({*np.flatnonzero(points).tolist(), *ends_of_limbs})
    if not rows:
        yield
        return
    height, width = canvas.shape[:2]
    ends = _ends(keypoints)[rows]
    x1, y1 = (int(value) for value in np.clip(ends.min(axis=0) - margin - 2, 0, (width, height)))
    x2, y2 = (int(value) for value in np.clip(ends.max(axis=0) + margin + 3, 0, (width, height)))
    area = canvas[y1:y2, x1:x2]
    before = area.copy()
    yield
    if area.size:
        area[...] = cv2.addWeighted(area, _FAINT, before, 1 - _FAINT, 0)


def _limbs(canvas: Rgb8, keypoints: NDArray[np.float32], strokes: list[_Stroke]) -> None:
    for outline in (True, False):
        for count, stroke in enumerate(strokes):
            if count % _STROKES_AT_ONCE == 0:
                checkpoint()
            cv2.line(
                canvas,
                _fixed(keypoints[stroke.start]),
                _fixed(keypoints[stroke.end]),
                _OUTLINE if outline else stroke.color,
                stroke.thickness + (max(1, stroke.thickness // 2) if outline else 0),
                cv2.LINE_AA,
                _SHIFT,
            )


def _points(
    canvas: Rgb8,
    keypoints: NDArray[np.float32],
    drawable: NDArray[np.bool_],
    colors: list[Rgb],
    width: int,
    shortest: NDArray[np.float32],
    slender: float,
) -> None:
    """Draw the points, no larger than their limbs allow; in a crowd without limbs they are dots."""
    full = max(2, round(width * 1.1))
    unit = 1 << _SHIFT
    alone = full if len(keypoints) <= _FEW else max(1, width // 4)
    for point, color, there, length in zip(keypoints, colors, drawable, shortest.tolist(), strict=True):
        if not there:
            continue
        center = _fixed(point)
        radius = max(1, min(full, round(length / slender))) if np.isfinite(length) else alone
        if radius < full // 2:
            cv2.circle(canvas, center, radius * unit, color, -1, cv2.LINE_AA, _SHIFT)
            continue
        sure = float(np.clip(point[2], 0, 1))
        fill = cast("Rgb", tuple(round(255 * sure + channel * (1 - sure)) for channel in color))
        size = radius if sure >= _SURE else max(1, radius * 2 // 3)
        cv2.circle(canvas, center, (size + max(1, width // 4)) * unit, _OUTLINE, -1, cv2.LINE_AA, _SHIFT)
        if sure >= _SURE:
            cv2.circle(canvas, center, size * unit, color, -1, cv2.LINE_AA, _SHIFT)
            cv2.circle(canvas, center, max(1, size // 2) * unit, fill, -1, cv2.LINE_AA, _SHIFT)
        else:
            cv2.circle(canvas, center, size * unit, color, max(1, width // 4), cv2.LINE_AA, _SHIFT)


def _box(canvas: Rgb8, box_xyxy: NDArray[np.float32], width: int) -> None:
    if not np.isfinite(box_xyxy).all():
        return
    corners = _fixed(box_xyxy[:2]), _fixed(box_xyxy[2:])
    thin = max(1, width // 2)
    cv2.rectangle(canvas, *corners, _OUTLINE, thin + 2, cv2.LINE_AA, _SHIFT)
    cv2.rectangle(canvas, *corners, _BOX, thin, cv2.LINE_AA, _SHIFT)


def _label(canvas: Rgb8, box_xyxy: NDArray[np.float32], text: str, width: int) -> None:
    """Text on a dark plate that sits on the box's upper edge and stays inside the image."""
    if not np.isfinite(box_xyxy).all():
        return
    scale, thickness = max(0.4, width * 0.17), max(1, round(width * 0.35))
    (text_w, text_h), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    pad = max(2, width)
    plate_w, plate_h = text_w + 2 * pad, text_h + below + 2 * pad
    height, full_w = canvas.shape[:2]
    x = int(np.clip(box_xyxy[0], 0, max(0, full_w - plate_w)))
    y = int(np.clip(box_xyxy[1] - plate_h, 0, max(0, height - plate_h)))
    plate = canvas[y : y + plate_h, x : x + plate_w]
    plate[...] = plate // 4 + 10
    cv2.putText(
        canvas,
        text,
        (x + pad, y + pad + text_h),
        cv2.FONT_HERSHEY_SIMPLEX,
        scale,
        (255, 255, 255),
        thickness,
        cv2.LINE_AA,
    )
