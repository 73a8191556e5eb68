"""Use case DetectPoses: estimates the poses of the persons in one image."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

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
from service.core.model import Model, PoseModel
from service.core.poses import Floats, Poses
from service.core.shared_parts import without_shared_parts
from service.core.topdown import (
    bodies_in_crops,
    crop_people,
    frame_persons,
    in_frame,
    lift,
    poses_from_crops,
)
from service.core.yolo import above, decode_candidates
from service.errors import InvalidRequest, Violation
from service.media.cost import LARGE_PIXELS
from service.media.loading import Load, Loading
from service.pipeline import concurrency
from service.pipeline.patience import retry_unavailable
from service.pipeline.scheduler import InferenceScheduler, Slot
from service.telemetry.call_context import StageTimer, Timings, current
from service.triton.shared_memory import Loan

P = ParamSpec("P")
T = TypeVar("T")

Tensors = Mapping[str, NDArray[Any]]

Allocate = Callable[[Sequence[int], DTypeLike], NDArray[Any] | None]
"""Gives memory for an array, where it has any."""

_ANSWER_S = 0.2  # before the deadline, so that the caller gets the error and its hint
_PAUSE_S = 0.1  # between two attempts of a call that waits for Triton
_MANY = 64  # candidates; from here on non-maximum suppression takes long enough to leave the event loop


class InferenceClient(Protocol):
    """Port: runs inference of a model."""

    async def infer(
        self,
        model: Model,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
        *,
        deadline: float,
        request_id: str = "",
        loan: Loan | None = None,
    ) -> Mapping[str, NDArray[Any]]:
        """Run a model on arrays by tensor name; the deadline is on time.monotonic()'s clock. The answer may
        lie in the memory of the loan."""

    def lend(self) -> AbstractContextManager[Loan]:
        """Memory that the model reads its input from, for one inference."""


class _Infer(Protocol):
    """`InferenceClient.infer` with deadline and id."""

    def __call__(
        self, model: Model, inputs: Tensors, outputs: Sequence[str], *, loan: Loan | None = None
    ) -> Awaitable[Tensors]: ...


@dataclass(frozen=True)
class DetectionOptions:
    """Options of the detection of persons.

    Attributes:
        min_score: persons with this score or a lower one are dropped.
        iou_threshold: of two boxes with a larger intersection over union, the one of lower score is dropped.
        max_persons: number of persons, at most.
        region_xyxy: detect persons inside this box only, px of the upright image; None for the whole.
    """

    min_score: float
    iou_threshold: float
    max_persons: int
    region_xyxy: Region | None = None


@dataclass(frozen=True, eq=False)
class Estimate:
    """The persons in one image, in px of the upright image.

    Attributes:
        poses: in the model's native skeleton, by falling score.
        size_wh: of the upright image, px.
        image: (H, W, 3) upright RGB where it was asked for; else None.
        timings: by stage.
    """

    poses: Poses
    size_wh: tuple[int, int]
    image: Rgb8 | None = None
    timings: Timings = field(default_factory=Timings)


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


class Estimator:
    """Runs decoding, preprocessing, inference and postprocessing of an image; keeps no state of a request.

    Args:
        client: runs the models.
        threads: for decoding and other work that would block the event loop.
        waiting_threads: for decoding that waits for another process, so that it does not keep `threads` from
            work; None for the same threads.
        at_once: inference slots: images between decoding and answer at once. It bounds the tensors in
            memory and the queue at Triton.
        streams_at_once: slots of those for frames of streams, at most; None for all.
        beside_single: the same while unary calls come too; None for as many.
        beside_tenants: slots of one tenant's unary calls while other tenants call too; None for no limit.
        large_at_once: large images that are decoded at once, at most; None for as many as there are slots.

    Attributes:
        answered_at: when a model last answered, on time.monotonic()'s clock.
    """

    def __init__(
        self,
        client: InferenceClient,
        threads: Executor,
        at_once: int,
        streams_at_once: int | None = None,
        beside_single: int | None = None,
        beside_tenants: int | None = None,
        *,
        waiting_threads: Executor | None = None,
        large_at_once: int | None = None,
    ) -> None:
        self._client = client
        self._workers = threads
        self._waiting = waiting_threads or threads
        self.answered_at = -math.inf
        self._closing: set[asyncio.Task[None]] = set()
        self._scheduler = InferenceScheduler(
            at_once,
            at_once if streams_at_once is None else streams_at_once,
            beside_single,
            beside_tenants,
            large_at_once,
        )

    async def estimate(
        self,
        load: Load,
        model: PoseModel,
        options: DetectionOptions,
        *,
        timeout_s: float | None = None,
        keep_image: bool = False,
        stream: Hashable | None = None,
        timer: StageTimer | None = None,
    ) -> Estimate:
        """Estimate the poses in an encoded image. It is decoded once it has a slot, so that what waits is
        small.

        Args:
            load: gives the image, reduced as far as neither `keep_image` nor a second stage needs the whole,
                such as a `Loading`; runs in a worker thread, and its errors pass through.
            model: a ready model.
            options: of the detection.
            timeout_s: seconds from the start of the slot, for a frame of a stream: its wait for a slot is not
                the model's; None for the deadline of the call.
            keep_image: return the image too, to draw on.
            stream: identifies the stream of the frame; None for an image of a unary call, which goes first.
            timer: records the duration of each stage; None for no record.
        """
        timer = timer or StageTimer()
        async with self.slot(timer, stream=stream, large=isinstance(load, Loading) and load.large) as decoded:
            infer = self._infer(timeout_s)
            with self._client.lend() as loan:
                prepared = await self._load(
                    load, model, options.region_xyxy, timer, loan, keep_image=keep_image
                )
                decoded()
                persons = await self._detect(infer, prepared, model, options, timer, loan)
            estimate = await self._finish(infer, prepared, persons, model, timer)
        return estimate if keep_image else replace(estimate, image=None)

    async def estimate_prepared(
        self,
        prepared: Prepared,
        model: PoseModel,
        options: DetectionOptions,
        *,
        timeout_s: float,
        stream: Hashable | None = None,
        timer: StageTimer | None = None,
    ) -> Estimate:
        """As `estimate`, for an image that `prepare` has fitted into the input of the same model."""
        timer = timer or StageTimer()
        async with self.slot(timer, stream=stream):
            infer = self._infer(timeout_s)
            with self._client.lend() as loan:
                persons = await self._detect(infer, prepared, model, options, timer, loan)
            return await self._finish(infer, prepared, persons, model, timer)

    @asynccontextmanager
    async def slot(
        self, timer: StageTimer, *, stream: Hashable | None = None, large: bool = False
    ) -> AsyncIterator[Callable[[], None]]:
        """Hold a slot for the time of the block, as `InferenceScheduler.take`; the wait counts as stage
        `queue`. Other work that takes a worker thread for long takes one too, as a large image. Where the
        block is cancelled while a thread works for it, the slot is held until the thread has done with it."""
        with timer.timed("queue"):
            slot = await self._scheduler.take(stream, tenant=current().party, large=large)
        with concurrency.LeftOver() as work:
            try:
                yield slot.decoded
            finally:
                if work:  # a thread is busy still: the slot is not free before it is
                    task = asyncio.create_task(_leave_after(work, slot))
                    self._closing.add(task)
                    task.add_done_callback(self._closing.discard)
                else:
                    slot.leave()

    def _infer(self, timeout_s: float | None) -> _Infer:
        """The client's `infer` with the deadline and the id of the current call.

        A unary call, which has no `timeout_s`, waits in its slot for a Triton that is away, as long as its
        deadline allows: its caller has sent an image that is decoded already, and Triton is back within
        seconds. Frames of streams wait outside of their slots.
        """
        call = current()
        if timeout_s is not None:
            deadline = time.monotonic() + timeout_s
            return partial(self._client.infer, deadline=deadline, request_id=call.request_id)
        infer = partial(self._client.infer, deadline=call.deadline, request_id=call.request_id)

        async def patiently(
            model: Model, inputs: Tensors, outputs: Sequence[str], *, loan: Loan | None = None
        ) -> Tensors:
            return await retry_unavailable(
                partial(infer, model, inputs, outputs, loan=loan),
                call.deadline - time.monotonic() - _ANSWER_S,
                longest_pause_s=_PAUSE_S,
                overloaded=False,
            )

        return patiently

    async def _load(
        self,
        load: Load,
        model: PoseModel,
        region_xyxy: Region | None,
        timer: StageTimer,
        loan: Loan,
        *,
        keep_image: bool,
    ) -> Prepared:
        """Load an image and prepare it in the memory of the loan, in a worker thread; the durations are
        recorded however it ends."""
        clock = _LoadClock(time.perf_counter())
        threads = self._waiting if isinstance(load, Loading) and load.waits else self._workers
        try:
            with concurrency.LeftOver() as loan.at_work:  # a thread that may still write to it
                prepared = await concurrency.run(
                    threads,
                    _load_and_prepare,
                    load,
                    model,
                    region_xyxy,
                    keep_image=keep_image,
                    clock=clock,
                    allocate=loan.array,
                )
        finally:
            clock.report(timer)
        timer.size_wh = prepared.size_wh
        return prepared

    async def _detect(
        self,
        infer: _Infer,
        prepared: Prepared,
        model: PoseModel,
        options: DetectionOptions,
        timer: StageTimer,
        loan: Loan,
    ) -> Poses:
        """The persons that the model of the whole image finds."""
        with timer.timed("inference"):
            outputs = await infer(model.first, {"images": prepared.tensor}, ["candidates"], loan=loan)
        self.answered_at = time.monotonic()
        with timer.timed("postprocess"):
            # A copy: when the call is cancelled a thread goes on, and the loan ends.
            candidates = above(outputs["candidates"][0], options.min_score)
            if len(candidates) > _MANY:
                return await self.run(_decode, candidates, prepared.to_input, options)
            return _decode(candidates, prepared.to_input, options)

    async def _finish(
        self, infer: _Infer, prepared: Prepared, persons: Poses, model: PoseModel, timer: StageTimer
    ) -> Estimate:
        """The estimate, after the second stage where the model has one."""
        poses = persons
        if model.detector is not None:
            assert prepared.image is not None  # noqa: S101 - `prepare` keeps it for such a model
            poses = await self._refine(infer, model, prepared.image, persons, timer)
        timer.persons = len(poses)
        return Estimate(poses=poses, size_wh=prepared.size_wh, image=prepared.image, timings=timer.timings())

    async def _refine(
        self, infer: _Infer, model: PoseModel, image: Rgb8, persons: Poses, timer: StageTimer
    ) -> Poses:
        """Estimate the keypoints of detected persons with a top-down model; no person, no call."""
        refined = []
        top_down = model.model
        for start in range(0, len(persons), top_down.max_batch_size):
            chunk = slice(start, start + top_down.max_batch_size)
            some = persons.select(chunk)
            with timer.timed("preprocess"):
                inputs, affines = await self.run(_second_inputs, top_down, image, persons, chunk)
            with timer.timed("inference"):
                outputs = await infer(top_down, inputs, ["keypoints", "scores", "positions"])
            if top_down.takes_image:
                outputs = {name: tensor[0] for name, tensor in outputs.items()}
            with timer.timed("postprocess"):
                refined.append(await self.run(_assemble, some, affines, outputs, model.skeleton.names))
        joined = _join(refined, top_down.keypoint_count)
        if not len(joined):
            return joined
        with timer.timed("postprocess"):
            return await self.run(without_shared_parts, joined, model.skeleton.names)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run CPU work in a worker thread, as `concurrency.run`."""
        return await concurrency.run(self._workers, work, *args, **kwargs)

    async def draw(
        self, pixels: int, timer: StageTimer, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `run`, for drawing and encoding so many pixels, of all overlays together. Many take a slot
        first, as a large image does: encoding 49 megapixels takes up to eight seconds."""
        async with AsyncExitStack() as held:
            if pixels >= LARGE_PIXELS:
                await held.enter_async_context(self.slot(timer, large=True))
            return await self.run(work, *args, **kwargs)

    def is_stuck(self, longest_s: float) -> bool:
        """Whether no worker thread has got on for so long, as `concurrency.got_on_at`."""
        return time.monotonic() - concurrency.got_on_at(self._workers) > longest_s


async def _leave_after(work: list[Future[Any]], slot: Slot) -> None:
    try:
        await concurrency.done_with(work)
    finally:
        slot.leave()


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


def _load_and_prepare(
    load: Load,
    model: PoseModel,
    region_xyxy: Region | None,
    *,
    keep_image: bool,
    clock: _LoadClock,
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
class _LoadClock:
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


def _second_inputs(
    model: Model, image: Rgb8, persons: Poses, chunk: slice
) -> tuple[dict[str, NDArray[Any]], list[Affine]]:
    """Tensors of a top-down model for some of an image's persons, and the maps from image px to theirs."""
    some = persons.select(chunk)
    if model.takes_image:
        part, affine = frame_persons(image, some.boxes_xyxy)
        others = np.delete(persons.keypoints, chunk, axis=0)
        boxes, bodies = in_frame(affine, some.boxes_xyxy, np.concatenate([some.keypoints, others]))
        return {"image": part[None], "boxes": boxes[None], "bodies": bodies[None]}, [affine] * len(some)
    crops, affines = crop_people(image, some.boxes_xyxy, model.shapes_hw[0])
    inputs: dict[str, NDArray[Any]] = {"crops": crops}
    if model.takes_body:
        inputs["body"] = bodies_in_crops(some.keypoints, affines)
    return inputs, affines


def _decode(candidates: Floats, to_input: Affine, options: DetectionOptions) -> Poses:
    return decode_candidates(
        candidates,
        to_input,
        min_score=options.min_score,
        iou_threshold=options.iou_threshold,
        max_persons=options.max_persons,
    )


def _assemble(
    persons: Poses, affines: Sequence[Affine], outputs: Tensors, keypoint_names: tuple[str, ...]
) -> Poses:
    poses = poses_from_crops(persons, affines, outputs["keypoints"], outputs["scores"], outputs["positions"])
    if poses.depth_source != "lifted" or poses.positions is None:
        return poses
    return replace(poses, positions=lift(poses.keypoints, poses.positions, keypoint_names))


def _join(parts: Sequence[Poses], keypoint_count: int) -> Poses:
    """Concatenate the persons of several batches; positions stay when any batch has them."""
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
