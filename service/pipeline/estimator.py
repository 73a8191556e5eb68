"""The use case: a picture to the people in it."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.core.geometry import Affine, Rgb8, choose_shape, letterbox
from service.core.model import Model
from service.core.poses import Floats, Poses
from service.core.topdown import bodies_in_crops, crop_people, lift, poses_from_crops
from service.core.yolo import decode_candidates
from service.errors import InvalidRequest, Violation
from service.pipeline import concurrency
from service.pipeline.scheduler import InferenceScheduler
from service.telemetry.call_context import Picture, Timings

P = ParamSpec("P")
T = TypeVar("T")

Tensors = Mapping[str, NDArray[Any]]

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
class DetectionOptions:
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
class Prepared:
    """A picture that is ready for the model which finds the people.

    Attributes:
        tensor: (1, H, W, 3), in one of the model's shapes.
        to_input: px of the picture to px of the tensor.
        size_wh: the upright picture's size.
        image: the picture, when it was asked to be kept.
        began, loaded, ended: before and after getting the picture, and after the tensor; on
            time.perf_counter()'s clock.
    """

    tensor: Rgb8
    to_input: Affine
    size_wh: tuple[int, int]
    image: Rgb8 | None
    began: float
    loaded: float
    ended: float

    def tell(self, picture: Picture) -> None:
        """Say what it took."""
        picture.size_wh = self.size_wh
        picture.took("decode", self.began, self.loaded)
        picture.took("preprocess", self.loaded, self.ended)


class Estimator:
    """Runs the stages in order; holds nothing of a request.

    Args:
        client: runs the models.
        threads: for decoding and other work that would hold up the event loop.
        at_once: pictures between decoding and answer at once; it bounds the tensors in memory and
            the queue at Triton.
        streams_at_once: how many of those may be frames of streams; None for all.
        beside_single: how many of those while single pictures come; None for as many.
    """

    def __init__(
        self,
        client: InferenceClient,
        threads: Executor,
        at_once: int,
        streams_at_once: int | None = None,
        beside_single: int | None = None,
    ) -> None:
        self._client = client
        self._workers = threads
        self._scheduler = InferenceScheduler(
            at_once, at_once if streams_at_once is None else streams_at_once, beside_single
        )

    async def estimate(
        self,
        load: Callable[[], Rgb8],
        model: Model,
        options: DetectionOptions,
        *,
        deadline: float | None = None,
        timeout_s: float | None = None,
        first_stage: Model | None = None,
        keypoint_names: Sequence[str] = (),
        keep_image: bool = False,
        request_id: str = "",
        stream: Hashable | None = None,
        picture: Picture | None = None,
    ) -> Estimate:
        """Every person in one picture. It is decoded when its turn has come: what waits is small.

        Args:
            load: gives the upright RGB picture; runs in a worker thread, and its errors pass through.
            model: a ready model.
            options: what the caller chose.
            deadline: on time.monotonic()'s clock.
            timeout_s: seconds from its turn on, instead of a deadline: streams take turns, and how long
                a frame waits for its own is no fault of the model's.
            first_stage: finds the people, where `model` is of family `top_down`.
            keypoint_names: of the model's own skeleton; depth alone is lifted to metres by limbs, by name.
            keep_image: return the picture too, to draw on.
            request_id: for Triton's log.
            stream: whose frame it is; None for a single picture, which goes first.
            picture: is told what the stages took; None for one that does not count.
        """
        picture = picture or Picture()
        async with self._turn(stream, picture):
            infer = partial(
                self._client.infer, deadline=_deadline(deadline, timeout_s), request_id=request_id
            )
            prepared = await self._prepare(
                picture,
                load,
                (first_stage or model).shapes_hw,
                options.region_xyxy,
                keep_image=keep_image or first_stage is not None,
            )
            estimate = await self._estimate(
                infer, prepared, model, options, first_stage, keypoint_names, picture
            )
        return estimate if keep_image else replace(estimate, image=None)

    async def estimate_prepared(
        self,
        prepared: Prepared,
        model: Model,
        options: DetectionOptions,
        *,
        timeout_s: float,
        first_stage: Model | None = None,
        keypoint_names: Sequence[str] = (),
        request_id: str = "",
        stream: Hashable | None = None,
        picture: Picture | None = None,
    ) -> Estimate:
        """As `estimate`, for a picture that `prepare` has made ready; it has kept the image for a model
        with a first stage."""
        picture = picture or Picture()
        async with self._turn(stream, picture):
            infer = partial(self._client.infer, deadline=_deadline(None, timeout_s), request_id=request_id)
            return await self._estimate(infer, prepared, model, options, first_stage, keypoint_names, picture)

    @asynccontextmanager
    async def _turn(self, stream: Hashable | None, picture: Picture) -> AsyncIterator[None]:
        """A place at the model for the time of the block; waiting for it is told."""
        async with AsyncExitStack() as held:
            with picture.timed("queue"):
                await held.enter_async_context(self._scheduler.slot(stream))
            yield

    async def _prepare(
        self,
        picture: Picture,
        load: Callable[[], Rgb8],
        shapes_hw: Sequence[tuple[int, int]],
        region_xyxy: tuple[float, float, float, float] | None,
        *,
        keep_image: bool,
    ) -> Prepared:
        waiting = time.perf_counter()
        try:
            prepared = await self.run(prepare, load, shapes_hw, region_xyxy, keep_image=keep_image)
        except BaseException:
            picture.took("decode", waiting, time.perf_counter())  # it hardly ever got further
            raise
        picture.took("queue", waiting, prepared.began)
        prepared.tell(picture)
        return prepared

    async def _estimate(
        self,
        infer: Callable[[Model, Tensors, Sequence[str]], Awaitable[Tensors]],
        prepared: Prepared,
        model: Model,
        options: DetectionOptions,
        first_stage: Model | None,
        keypoint_names: Sequence[str],
        picture: Picture,
    ) -> Estimate:
        with picture.timed("inference"):
            outputs = await infer(first_stage or model, {"images": prepared.tensor}, ["candidates"])
        with picture.timed("postprocess"):
            candidates: Floats = outputs["candidates"][0]
            count = int(np.count_nonzero(candidates[:, 4] > options.min_score))
            if count > _MANY:
                poses = await self.run(_decode, candidates, prepared.to_input, options)
            else:
                poses = _decode(candidates, prepared.to_input, options)
        if first_stage is not None:
            assert prepared.image is not None  # noqa: S101 - it was asked to be kept
            poses = await self._refine(infer, model, prepared.image, poses, tuple(keypoint_names), picture)
        picture.persons = len(poses)
        return Estimate(
            poses=poses, size_wh=prepared.size_wh, image=prepared.image, timings=picture.timings()
        )

    async def _refine(
        self,
        infer: Callable[[Model, Tensors, Sequence[str]], Awaitable[Tensors]],
        model: Model,
        image: Rgb8,
        people: Poses,
        keypoint_names: tuple[str, ...],
        picture: Picture,
    ) -> Poses:
        """A top-down model's keypoints for people that were found; it is not called for nobody."""
        refined = []
        for start in range(0, len(people), model.max_batch_size):
            some = people.select(slice(start, start + model.max_batch_size))
            with picture.timed("preprocess"):
                crops, affines = await self.run(crop_people, image, some.boxes_xyxy, model.shapes_hw[0])
                inputs: dict[str, NDArray[Any]] = {"crops": crops}
                if model.takes_body:
                    inputs["body"] = bodies_in_crops(some.keypoints, affines)
            with picture.timed("inference"):
                outputs = await infer(model, inputs, ["keypoints", "scores", "positions"])
            with picture.timed("postprocess"):
                refined.append(await self.run(_assemble, some, affines, outputs, keypoint_names))
        return _join(refined, model.keypoint_count)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """CPU work in a worker thread, as `concurrency.run`."""
        return await concurrency.run(self._workers, work, *args, **kwargs)


