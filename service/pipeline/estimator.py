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

from numpy.typing import NDArray

from service.core.contested_arms import COCO_ARMS, doubt_contested_arms
from service.core.geometry import Affine, Region, Rgb8
from service.core.model import Model, PoseModel
from service.core.poses import Floats, Poses
from service.core.shared_parts import without_shared_parts
from service.core.yolo import above, decode_candidates
from service.media.cost import LARGE_PIXELS
from service.media.loading import Load, Loading
from service.pipeline import concurrency
from service.pipeline.patience import retry_unavailable
from service.pipeline.preparation import LoadClock, Prepared, load_and_prepare
from service.pipeline.scheduler import InferenceScheduler, Slot
from service.pipeline.second_stage import assemble, join, second_inputs
from service.telemetry.call_context import StageTimer, Timings, current
from service.triton.shared_memory import Loan

P = ParamSpec("P")
T = TypeVar("T")

Tensors = Mapping[str, NDArray[Any]]

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
        clock = LoadClock(time.perf_counter())
        threads = self._waiting if isinstance(load, Loading) and load.waits else self._workers
        try:
            with concurrency.LeftOver() as loan.at_work:  # a thread that may still write to it
                prepared = await concurrency.run(
                    threads,
                    load_and_prepare,
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
            names = model.skeleton.names if model.detector is None else None
            if len(candidates) > _MANY:
                return await self.run(_decode, candidates, prepared.to_input, options, names)
            return _decode(candidates, prepared.to_input, options, names)

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
                inputs, affines = await self.run(second_inputs, top_down, image, persons, chunk)
            with timer.timed("inference"):
                outputs = await infer(top_down, inputs, ["keypoints", "scores", "positions"])
            if top_down.takes_image:
                outputs = {name: tensor[0] for name, tensor in outputs.items()}
            with timer.timed("postprocess"):
                refined.append(await self.run(assemble, some, affines, outputs, model.skeleton.names))
        joined = join(refined, top_down.keypoint_count)
        if not len(joined):
            return joined
        with timer.timed("postprocess"):
            return await self.run(_settle, joined, persons, model)

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


def _decode(
    candidates: Floats, to_input: Affine, options: DetectionOptions, names: tuple[str, ...] | None
) -> Poses:
    """The persons; with `names` of their keypoints, what two of them claim is settled too."""
    persons = decode_candidates(
        candidates,
        to_input,
        min_score=options.min_score,
        iou_threshold=options.iou_threshold,
        max_persons=options.max_persons,
    )
    return persons if names is None else doubt_contested_arms(persons, names)


def _settle(poses: Poses, first: Poses, model: PoseModel) -> Poses:
    """Settle what two persons of an image claim, after a second stage. The forearms are those of the first
    one, where it has any: the second has corrected one of two that are in one place, or neither."""
    poses = without_shared_parts(poses, model.skeleton.names)
    if model.first.skeleton != "coco_17":
        return doubt_contested_arms(poses, model.skeleton.names)
    return doubt_contested_arms(poses, model.skeleton.names, first.keypoints, COCO_ARMS)
