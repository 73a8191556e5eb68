"""Validation of requests: collects every violation, so that a caller can correct all of them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.drawing.poses import OverlayStyle
from service.errors import InvalidRequest, Violation
from service.media.image import Format
from service.pipeline.estimator import DetectionOptions
from service.pipeline.overlay import OverlayConfig

DEFAULT_MIN_SCORE = 0.25
DEFAULT_IOU_THRESHOLD = 0.7
DEFAULT_MAX_PERSONS = 300
DEFAULT_JPEG_QUALITY = 90

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 50
MAX_LISTED = 100  # violations; of more only the number is given


class Violations:
    """Collects the violations of one message.

    Args:
        path: prefix of its fields within the request, such as `config.`; empty for the request itself.
    """

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._listed: list[Violation] = []
        self._unlisted = 0

    def __bool__(self) -> bool:
        return bool(self._listed)

    def add(self, field: str, description: str) -> None:
        """Add a violation: the field, and the values that it may have."""
        if len(self._listed) < MAX_LISTED:
            self._listed.append(Violation(f"{self._path}{field}", description))
        else:
            self._unlisted += 1

    def unlisted(self, count: int) -> None:
        """Count violations that are not listed."""
        self._unlisted += count

    def number(self, field: str, value: float, low: float, high: float = math.inf) -> float:
        """Check that a number is within its range, and return it; NaN and infinity are in none."""
        if not (math.isfinite(value) and low <= value <= high):
            span = f"{low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
            self.add(field, f"must be {span}, not {value if isinstance(value, int) else format(value, 'g')}")
        return value

    def raise_any(self) -> None:
        """Raise InvalidRequest with every violation; do nothing without any."""
        if self._listed:
            listed = "; ".join(f"{item.field} {item.description}" for item in self._listed)
            more = f"; and {self._unlisted} more" if self._unlisted else ""
            raise InvalidRequest(f"The request is invalid: {listed}{more}.", violations=self._listed)


@dataclass(frozen=True)
class Detection:
    """A valid DetectPosesRequest, defaults filled in."""

    options: DetectionOptions
    min_keypoint_score: float
    overlay: OverlayConfig | None


def read_detection(request: pb.DetectPosesRequest, *, max_persons: int, path: str = "") -> Detection:
    """Check a DetectPosesRequest and fill in its defaults.

    Raises:
        InvalidRequest: with every violation.
    """
    violations = Violations(path)
    check_image(violations, request.image, present=request.HasField("image"))
    region = None
    if request.HasField("region_of_interest"):
        region = _region(violations, request.region_of_interest)
    options = read_options(violations, request, max_persons=max_persons, region_xyxy=region)
    min_keypoint_score = violations.number("min_keypoint_score", request.min_keypoint_score, 0)
    overlay = read_overlay(violations, request.overlay, in_space=True)
    violations.raise_any()
    return Detection(options=options, min_keypoint_score=min_keypoint_score, overlay=overlay)


def read_options(
    violations: Violations,
    request: pb.DetectPosesRequest | pb.VideoConfig | pb.StreamConfig,
    *,
    max_persons: int,
    region_xyxy: tuple[float, float, float, float] | None = None,
) -> DetectionOptions:
    """Read the options of the detection, defaults filled in.

    Args:
        violations: collects the violations of the request.
        request: the message with the options.
        max_persons: limit of the service.
        region_xyxy: detect persons inside this box only, px; None for the whole image.
    """
    return DetectionOptions(
        min_score=read_min_score(violations, request),
        iou_threshold=violations.number(
            "iou_threshold",
            request.iou_threshold if request.HasField("iou_threshold") else DEFAULT_IOU_THRESHOLD,
            0,
            1,
        ),
        max_persons=int(
            violations.number(
                "max_persons",
                request.max_persons
                if request.HasField("max_persons")
                else min(DEFAULT_MAX_PERSONS, max_persons),
                1,
                max_persons,
            )
        ),
        region_xyxy=region_xyxy,
    )


def read_min_score(
    violations: Violations,
    request: pb.DetectPosesRequest | pb.MeasureAnglesRequest | pb.VideoConfig | pb.StreamConfig,
) -> float:
    """Read the smallest score of a person, 0 to 1."""
    score = request.min_score if request.HasField("min_score") else DEFAULT_MIN_SCORE
    return violations.number("min_score", score, 0, 1)


def check_image(violations: Violations, image: types_pb2.Image, *, present: bool) -> None:
    """Check that an image names its source. The decoder refuses empty bytes."""
    if not present or image.WhichOneof("source") is None:
        violations.add("image", "must hold an image: set image.content to the bytes of an encoded file")


def read_overlay(
    violations: Violations,
    options: types_pb2.OverlayOptions,
    *,
    default: Format | None = None,
    in_space: bool = False,
) -> OverlayConfig | None:
    """Read the overlay options, defaults filled in; None for no overlay.

    Args:
        violations: collects the violations of the request.
        options: of the request.
        default: format where none is set; None for no overlay.
        in_space: whether the call supports the panel of persons in space.
    """
    formats: dict[int, Format | None] = {
        types_pb2.OVERLAY_FORMAT_UNSPECIFIED: default,
        types_pb2.OVERLAY_FORMAT_PNG: "png",
        types_pb2.OVERLAY_FORMAT_JPEG: "jpeg",
    }
    style = read_style(violations, options)
    quality = options.jpeg_quality if options.HasField("jpeg_quality") else DEFAULT_JPEG_QUALITY
    violations.number("overlay.jpeg_quality", quality, 1, 100)
    if options.space_panel and not in_space:
        violations.add("overlay.space_panel", "is for DetectPoses, with a model that gives positions")
    if options.format not in formats:
        violations.add("overlay.format", f"must be PNG or JPEG, not {options.format}")
        return None
    media_format = formats[options.format]
    if media_format is None:
        if options != types_pb2.OverlayOptions():
            violations.add("overlay.format", "must be PNG or JPEG where other fields of the overlay are set")
        return None
    if options.HasField("jpeg_quality") and media_format != "jpeg":
        violations.add("overlay.jpeg_quality", "is for JPEG only: leave it unset for PNG")
    return OverlayConfig(
        media_format=media_format,
        jpeg_quality=quality,
        style=style,
        space_panel=options.space_panel,
    )


def read_style(violations: Violations, options: types_pb2.OverlayOptions) -> OverlayStyle:
    """Read the style of the drawing, defaults filled in."""
    return OverlayStyle(
        line_width=int(violations.number("overlay.line_width", options.line_width, 0, 32)),
        boxes=options.boxes if options.HasField("boxes") else True,
        labels=options.labels if options.HasField("labels") else True,
        min_keypoint_score=violations.number("overlay.min_keypoint_score", options.min_keypoint_score, 0),
    )


def read_page(violations: Violations, page_size: int, page_token: str) -> tuple[int, int]:
    """Read start and length of a page. A token is the number of items before the page."""
    if page_size < 0:
        violations.add("page_size", f"must be 0 or more, not {page_size}")
    start = 0
    if page_token:
        if page_token.isascii() and page_token.isdecimal() and len(page_token) < 10:
            start = int(page_token)
        else:
            violations.add("page_token", "must be a next_page_token of the page before, or empty")
    return start, min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def _region(violations: Violations, box: types_pb2.Box) -> tuple[float, float, float, float]:
    corners = (box.x1, box.y1, box.x2, box.y2)
    if not all(map(math.isfinite, corners)):
        violations.add("region_of_interest", "must have finite corners")
    elif box.x1 >= box.x2 or box.y1 >= box.y2:
        violations.add("region_of_interest", "must have x1 < x2 and y1 < y2")
    return corners
