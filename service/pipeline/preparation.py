"""From a file to the tensor of the first model: loading, cutting out a region, fitting. For worker
threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from service.core.geometry import (
    Affine,
    Region,
    Rgb8,
    ScaledImage,
    choose_shape,
    least_scale,
    letterbox,
    touched,
)
from service.core.model import PoseModel
from service.errors import InvalidRequest, Violation
from service.media.loading import Load
from service.telemetry.call_context import StageTimer

Allocate = Callable[[Sequence[int], DTypeLike], NDArray[Any] | None]
"""Gives memory for an array, where it has any."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image fitted into the input of the model that takes the whole image.

    Attributes:
        tensor: (1, H, W, 3) uint8, in one of the model's shapes.
        to_input: px of the image to px of the tensor.
        size_wh: of the upright image.
        image: the image itself, where it is needed after the first inference.
    """

    tensor: Rgb8
    to_input: Affine
    size_wh: tuple[int, int]
    image: Rgb8 | None


def prepare(
    image: ScaledImage,
    model: PoseModel,
    region_xyxy: Region | None = None,
    *,
    keep_image: bool = False,
    allocate: Allocate | None = None,
) -> Prepared:
    """Fit a decoded image into the best input shape of the first model. For a worker thread.

    Args:
        image: whole where it is kept.
        model: the tensor is for its `first`.
        region_xyxy: fit this part of the image only, px.
        keep_image: keep the image too; a model with a detector needs it in any case.
        allocate: gives memory for the tensor; None, or where it gives none, for new memory.

    Raises:
        InvalidRequest: the region lies outside the image.
    """
    seen = image if region_xyxy is None else _crop(image, region_xyxy)
    shape_hw = choose_shape(seen.size_wh, model.first.shapes_hw)
    tensor = allocate((1, *shape_hw, 3), np.uint8) if allocate is not None else None
    out = None if tensor is None else tensor[0]
    boxed, to_input = letterbox(seen.pixels, shape_hw, seen.size_wh, out)
    return Prepared(
        tensor=boxed[None],
        to_input=seen.to_pixels.then(to_input),
        size_wh=image.size_wh,
        image=image.pixels if keeps_whole(model, keep_image=keep_image) else None,
    )


def keeps_whole(model: PoseModel, *, keep_image: bool) -> bool:
    """Whether the image itself is needed after the first inference: to draw on, or to cut crops out of."""
    return keep_image or model.detector is not None


def load_and_prepare(
    load: Load,
    model: PoseModel,
    region_xyxy: Region | None,
    *,
    keep_image: bool,
    clock: LoadClock,
    allocate: Allocate,
) -> Prepared:
    """As `prepare`, for an image that `load` gives; errors of `load` pass through."""
    clock.began = time.perf_counter()
    needs_whole = keeps_whole(model, keep_image=keep_image)
    needed = partial(least_scale, shapes_hw=model.first.shapes_hw, region_xyxy=region_xyxy)
    image = load(None if needs_whole else needed)
    clock.loaded = time.perf_counter()
    prepared = prepare(image, model, region_xyxy, keep_image=keep_image, allocate=allocate)
    clock.prepared = time.perf_counter()
    return prepared


@dataclass
class LoadClock:
    """Moments of loading an image in a worker thread, on time.perf_counter()'s clock; None for one that was
    not reached. The thread writes them, and the event loop reads them even when it stops waiting for it."""

    queued: float
    began: float | None = None
    loaded: float | None = None
    prepared: float | None = None

    def report(self, timer: StageTimer) -> None:
        """Record each stage that was reached, the last of them as long as it lasted until now."""
        now = time.perf_counter()
        timer.took("queue", self.queued, self.began or now)
        if self.began is not None:
            timer.took("decode", self.began, self.loaded or now)
        if self.loaded is not None:
            timer.took("preprocess", self.loaded, self.prepared or now)


def _crop(image: ScaledImage, region_xyxy: Region) -> ScaledImage:
    """Cut out the whole pixels that the region touches, clipped to the image.

    Of a reduced image the pixels that hold them are cut out: up to one more on each side.
    """
    x1, y1, x2, y2 = touched(region_xyxy, image.size_wh)
    if x1 >= x2 or y1 >= y2:
        width, height = image.size_wh
        problem = f"lies outside the image, which is {width}×{height} px"
        raise InvalidRequest(
            f"region_of_interest {problem}.", violations=[Violation("region_of_interest", problem)]
        )
    corners = image.to_pixels.apply(np.array([[x1, y1], [x2, y2]], np.float32))
    (left, top), (right, bottom) = np.floor(corners[0]).astype(int), np.ceil(corners[1]).astype(int)
    return ScaledImage(
        pixels=image.pixels[top:bottom, left:right],
        size_wh=(x2 - x1, y2 - y1),
        to_pixels=image.to_pixels.then(Affine(shift_x=-float(left), shift_y=-float(top))),
    )
