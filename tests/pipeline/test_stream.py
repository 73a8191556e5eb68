from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pytest

from service.core.angles import AngleOptions
from service.core.geometry import ScaledImage
from service.core.model import PoseModel
from service.core.skeleton.mapping import plan_mapping
from service.errors import DeadlineExceeded, ImageUndecodable, InvalidRequest, Overloaded, Unavailable
from service.media.image import LeastScale
from service.media.loading import Load
from service.pipeline.estimator import DetectionOptions, Estimator
from service.pipeline.sequence_analyzer import SequenceConfig
from service.pipeline.stream import (
    Event,
    FrameAnswer,
    FramePolicy,
    KeepAlive,
    StreamAnalyzer,
    StreamFrame,
    StreamRequest,
    StreamResult,
    StreamSummary,
)
from service.pipeline.stream_limiter import StreamLimiter
from service.skeletons import shipped
from tests.fakes import MODEL, FakeTritonClient, candidate, rows
from tests.virtual_time import InlineExecutor, now, settled, virtual_time

E = TypeVar("E", bound=Event)

COCO = shipped()["coco_17"]
WHO = rows(candidate((200, 100, 440, 500), 0.9))

FRAME_BYTES = 1000


def image(_: LeastScale | None) -> ScaledImage:
    return ScaledImage.whole(np.zeros((48, 64, 3), np.uint8))


def unreadable(_: LeastScale | None) -> ScaledImage:
    raise ImageUndecodable("no picture")


def frame(frame_id: str, capture_ns: int | None = None, load: Load = image) -> StreamFrame:
    return StreamFrame(frame_id, load, capture_ns, size=FRAME_BYTES)


@dataclass(eq=False)
class Desk:
    """A StreamAnalyzer on the clock of the running loop, without threads."""

    analyzer: StreamAnalyzer
    triton: FakeTritonClient
    limiter: StreamLimiter

    def run(
        self, frames: AsyncIterator[StreamFrame], policy: FramePolicy = "every"
    ) -> AsyncGenerator[Event, None]:
        request = StreamRequest(
            model=PoseModel(MODEL, None, COCO),
            options=DetectionOptions(min_score=0.25, iou_threshold=0.7, max_persons=10),
            sequence=SequenceConfig(
                plan=plan_mapping(COCO, COCO),
                track=True,
                smooth=False,
                measurements=(),
                side="both",
                angles=AngleOptions(),
                prominent_only=False,
            ),
            policy=policy,
        )
        return self.analyzer.analyze(frames, request)


def desk(look_ahead: int = 4, look_ahead_bytes: int = 1 << 20) -> Desk:
    triton, limiter = FakeTritonClient(), StreamLimiter(4, 1)
    triton.answer = WHO
    analyzer = StreamAnalyzer(
        Estimator(triton, InlineExecutor(), 16),
        limiter,
        look_ahead=look_ahead,
        look_ahead_bytes=look_ahead_bytes,
        frame_timeout_s=5.0,
        keep_alive_s=10.0,
        quiet_s=60.0,
        clock=now,
    )
    return Desk(analyzer, triton, limiter)


class Camera:
    """Frames on demand.

    Attributes:
        taken: how many were asked for and given out.
    """

    def __init__(self, frames: Sequence[StreamFrame], interval_s: float = 0.0) -> None:
        self._frames = frames
        self._interval_s = interval_s
        self.taken = 0

    async def __aiter__(self) -> AsyncGenerator[StreamFrame, None]:
        for one in self._frames:
            if self._interval_s:
                await asyncio.sleep(self._interval_s)
            self.taken += 1
            yield one


def camera(count: int, interval_s: float = 0.0) -> Camera:
    return Camera([frame(f"p{number}") for number in range(count)], interval_s)


async def events_of(events: AsyncGenerator[Event, None]) -> list[Event]:
    async with aclosing(events) as running:
        return [event async for event in running]


