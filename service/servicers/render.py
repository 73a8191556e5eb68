"""RenderPoses: given people drawn on a given picture or on a blank canvas."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.geometry import Rgb8
from service.core.poses import Poses
from service.core.skeleton.colors import parse_color
from service.core.skeleton.template import Rgb, Skeleton
from service.core.skeleton.validation import shown
from service.media.image import MAX_SIDE, ImageLimits
from service.pipeline.concurrency import run
from service.servicers.pictures import loader
from service.servicers.requests.persons import PersonArrays, read_people
from service.servicers.requests.validation import OverlayConfig, Violations, check_image, read_overlay
from service.servicers.responses.overlays import draw_overlay
from service.servicers.skeleton_lookup import SkeletonLookup
from service.telemetry.call_context import StageTimer, current

T = TypeVar("T")

_BLACK: Rgb = (0, 0, 0)


@dataclass(frozen=True)
class RenderLimits:
    """What may be drawn.

    Attributes:
        image: of the picture, or of the canvas.
        max_persons: people in one picture.
        uri_hosts: hosts that pictures may be fetched from.
    """

    image: ImageLimits
    max_persons: int
    uri_hosts: frozenset[str]


@dataclass(frozen=True)
class _Canvas:
    size_wh: tuple[int, int]
    color: Rgb

    def load(self) -> Rgb8:
        """Its pixels."""
        width, height = self.size_wh
        return np.full((height, width, 3), self.color, np.uint8)


class PoseRenderer:
    """Draws people.

    Args:
        skeletons: finds the skeleton that a request names.
        workers: threads that decode, draw and encode.
        limits: what is allowed.
    """

    def __init__(self, skeletons: SkeletonLookup, workers: Executor, limits: RenderLimits) -> None:
        self._skeletons = skeletons
        self._workers = workers
        self._limits = limits

    async def render(self, request: pb.RenderPosesRequest) -> pb.RenderPosesResponse:
        """The drawn picture.

        Args:
            request: as the caller sent it.

        Raises:
            InvalidRequest: with every violation; ImageUndecodable and ImageTooLarge for the picture.
            NotFound: no such skeleton.
            NotAllowed: the picture's host is not allowed.
            Unavailable: the tenant's skeletons cannot be asked for.
        """
        found = Violations()
        wish = read_overlay(found, request.overlay, default="png")
        canvas = self._check_background(found, request, wish)
        skeleton = await self._skeletons.named(found, current().tenant, request.skeleton)
        people = await self._run(lambda: self._read_people(found, request, skeleton))
        found.raise_any()
        assert wish is not None  # noqa: S101 - there is a default, and what is wrong was raised
        load = canvas.load if canvas is not None else await self._picture(request.image)
        with current().stage_timer() as timer:
            # All in one go: no more pictures are held than there are threads.
            drawn = await self._run(lambda: _draw(timer, load, people, skeleton, wish))
        return pb.RenderPosesResponse(overlay=drawn)

    async def _run(self, work: Callable[[], T]) -> T:
        return await run(self._workers, work)

    async def _picture(self, image: types_pb2.Image) -> Callable[[], Rgb8]:
        limits = self._limits
        return await loader(image, limits=limits.image, uri_hosts=limits.uri_hosts)

    def _read_people(
        self, found: Violations, request: pb.RenderPosesRequest, skeleton: Skeleton
    ) -> PersonArrays:
        if len(request.persons) > self._limits.max_persons:
            found.add("persons", f"must be at most {self._limits.max_persons}, not {len(request.persons)}")
            return PersonArrays(Poses.empty(len(skeleton.keypoints)), ())
        return read_people(found, request.persons, skeleton, "persons")

    def _check_background(
        self, found: Violations, request: pb.RenderPosesRequest, wish: OverlayConfig | None
    ) -> _Canvas | None:
        """The canvas; None for a picture."""
        match request.WhichOneof("background"):
            case "image":
                check_image(found, request.image, present=True)
            case "canvas":
                return self._check_canvas(found, request.canvas, wish)
            case _:
                found.add("background", "must be set: image or canvas")
        return None

    def _check_canvas(self, found: Violations, canvas: pb.Canvas, wish: OverlayConfig | None) -> _Canvas:
        width, height = canvas.size.width, canvas.size.height
        if width < 1 or height < 1:
            found.add("canvas.size", f"must be 1 px or more each way, not {width}×{height}")
        elif width * height > self._limits.image.max_pixels:
            at_most = self._limits.image.max_pixels
            found.add("canvas.size", f"must be at most {at_most} px in all, not {width}×{height}")
        elif wish is not None and max(width, height) > MAX_SIDE[wish.media_format]:
            at_most = MAX_SIDE[wish.media_format]
            kind = wish.media_format.upper()
            found.add("canvas.size", f"must be at most {at_most} px a side as {kind}, not {width}×{height}")
        color = parse_color(canvas.color) if canvas.color else _BLACK
        if color is None:
            found.add("canvas.color", f"must be #RRGGBB or empty, not {shown(canvas.color)}")
        return _Canvas((width, height), color or _BLACK)


def _draw(
    timer: StageTimer, load: Callable[[], Rgb8], people: PersonArrays, skeleton: Skeleton, wish: OverlayConfig
) -> types_pb2.Overlay:
    """For a worker thread."""
    with timer.timed("decode"):
        image = load()
    timer.size_wh = (image.shape[1], image.shape[0])
    with timer.timed("draw"):
        return draw_overlay(image, people.poses, skeleton, wish, numbers=people.numbers)
