"""The use case: one picture through its stages."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.core.geometry import Affine, Rgb8, ScaledImage
from service.errors import ImageUndecodable, Overloaded
from service.media.cost import LARGE_PIXELS
from service.media.image import LeastScale
from service.media.loading import Loading
from service.pipeline.estimator import DetectionOptions, Estimate, Estimator
from service.telemetry.call_context import CallContext, StageTimer, begin
from service.triton.shared_memory import Loan, SharedSlots
from tests.fakes import MODEL, POSE_MODEL, BusyThread, FakeTritonClient, candidate, rows, until
from tests.pictures import noise, plain, quartered

OPTIONS = DetectionOptions(min_score=0.25, iou_threshold=0.7, max_persons=300)


@pytest.fixture
def workers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as workers:
        yield workers


def estimating(estimator: Estimator, image: Rgb8, **changes: Any) -> asyncio.Task[Estimate]:
    wanted: dict[str, Any] = {"options": OPTIONS, "model": POSE_MODEL, **changes}
    return asyncio.create_task(
        estimator.estimate(
            lambda _: ScaledImage.whole(image),
            wanted.pop("model"),
            wanted.pop("options"),
            **wanted,
        )
    )


@pytest.mark.parametrize("size_wh", [(1, 1), (640, 480), (4000, 3)], ids=str)
async def test_no_person_is_found_in_an_empty_image(
    workers: ThreadPoolExecutor, size_wh: tuple[int, int]
) -> None:
    estimate = await estimating(Estimator(FakeTritonClient(), workers, 1), plain(size_wh))
    assert len(estimate.poses) == 0
    assert estimate.poses.keypoint_count == 17
    assert estimate.size_wh == size_wh
    assert estimate.image is None


async def test_the_picture_is_kept_only_when_it_is_asked_for(workers: ThreadPoolExecutor) -> None:
    image = quartered((64, 48))
    estimate = await estimating(Estimator(FakeTritonClient(), workers, 1), image, keep_image=True)
    assert estimate.image is image


async def test_the_whole_picture_is_kept_where_only_a_region_is_looked_at(
    workers: ThreadPoolExecutor,
) -> None:
    image = quartered((64, 48))
    options = replace(OPTIONS, region_xyxy=(0, 0, 10, 10))
    estimate = await estimating(
        Estimator(FakeTritonClient(), workers, 1), image, keep_image=True, options=options
    )
    assert estimate.image is image
    assert estimate.size_wh == (64, 48)


@pytest.mark.parametrize(
    ("size_wh", "shape_hw"),
    [((640, 480), (480, 640)), ((1920, 1080), (384, 640)), ((480, 640), (640, 480)), ((9, 9), (640, 640))],
    ids=str,
)
async def test_the_model_gets_the_smallest_input_that_holds_the_picture(
    workers: ThreadPoolExecutor, size_wh: tuple[int, int], shape_hw: tuple[int, int]
) -> None:
    client = FakeTritonClient()
    begin(CallContext(request_id="id-1"))
    await estimating(Estimator(client, workers, 1), plain(size_wh))
    (call,) = client.calls
    assert call.inputs["images"].shape == (1, *shape_hw, 3)
    assert call.inputs["images"].dtype == np.uint8
    assert call.request_id == "id-1"


async def test_people_in_a_region_are_where_they_are_in_the_whole_picture(
    workers: ThreadPoolExecutor,
) -> None:
    client = FakeTritonClient()
    client.answer = rows(candidate((10, 20, 110, 220), 0.9))
    options = replace(OPTIONS, region_xyxy=(300, 200, 940, 680))
    image = noise((1000, 700))
    estimate = await estimating(Estimator(client, workers, 1), image, options=options)
    np.testing.assert_array_equal(client.calls[0].inputs["images"][0], image[200:680, 300:940])
    np.testing.assert_allclose(estimate.poses.boxes_xyxy, [[310, 220, 410, 420]])


async def test_errors_of_decoding_and_of_the_model_pass_through(workers: ThreadPoolExecutor) -> None:
    client = FakeTritonClient()
    estimator = Estimator(client, workers, 1)

    def broken(_: LeastScale | None) -> ScaledImage:
        raise ImageUndecodable("no")

    with pytest.raises(ImageUndecodable):
        await estimator.estimate(broken, POSE_MODEL, OPTIONS)
    client.script = [Overloaded("full")]
    with pytest.raises(Overloaded):
        await estimating(estimator, plain((9, 9)))
    await estimating(estimator, plain((9, 9)))  # neither kept its place


async def test_no_more_pictures_than_allowed_are_between_decoding_and_answer(
    workers: ThreadPoolExecutor,
) -> None:
    client = FakeTritonClient()
    client.gate.clear()
    estimator = Estimator(client, workers, 3)
    tasks = [estimating(estimator, plain((9, 9))) for _ in range(8)]
    await until(lambda: client.under_way == 3)
    await asyncio.sleep(0.05)
    assert client.under_way == 3
    client.gate.set()
    await asyncio.gather(*tasks)
    assert client.most_at_once == 3


async def test_a_picture_that_waits_for_a_thread_is_never_decoded_once_its_caller_left(
    workers: ThreadPoolExecutor,
) -> None:
    busy = BusyThread()
    workers.submit(busy)
    decoded: list[str] = []
    client = FakeTritonClient()
    estimator = Estimator(client, workers, 2)

    def load(name: str) -> ScaledImage:
        decoded.append(name)
        return ScaledImage.whole(plain((9, 9)))

    gone, stays = (
        asyncio.create_task(
            estimator.estimate(lambda _, name=name: load(name), POSE_MODEL, OPTIONS)  # type: ignore[misc]
        )
        for name in ("gone", "stays")
    )
    await asyncio.sleep(0.02)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    busy.release()
    await stays
    assert decoded == ["stays"]
    assert len(client.calls) == 1


class Lending(FakeTritonClient):
    """A client that lends the same memory to everyone."""

    def __init__(self, slots: SharedSlots) -> None:
        super().__init__()
        self.loan = slots.lend()

    def lend(self) -> AbstractContextManager[Loan]:
        return nullcontext(self.loan)


async def test_an_image_is_fitted_into_the_memory_that_the_model_reads(workers: ThreadPoolExecutor) -> None:
    slots = SharedSlots(1, 3 * 640 * 640)
    client = Lending(slots)
    await estimating(Estimator(client, workers, 1), plain((640, 480)))
    (call,) = client.calls
    assert client.loan.holds(call.inputs["images"])
    assert (call.inputs["images"] == plain((640, 480))).all()
    assert not client.loan.rests
    slots.close()


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "gets an error"])
async def test_memory_that_a_thread_may_still_write_to_rests(
    workers: ThreadPoolExecutor, leaves: bool
) -> None:
    slots = SharedSlots(1, 4096)
    client = Lending(slots)
    entered, goes_on = threading.Event(), threading.Event()

    def load(_: LeastScale | None) -> ScaledImage:
        entered.set()
        assert goes_on.wait(20)
        raise ImageUndecodable("no")

    task = asyncio.create_task(Estimator(client, workers, 1).estimate(load, POSE_MODEL, OPTIONS))
    await until(entered.is_set)
    if leaves:
        task.cancel()
    else:
        goes_on.set()
    with pytest.raises(asyncio.CancelledError if leaves else ImageUndecodable):
        await task
    goes_on.set()
    assert bool(client.loan.at_work) == leaves
    slots.close()


async def test_a_caller_who_leaves_during_inference_cancels_it_and_frees_the_place(
    workers: ThreadPoolExecutor,
) -> None:
    client = FakeTritonClient()
    client.gate.clear()
    estimator = Estimator(client, workers, 1)
    task = estimating(estimator, plain((9, 9)))
    await client.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.cancelled == 1
    client.gate.set()
    await estimating(estimator, plain((9, 9)))


@pytest.mark.parametrize("count", [63, 64, 65, 400])
async def test_few_and_many_candidates_are_decoded_alike(workers: ThreadPoolExecutor, count: int) -> None:
    client = FakeTritonClient()
    client.answer = rows(
        *(
            candidate((k % 25 * 20, k // 25 * 20, k % 25 * 20 + 15, k // 25 * 20 + 15), 0.9)
            for k in range(count)
        )
    )
    estimate = await estimating(Estimator(client, workers, 1), plain((640, 480)))
    assert len(estimate.poses) == min(count, 300)


async def test_people_in_a_region_of_a_reduced_image_are_where_they_are_in_the_original(
    workers: ThreadPoolExecutor,
) -> None:
    client = FakeTritonClient()
    client.answer = rows(candidate((10, 20, 110, 220), 0.9))
    options = replace(OPTIONS, region_xyxy=(301, 200, 1581, 1160))
    image = noise((1000, 700))
    wanted: list[float] = []

    def load(least_scale: LeastScale | None) -> ScaledImage:
        assert least_scale is not None
        wanted.append(least_scale((1999, 1400)))
        return ScaledImage(image, (1999, 1400), Affine(0.5, 0.5))

    estimate = await Estimator(client, workers, 1).estimate(load, POSE_MODEL, options)
    assert wanted == [0.5]
    assert estimate.size_wh == (1999, 1400)
    # Half of 301 is within pixel 150, and the region, 641 px wide there, fills the 640 px of the input.
    scale = 641 / 640
    expected = [[300 + 20 * scale, 240, 300 + 220 * scale, 640]]
    np.testing.assert_allclose(estimate.poses.boxes_xyxy, expected, atol=1e-3)


async def test_an_image_is_asked_for_whole_where_it_is_kept(workers: ThreadPoolExecutor) -> None:
    asked: list[LeastScale | None] = []

    def load(least_scale: LeastScale | None) -> ScaledImage:
        asked.append(least_scale)
        return ScaledImage.whole(plain((64, 48)))

    await Estimator(FakeTritonClient(), workers, 1).estimate(load, POSE_MODEL, OPTIONS, keep_image=True)
    assert asked == [None]


async def test_a_small_image_does_not_wait_for_all_large_ones(workers: ThreadPoolExecutor) -> None:
    client = FakeTritonClient()
    client.gate.clear()
    decoding = threading.Event()

    def load(_: LeastScale | None) -> ScaledImage:
        decoding.wait(10)
        return ScaledImage.whole(plain((64, 48)))

    with ThreadPoolExecutor(8) as others:
        estimator = Estimator(client, workers, 4, waiting_threads=others, large_at_once=1)
        large = [
            asyncio.create_task(
                estimator.estimate(Loading(load, waits=True, large=True), POSE_MODEL, OPTIONS)
            )
            for _ in range(6)
        ]
        small = [estimating(estimator, plain((32, 32))) for _ in range(3)]
        await until(lambda: len(client.calls) == 3)  # beside one that is being decoded
        decoding.set()
        client.gate.set()
        await asyncio.gather(*large, *small)


async def test_the_next_large_image_is_decoded_while_the_model_works_on_the_last(
    workers: ThreadPoolExecutor,
) -> None:
    client = FakeTritonClient()
    client.gate.clear()
    estimator = Estimator(client, workers, 4, large_at_once=1)
    loading = Loading(lambda _: ScaledImage.whole(plain((64, 48))), large=True)
    large = [asyncio.create_task(estimator.estimate(loading, POSE_MODEL, OPTIONS)) for _ in range(3)]
    await until(lambda: len(client.calls) == 3)
    client.gate.set()
    await asyncio.gather(*large)


async def test_a_large_drawing_that_was_given_up_holds_its_slot_until_its_thread_is_free() -> None:
    # Or a caller with short deadlines would have all threads, one after the other.
    busy, other = BusyThread(), asyncio.Event()
    with ThreadPoolExecutor(2) as threads:
        estimator = Estimator(FakeTritonClient(), threads, at_once=4, large_at_once=1)
        drawing = asyncio.create_task(estimator.draw(LARGE_PIXELS, StageTimer(), busy))
        await until(lambda: busy.began)

        async def another() -> None:
            async with estimator.slot(StageTimer(), large=True):
                other.set()

        drawing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await drawing
        waiting = asyncio.create_task(another())
        await asyncio.sleep(0.05)
        assert not other.is_set()
        async with estimator.slot(StageTimer()):  # ordinary images go on
            assert await estimator.run(lambda: 7) == 7
        busy.release()
        await waiting


@pytest.mark.parametrize("detector", ["", "coco_17", "animal_24"])
async def test_of_an_arm_that_two_persons_claim_the_less_sure_wrist_is_doubtful(
    workers: ThreadPoolExecutor, detector: str
) -> None:
    claimed = {7: (300, 200), 9: (340, 200)}
    one, two = (
        [(*claimed.get(k - own, (100 + 400 * own + 5 * k, 20 * k)), score) for k in range(17)]
        for own, score in ((0, 0.9), (1, 0.7))
    )
    client = FakeTritonClient()
    client.answer = rows(candidate((50, 0, 350, 400), 0.9, one), candidate((290, 0, 600, 400), 0.8, two))
    first = np.array([one, two], np.float32)
    client.second_stage = lambda _: {
        "keypoints": first[None, ..., :2],
        "scores": np.full((1, 2, 17), 0.95, np.float32) if detector == "coco_17" else first[None, ..., 2],
        "positions": np.full((1, 2, 17, 3), np.nan, np.float32),
    }
    second = replace(MODEL, name="whole", family="top_down", takes_image=True, max_batch_size=16)
    stages = replace(POSE_MODEL, model=second, detector=replace(MODEL, skeleton=detector))
    model = stages if detector else POSE_MODEL
    estimate = await estimating(Estimator(client, workers, 1), plain((640, 480)), model=model)
    scores = estimate.poses.keypoints[..., 2]
    assert scores[1, 10] == np.float32(0.4)
    assert (np.delete(scores.ravel(), 17 + 10) > 0.6).all()