def only(events: list[Event], kind: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


@virtual_time
async def test_a_stream_without_frames_has_a_summary() -> None:
    (summary,) = await events_of(desk().run(aiter(camera(0))))
    assert isinstance(summary, StreamSummary)
    assert (summary.received, summary.answered, summary.persons_tracked) == (0, 0, 0)


@virtual_time
async def test_every_frame_is_answered_in_order_whichever_is_done_first() -> None:
    one = desk()
    seconds = iter([3.0, 1.0, 2.0, 0.5] * 3)
    infer = one.triton.infer

    async def slow(*args: object, **kwargs: object) -> object:
        await asyncio.sleep(next(seconds))
        return await infer(*args, **kwargs)  # type: ignore[arg-type]

    one.triton.infer = slow  # type: ignore[assignment, method-assign]
    events = await events_of(one.run(aiter(camera(12))))
    results = only(events, StreamResult)
    assert [result.frame_id for result in results] == [f"p{number}" for number in range(12)]
    assert all(isinstance(result.answer, FrameAnswer) for result in results)
    assert isinstance(events[-1], StreamSummary)
    assert (events[-1].received, events[-1].answered, events[-1].persons_tracked) == (12, 12, 1)


@virtual_time
async def test_the_time_of_a_result_goes_from_arrival_to_answer() -> None:
    one = desk()
    one.triton.seconds = 0.25
    result, summary = await events_of(one.run(aiter(camera(1, interval_s=2.0))))
    assert isinstance(result, StreamResult)
    assert result.total_ms == pytest.approx(250)
    assert result.capture_ns == 2_000_000_000  # of arrival, where the caller gives none
    assert isinstance(summary, StreamSummary)
    assert summary.wall_s == pytest.approx(2.25)


@virtual_time
async def test_a_capture_time_comes_back_to_the_nanosecond() -> None:
    capture_ns = 1_763_000_000_123_456_789
    result, _ = await events_of(desk().run(aiter(Camera([frame("a", capture_ns)]))))
    assert isinstance(result, StreamResult)
    assert result.capture_ns == capture_ns


@virtual_time
async def test_every_reads_no_further_frame_while_all_places_are_taken() -> None:
    one = desk(look_ahead=4)
    one.triton.gate.clear()
    source = camera(200)
    async with aclosing(one.run(aiter(source))) as events:
        first = asyncio.ensure_future(anext(events))
        await settled()
        assert (source.taken, one.triton.under_way) == (5, 4)  # the fifth waits for a place
        one.triton.gate.set()
        rest = [await first, *[event async for event in events]]
    assert len(only(rest, StreamResult)) == 200
    assert one.triton.most_at_once == 4


@virtual_time
@pytest.mark.parametrize("policy", ["every", "latest"])
@pytest.mark.parametrize(("frames_bytes", "at_once"), [(2.5, 2), (0.5, 1)])
async def test_frames_in_flight_hold_no_more_bytes_than_allowed_but_for_a_single_one(
    policy: FramePolicy, frames_bytes: float, at_once: int
) -> None:
    one = desk(look_ahead=4, look_ahead_bytes=int(frames_bytes * FRAME_BYTES))
    one.triton.gate.clear()
    source = camera(9)
    async with aclosing(one.run(aiter(source), policy)) as events:
        first = asyncio.ensure_future(anext(events))
        await settled()
        assert one.triton.under_way == at_once
        if policy == "every":
            assert source.taken == at_once + 1
        one.triton.gate.set()
        results = only([await first, *[event async for event in events]], StreamResult)
    assert one.triton.most_at_once == at_once
    if policy == "every":
        assert len(results) == 9
    assert results[-1].frame_id == "p8"


@virtual_time
async def test_latest_drops_what_waits_when_a_newer_frame_comes_and_counts_it() -> None:
    one = desk()
    one.triton.gate.clear()
    async with aclosing(one.run(aiter(camera(50)), "latest")) as events:
        first = asyncio.ensure_future(anext(events))
        await settled()
        assert one.triton.under_way == 2
        await asyncio.sleep(0.5)
        one.triton.gate.set()
        found = [await first, *[event async for event in events]]
    results = only(found, StreamResult)
    assert [(result.frame_id, result.dropped) for result in results] == [("p0", 0), ("p1", 0), ("p49", 47)]
    (summary,) = only(found, StreamSummary)
    assert (summary.received, summary.answered, summary.dropped) == (50, 3, 47)


@virtual_time
async def test_latest_drops_nothing_while_the_model_keeps_up() -> None:
    one = desk()
    one.triton.seconds = 0.05
    found = await events_of(one.run(aiter(camera(30, interval_s=0.04)), "latest"))
    assert [result.dropped for result in only(found, StreamResult)] == [0] * 30


@virtual_time
async def test_a_frame_that_cannot_be_read_fails_alone() -> None:
    one = desk()
    frames = [frame("a"), frame("bad", load=unreadable), frame("b")]
    found = await events_of(one.run(aiter(Camera(frames))))
    answers = [result.answer for result in only(found, StreamResult)]
    assert [isinstance(answer, FrameAnswer) for answer in answers] == [True, False, True]
    assert isinstance(answers[1], ImageUndecodable)
    (summary,) = only(found, StreamSummary)
    assert (summary.received, summary.answered, summary.failed) == (3, 2, 1)


@virtual_time
async def test_a_model_that_is_overloaded_fails_the_frame_and_not_the_stream() -> None:
    one = desk(look_ahead=1)
    one.triton.script = [Overloaded("full", retry_after_s=1.0)]
    found = await events_of(one.run(aiter(camera(2))))
    first, second = (result.answer for result in only(found, StreamResult))
    assert isinstance(first, Overloaded)  # a live frame is old when the model is free again
    assert isinstance(second, FrameAnswer)
    assert now() == 0.0


@virtual_time
async def test_a_model_that_takes_too_long_fails_the_frame() -> None:
    one = desk(look_ahead=1)
    one.triton.seconds = 100.0
    result, _ = await events_of(one.run(aiter(camera(1))))
    assert isinstance(result, StreamResult)
    assert isinstance(result.answer, DeadlineExceeded)
    assert now() == pytest.approx(5.0, abs=0.1)


@virtual_time
async def test_silence_is_broken_by_keep_alives() -> None:
    found = []
    at = []
    async with aclosing(desk().run(aiter(camera(2, interval_s=25.0)))) as events:
        async for event in events:
            found.append(type(event))
            at.append(now())
    assert found == [KeepAlive, KeepAlive, StreamResult, KeepAlive, KeepAlive, StreamResult, StreamSummary]
    assert at == pytest.approx([10, 20, 25, 35, 45, 50, 50])


@virtual_time
async def test_a_stream_without_frames_for_too_long_is_ended() -> None:
    with pytest.raises(DeadlineExceeded) as failed:
        await events_of(desk().run(aiter(camera(1, interval_s=100.0))))
    assert now() == 60.0
    assert (failed.value.reason, failed.value.metadata) == ("STREAM_IDLE", {"limit_seconds": "60"})


@virtual_time
async def test_an_error_of_the_caller_comes_after_the_frames_before_it() -> None:
    async def frames() -> AsyncIterator[StreamFrame]:
        yield frame("a")
        raise InvalidRequest("config twice")

    events = desk().run(frames())
    first = await anext(events)
    assert isinstance(first, StreamResult)
    assert first.frame_id == "a"
    with pytest.raises(InvalidRequest, match="config twice"):
        await anext(events)


@virtual_time
async def test_a_stopping_service_ends_the_stream_within_a_second() -> None:
    one = desk()
    asyncio.get_running_loop().call_later(3.3, one.limiter.end)
    with pytest.raises(Unavailable) as failed:
        await events_of(one.run(aiter(camera(1, interval_s=50.0))))
    assert failed.value.reason == "DRAINING"
    assert 3.3 <= now() <= 4.3


@virtual_time
async def test_closing_the_events_ends_all_work() -> None:
    one = desk()
    one.triton.gate.clear()
    before = asyncio.all_tasks()
    events = one.run(aiter(camera(10)))
    first = asyncio.ensure_future(anext(events))
    await settled()
    assert one.triton.under_way == 4
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await events.aclose()
    assert (one.triton.under_way, one.triton.cancelled) == (0, 4)
    assert asyncio.all_tasks() == before
