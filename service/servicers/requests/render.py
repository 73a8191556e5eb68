"""RenderPosesRequest: persons, skeleton, background and overlay."""

from __future__ import annotations

from dataclasses import dataclass

from posegate.v1 import skeleton_service_pb2 as pb
from service.core.poses import Poses
from service.core.skeleton.colors import parse_color
from service.core.skeleton.template import Rgb, Skeleton
from service.core.skeleton.validation import shown
from service.media.image import MAX_SIDE
from service.pipeline.limits import Limits
from service.pipeline.overlay import OverlayConfig
from service.pipeline.render import Canvas
from service.servicers.requests.persons import PersonArrays, read_people
from service.servicers.requests.validation import Violations, check_image, read_overlay

_BLACK: Rgb = (0, 0, 0)


@dataclass(frozen=True)
class Drawing:
    """How and on what is drawn; `canvas` is None for an image, `overlay` only where a violation was found."""

    overlay: OverlayConfig | None
    canvas: Canvas | None


def read_drawing(found: Violations, request: pb.RenderPosesRequest, limits: Limits) -> Drawing:
    """The overlay options and the background; violations are added to `found`."""
    overlay = read_overlay(found, request.overlay, default="png")
    return Drawing(overlay, _read_background(found, request, overlay, limits))


def read_persons(
    found: Violations, request: pb.RenderPosesRequest, skeleton: Skeleton, limits: Limits
) -> PersonArrays:
    """The persons as arrays. CPU work, for a worker thread.

    Raises:
        InvalidRequest: with every violation, those in `found` too.
    """
    persons = _read_persons(found, request, skeleton, limits)
    found.raise_any()
    return persons


def _read_persons(
    found: Violations, request: pb.RenderPosesRequest, skeleton: Skeleton, limits: Limits
) -> PersonArrays:
    if len(request.persons) > limits.max_persons:
        found.add("persons", f"must be at most {limits.max_persons}, not {len(request.persons)}")
        return PersonArrays(Poses.empty(len(skeleton.keypoints)), ())
    return read_people(found, request.persons, skeleton, "persons")


def _read_background(
    found: Violations, request: pb.RenderPosesRequest, config: OverlayConfig | None, limits: Limits
) -> Canvas | None:
    """The canvas; None for an image."""
    match request.WhichOneof("background"):
        case "image":
            check_image(found, request.image, present=True)
        case "canvas":
            return _read_canvas(found, request.canvas, config, limits)
        case _:
            found.add("background", "must be set: image or canvas")
    return None


def _read_canvas(
    found: Violations, canvas: pb.Canvas, config: OverlayConfig | None, limits: Limits
) -> Canvas:
    width, height = canvas.size.width, canvas.size.height
    if width < 1 or height < 1:
        found.add("canvas.size", f"must be 1 px or more each way, not {width}×{height}")
    elif width * height > limits.image.max_pixels:
        at_most = limits.image.max_pixels
        found.add("canvas.size", f"must be at most {at_most} px in all, not {width}×{height}")
    elif config is not None and max(width, height) > MAX_SIDE[config.media_format]:
        at_most = MAX_SIDE[config.media_format]
        kind = config.media_format.upper()
        found.add("canvas.size", f"must be at most {at_most} px a side as {kind}, not {width}×{height}")
    color = parse_color(canvas.color) if canvas.color else _BLACK
    if color is None:
        found.add("canvas.color", f"must be #RRGGBB or empty, not {shown(canvas.color)}")
    return Canvas((width, height), color or _BLACK)