def prepare(
    load: Callable[[], Rgb8],
    shapes_hw: Sequence[tuple[int, int]],
    region_xyxy: tuple[float, float, float, float] | None = None,
    *,
    keep_image: bool = False,
) -> Prepared:
    """Get a picture and fit it into the best of a model's shapes. For a worker thread.

    Args:
        load: gives the upright RGB picture; its errors pass through.
        shapes_hw: what the model takes.
        region_xyxy: fit this part of it only, px.
        keep_image: hold on to the picture too.
    """
    started = time.perf_counter()
    image = load()
    loaded = time.perf_counter()
    height, width = image.shape[:2]
    seen, to_region = (image, Affine()) if region_xyxy is None else _crop(image, region_xyxy)
    boxed, to_input = letterbox(seen, choose_shape((seen.shape[1], seen.shape[0]), shapes_hw))
    return Prepared(
        tensor=boxed[None],
        to_input=to_region.then(to_input),
        size_wh=(width, height),
        image=image if keep_image else None,
        began=started,
        loaded=loaded,
        ended=time.perf_counter(),
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


def _decode(candidates: Floats, to_input: Affine, options: DetectionOptions) -> Poses:
    return decode_candidates(
        candidates,
        to_input,
        min_score=options.min_score,
        iou_threshold=options.iou_threshold,
        max_persons=options.max_persons,
    )


def _assemble(
    people: Poses, affines: Sequence[Affine], outputs: Tensors, keypoint_names: tuple[str, ...]
) -> Poses:
    poses = poses_from_crops(people, affines, outputs["keypoints"], outputs["scores"], outputs["positions"])
    if poses.depth_source != "lifted" or poses.positions is None:
        return poses
    return replace(poses, positions=lift(poses.keypoints, poses.positions, keypoint_names))


def _join(parts: Sequence[Poses], keypoint_count: int) -> Poses:
    """The people of several batches as one; positions stay when any batch has them."""
    if not parts:
        return Poses.empty(keypoint_count)
    sources = [part.depth_source for part in parts if part.positions is not None]
    positions = None
    if sources:
        positions = np.concatenate(
            [
                np.full(part.keypoints.shape, np.nan, np.float32)
                if part.positions is None
                else part.positions
                for part in parts
            ]
        )
    return Poses(
        boxes_xyxy=np.concatenate([part.boxes_xyxy for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        keypoints=np.concatenate([part.keypoints for part in parts]),
        positions=positions,
        depth_source=sources[0] if sources else "none",
    )


def _deadline(deadline: float | None, timeout_s: float | None) -> float:
    if deadline is not None:
        return deadline
    return time.monotonic() + timeout_s if timeout_s is not None else math.inf
