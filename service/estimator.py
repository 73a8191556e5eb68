"""The use case: a picture to the people in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.core.geometry import Affine, Rgb8, choose_shape, letterbox
from service.core.model import Model
from service.core.poses import Floats, Poses
from service.core.yolo import decode_candidates
from service.errors import InvalidRequest, Violation
from service.turns import Turns

P = ParamSpec("P")
T = TypeVar("T")

_MANY = 64  # candidates; from here on suppression takes long enough to leave the event loop


class InferenceClient(Protocol):
    """Whoever runs models."""

    async def infer(
        self,
        model: Model,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
        *,
        deadline: float,
        request_id: str = "",
    ) -> Mapping[str, NDArray[Any]]:
        """Arrays in, arrays out, by tensor name; the deadline is on time.monotonic()'s clock."""


@dataclass(frozen=True)
class Options:
    """What a caller may choose about an estimate.

    Attributes:
        min_score: people must be above it.
        iou_threshold: of two boxes that overlap by more, the lower score goes.
        max_persons: at most so many people.
        region_xyxy: look for people inside this box only, px of the upright picture.
    """

    min_score: float
    iou_threshold: float
    max_persons: int
    region_xyxy: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Timings:
    """Milliseconds spent in each stage."""

    decode_ms: float = 0.0
    preprocess_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0


@dataclass(frozen=True, eq=False)
class Estimate:
    """The people in one picture, in px of it.

    Attributes:
        poses: in the model's native skeleton, by falling score.
        size_wh: the upright picture's size.
        image: the picture, when it was asked to be kept.
        timings: where the time went.
    """

    poses: Poses
    size_wh: tuple[int, int]
    image: Rgb8 | None = None
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, eq=False)
class _Prepared:
    tensor: Rgb8  # (1, H, W, 3)
    to_input: Affine
    size_wh: tuple[int, int]
    image: Rgb8 | None
    decode_ms: float
    preprocess_ms: float


class Estimator:
    """Runs the stages in order; holds nothing of a request.

    Args:
        client: runs the models.
        workers: threads for decoding and other work that would hold up the event loop.
        at_once: pictures between decoding and answer at once; it bounds the tensors in memory and
            the queue at Triton.
        streams_at_once: how many of those may be frames of streams; None for all.
    """

    def __init__(
        self,
        client: InferenceClient,
        workers: Executor,
        at_once: int,
        streams_at_once: int | None = None,
    ) -> None:
        self._client = client
        self._workers = workers
        self._turns = Turns(at_once, at_once if streams_at_once is None else streams_at_once)

    async def estimate(
        self,
        load: Callable[[], Rgb8],
        model: Model,
        options: Options,
        *,
        deadline: float,
        keep_image: bool = False,
        request_id: str = "",
        stream: Hashable | None = None,
    ) -> Estimate:
        """Every person in one picture.

        Args:
            load: gives the upright RGB picture; runs in a worker thread, and its errors pass through.
            model: a ready model of family `yolo_pose`.
            options: what the caller chose.
            deadline: on time.monotonic()'s clock.
            keep_image: return the picture too, to draw on.
            request_id: for Triton's log.
            stream: whose frame it is; None for a single picture, which goes first.
        """
        async with self._turns.turn(stream):
            prepared = await self.run(
                _prepare, load, model.shapes_hw, options.region_xyxy, keep_image=keep_image
            )
            started = time.perf_counter()
            outputs = await self._client.infer(
                model, {"images": prepared.tensor}, ["candidates"], deadline=deadline, request_id=request_id
            )
            answered = time.perf_counter()
        candidates: Floats = outputs["candidates"][0]
        count = int(np.count_nonzero(candidates[:, 4] > options.min_score))
        if count > _MANY:
            poses = await self.run(_decode, candidates, prepared.to_input, options)
        else:
            poses = _decode(candidates, prepared.to_input, options)
        return Estimate(
            poses=poses,
            size_wh=prepared.size_wh,
            image=prepared.image,
            timings=Timings(
                decode_ms=prepared.decode_ms,
                preprocess_ms=prepared.preprocess_ms,
                inference_ms=(answered - started) * 1e3,
                postprocess_ms=(time.perf_counter() - answered) * 1e3,
            ),
        )

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """CPU work in a worker thread; what has not begun when the caller leaves never begins."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, lambda: work(*args, **kwargs))


def _prepare(
    load: Callable[[], Rgb8],
    shapes_hw: Sequence[tuple[int, int]],
    region_xyxy: tuple[float, float, float, float] | None,
    *,
    keep_image: bool,
) -> _Prepared:
    started = time.perf_counter()
    image = load()
    loaded = time.perf_counter()
    height, width = image.shape[:2]
    seen, to_region = (image, Affine()) if region_xyxy is None else _crop(image, region_xyxy)
    boxed, to_input = letterbox(seen, choose_shape((seen.shape[1], seen.shape[0]), shapes_hw))
    return _Prepared(
        tensor=boxed[None],
        to_input=to_region.then(to_input),
        size_wh=(width, height),
        image=image if keep_image else None,
        decode_ms=(loaded - started) * 1e3,
        preprocess_ms=(time.perf_counter() - loaded) * 1e3,
    )


def _crop(image: Rgb8, region_xyxy: tuple[float, float, float, float]) -> tuple[Rgb8, Affine]:
    """The whole pixels that the region touches, cut at the picture's edge."""
    height, width = image.shape[:2]
    x1, y1 = max(0, int(np.floor(region_xyxy[0]))), max(0, int(np.floor(region_xyxy[1])))
    x2, y2 = min(width, int(np.ceil(region_xyxy[2]))), min(height, int(np.ceil(region_xyxy[3])))
    if x1 >= x2 or y1 >= y2:
        problem = f"lies outside the picture, which is {width}×{height} px"
        raise InvalidRequest(
            f"region_of_interest {problem}.", violations=[Violation("region_of_interest", problem)]
        )
    return image[y1:y2, x1:x2], Affine(shift_x=-x1, shift_y=-y1)


def _decode(candidates: Floats, to_input: Affine, options: Options) -> Poses:
    return decode_candidates(
        candidates,
        to_input,
        min_score=options.min_score,
        iou_threshold=options.iou_threshold,
        max_persons=options.max_persons,
    )
