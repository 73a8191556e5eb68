"""The context of a call, and the timer of one of its images."""

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import pytest

from service.telemetry.call_context import STAGES, CallContext, Observer, StageTimer, begin, current
from service.telemetry.spans import Stage


class Counting(Observer):
    """Keeps what it is told of images."""

    def __init__(self) -> None:
        self.images: list[tuple[dict[Stage, float], int | None, bool]] = []

    def image_done(self, took_s: Mapping[Stage, float], persons: int | None, *, frame: bool) -> None:
        self.images.append((dict(took_s), persons, frame))


def test_outside_of_calls_the_context_is_empty_and_counts_nothing() -> None:
    call = CallContext()
    assert (call.request_id, call.tenant, call.deadline) == ("", "default", math.inf)
    with call.stage_timer() as timer:
        timer.took("decode", 0.0, 1.0)
    assert call.facts() == {"decode_ms": 1000.0}


async def test_a_task_sees_the_context_of_the_call_that_started_it_and_no_other() -> None:
    async def call(request_id: str) -> list[str]:
        begin(CallContext(request_id=request_id))

        async def within() -> str:
            await asyncio.sleep(0)
            return current().request_id

        return [current().request_id, await asyncio.create_task(within())]

    answers = await asyncio.gather(*(call(f"id-{number}") for number in range(5)))
    assert answers == [[f"id-{number}"] * 2 for number in range(5)]


def test_a_timer_adds_the_times_of_a_stage_and_counts_once() -> None:
    observer = Counting()
    call = CallContext(observer=observer)
    timer = call.stage_timer()
    timer.took("inference", 1.0, 1.5)
    timer.took("inference", 2.0, 2.25)
    timer.size_wh, timer.persons = (64, 48), 3
    timer.finish()
    timer.finish()
    ((took_s, persons, frame),) = observer.images
    assert took_s == {**dict.fromkeys(STAGES, 0.0), "inference": 0.75}
    assert (persons, frame) == (3, False)
    assert call.facts() == {"width": 64, "height": 48, "persons": 3, "inference_ms": 750.0}


def test_a_duration_measured_elsewhere_is_added_as_it_is() -> None:
    timer = StageTimer()
    timer.add("decode", 0.25)
    assert timer.timings().decode_ms == pytest.approx(250)


def test_a_block_is_timed_even_when_it_fails() -> None:
    timer = StageTimer()
    with pytest.raises(RuntimeError), timer.timed("draw"):
        raise RuntimeError
    assert timer.timings().draw_ms > 0
    assert timer.timings().decode_ms == 0


def test_what_a_thread_adds_after_the_end_of_an_image_counts_no_more() -> None:
    observer = Counting()
    call = CallContext(observer=observer)
    timer = call.stage_timer()
    timer.finish()
    timer.took("decode", 0.0, 5.0)
    assert call.facts() == {}
    assert len(observer.images) == 1


@pytest.mark.parametrize(
    ("streaming", "facts"),
    [
        (False, {"sizes": ["10x20", "30x40"], "persons": 3}),
        (True, {"width": 30, "height": 40, "frames": 2}),
    ],
)
def test_the_facts_of_a_call_sum_up_its_images(streaming: bool, facts: dict[str, Any]) -> None:
    call = CallContext(streaming=streaming)
    call.uses("b")
    call.uses("a")
    for size_wh, persons in (((10, 20), 1), ((30, 40), 2)):
        with call.stage_timer() as timer:
            timer.size_wh, timer.persons = size_wh, persons
    assert call.facts() == {"model": ["a", "b"], **facts}
