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
from service.servicers.requests.persons import PersonArrays, read_pose_arrays
from service.servicers.requests.validation import Violations, check_image, read_overlay

_BLACK: Rgb = (0, 0, 0)


@dataclass(frozen=True)
class Drawing:
    """Overlay and background; `canvas` is None for an image, `overlay` only if there are violations."""

    overlay: OverlayConfig | None
    canvas: Canvas | None


def read_drawing(violations: Violations, request: pb.RenderPosesRequest, limits: Limits) -> Drawing:
    """Read the overlay options and the background; each violation goes to `violations`."""
    overlay = read_overlay(violations, request.overlay, default="png")
    return Drawing(overlay, _read_background(violations, request, overlay, limits))


def read_persons(
    violations: Violations, request: pb.RenderPosesRequest, skeleton: Skeleton, limits: Limits
) -> PersonArrays:
    """Read the persons as arrays. CPU work, for a worker thread.

    Raises:
        InvalidRequest: with every violation, those in `violations` too.
    """
    persons = _read_persons(violations, request, skeleton, limits)
    violations.raise_any()
    return persons


def _read_persons(
    violations: Violations, request: pb.RenderPosesRequest, skeleton: Skeleton, limits: Limits
) -> PersonArrays:
    if len(request.persons) > limits.max_persons:
        violations.add("persons", f"must be at most {limits.max_persons}, not {len(request.persons)}")
        return PersonArrays(Poses.empty(len(skeleton.keypoints)), ())
    return read_pose_arrays(violations, request.persons, skeleton, "persons")


def _read_background(
    violations: Violations, request: pb.RenderPosesRequest, config: OverlayConfig | None, limits: Limits
) -> Canvas | None:
    """Read the canvas; None for an image."""
    match request.WhichOneof("background"):
        case "image":
            check_image(violations, request.image, present=True)
        case "canvas":
            return _read_canvas(violations, request.canvas, config, limits)
        case _:
            violations.add("background", "must be set: image or canvas")
    return None


def _read_canvas(
    violations: Violations, canvas: pb.Canvas, config: OverlayConfig | None, limits: Limits
) -> Canvas:
    width, height = canvas.size.width, canvas.size.height
    if width < 1 or height < 1:
        violations.add("canvas.size", f"must be 1 px or more each way, not {width}×{height}")
    elif width * height > limits.image.max_pixels:
        at_most = limits.image.max_pixels
        violations.add("canvas.size", f"must be at most {at_most} px in all, not {width}×{height}")
    elif config is not None and max(width, height) > MAX_SIDE[config.media_format]:
        at_most = MAX_SIDE[config.media_format]
        kind = config.media_format.upper()
        violations.add("canvas.size", f"must be at most {at_most} px a side as {kind}, not {width}×{height}")
    color = parse_color(canvas.color) if canvas.color else _BLACK
    if color is None:
        violations.add("canvas.color", f"must be #RRGGBB or empty, not {shown(canvas.color)}")
    return Canvas((width, height), color or _BLACK)
