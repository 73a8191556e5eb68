"""What a request may hold. Every violation is collected, so that a caller mends all at once."""

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
MAX_LISTED = 100  # violations; a caller who has made more of them gets their number


class Violations:
    """Collects what is wrong with one message; `path` is where it stands within the request."""

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._found: list[Violation] = []
        self._unlisted = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, field: str, description: str) -> None:
        """Note that a field is wrong, and what would be right."""
        if len(self._found) < MAX_LISTED:
            self._found.append(Violation(f"{self._path}{field}", description))
        else:
            self._unlisted += 1

    def unlisted(self, count: int) -> None:
        """Note that so many more fields are wrong."""
        self._unlisted += count

    def number(self, field: str, value: float, low: float, high: float = math.inf) -> float:
        """Hold a number against its range; NaN and infinity are outside every range."""
        if not (math.isfinite(value) and low <= value <= high):
            span = f"{low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
            self.add(field, f"must be {span}, not {value if isinstance(value, int) else format(value, 'g')}")
        return value

    def raise_any(self) -> None:
        """InvalidRequest with everything that was found, if anything was."""
        if self._found:
            told = "; ".join(f"{item.field} {item.description}" for item in self._found)
            more = f"; and {self._unlisted} more" if self._unlisted else ""
            raise InvalidRequest(f"The request is invalid: {told}{more}.", violations=self._found)


@dataclass(frozen=True)
class Detection:
    """A valid DetectPosesRequest, defaults filled in."""

    options: DetectionOptions
    min_keypoint_score: float
    overlay: OverlayConfig | None


def read_detection(request: pb.DetectPosesRequest, *, max_persons: int, path: str = "") -> Detection:
    """Check a request and fill in its defaults.

    Raises:
        InvalidRequest: with every violation.
    """
    found = Violations(path)
    check_image(found, request.image, present=request.HasField("image"))
    region = None
    if request.HasField("region_of_interest"):
        region = _region(found, request.region_of_interest)
    options = read_options(found, request, max_persons=max_persons, region_xyxy=region)
    min_keypoint_score = found.number("min_keypoint_score", request.min_keypoint_score, 0)
    overlay = read_overlay(found, request.overlay, in_space=True)
    found.raise_any()
    return Detection(options=options, min_keypoint_score=min_keypoint_score, overlay=overlay)


def read_options(
    found: Violations,
    request: pb.DetectPosesRequest | pb.VideoConfig | pb.StreamConfig,
    *,
    max_persons: int,
    region_xyxy: tuple[float, float, float, float] | None = None,
) -> DetectionOptions:
    """How people are found, with defaults.

    Args:
        found: collects what is wrong.
        request: what the caller asked for.
        max_persons: the service's limit.
        region_xyxy: where to look.
    """
    return DetectionOptions(
        min_score=read_min_score(found, request),
        iou_threshold=found.number(
            "iou_threshold",
            request.iou_threshold if request.HasField("iou_threshold") else DEFAULT_IOU_THRESHOLD,
            0,
            1,
        ),
        max_persons=int(
            found.number(
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
    found: Violations,
    request: pb.DetectPosesRequest | pb.MeasureAnglesRequest | pb.VideoConfig | pb.StreamConfig,
) -> float:
    """Least score of a person, with its default."""
    score = request.min_score if request.HasField("min_score") else DEFAULT_MIN_SCORE
    return found.number("min_score", score, 0, 1)


def check_image(found: Violations, image: types_pb2.Image, *, present: bool) -> None:
    """A picture must name its source. Empty bytes are the decoder's to refuse."""
    if not present or image.WhichOneof("source") is None:
        found.add("image", "must hold a picture: set image.content to the bytes of an encoded file")


def read_overlay(
    found: Violations,
    options: types_pb2.OverlayOptions,
    *,
    default: Format | None = None,
    in_space: bool = False,
) -> OverlayConfig | None:
    """Overlay options with their defaults; None when no overlay is wanted.

    Args:
        found: collects what is wrong.
        options: of the request.
        default: the format where none is asked for; None for no overlay then.
        in_space: whether the call can have a panel of the people in space.
    """
    formats: dict[int, Format | None] = {
        types_pb2.OVERLAY_FORMAT_UNSPECIFIED: default,
        types_pb2.OVERLAY_FORMAT_PNG: "png",
        types_pb2.OVERLAY_FORMAT_JPEG: "jpeg",
    }
    style = read_style(found, options)
    quality = options.jpeg_quality if options.HasField("jpeg_quality") else DEFAULT_JPEG_QUALITY
    found.number("overlay.jpeg_quality", quality, 1, 100)
    if options.space_panel and not in_space:
        found.add("overlay.space_panel", "is for DetectPoses, with a model that gives positions")
    if options.format not in formats:
        found.add("overlay.format", f"must be PNG or JPEG, not {options.format}")
        return None
    media_format = formats[options.format]
    if media_format is None:
        if options != types_pb2.OverlayOptions():
            found.add("overlay.format", "must be PNG or JPEG where other fields of the overlay are set")
        return None
    if options.HasField("jpeg_quality") and media_format != "jpeg":
        found.add("overlay.jpeg_quality", "is for JPEG only: leave it unset for PNG")
    return OverlayConfig(
        media_format=media_format,
        jpeg_quality=quality,
        style=style,
        space_panel=options.space_panel,
    )


def read_style(found: Violations, options: types_pb2.OverlayOptions) -> OverlayStyle:
    """How people are drawn, with defaults."""
    return OverlayStyle(
        line_width=int(found.number("overlay.line_width", options.line_width, 0, 32)),
        boxes=options.boxes if options.HasField("boxes") else True,
        labels=options.labels if options.HasField("labels") else True,
        min_keypoint_score=found.number("overlay.min_keypoint_score", options.min_keypoint_score, 0),
    )


def read_page(found: Violations, page_size: int, page_token: str) -> tuple[int, int]:
    """Start and length of the page asked for. A token is the number of items before the page."""
    if page_size < 0:
        found.add("page_size", f"must be 0 or more, not {page_size}")
    start = 0
    if page_token:
        if page_token.isascii() and page_token.isdecimal() and len(page_token) < 10:
            start = int(page_token)
        else:
            found.add("page_token", "must be a next_page_token of the page before, or empty")
    return start, min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def _region(found: Violations, box: types_pb2.Box) -> tuple[float, float, float, float]:
    corners = (box.x1, box.y1, box.x2, box.y2)
    if not all(map(math.isfinite, corners)):
        found.add("region_of_interest", "must have finite corners")
    elif box.x1 >= box.x2 or box.y1 >= box.y2:
        found.add("region_of_interest", "must have x1 < x2 and y1 < y2")
    return corners
