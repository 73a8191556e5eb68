from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest

from service.errors import DataLoss, DeadlineExceeded, Overloaded, PosegateError, Unavailable
from service.pipeline.patience import item_within, retry_unavailable
from tests.virtual_time import now, virtual_time


async def every(seconds: float, count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(seconds)
        yield number


def late() -> DeadlineExceeded:
    return DeadlineExceeded("too late")


@virtual_time
async def test_items_that_come_in_time_are_given_out_and_none_after_the_last() -> None:
    items = every(1.0, 2)
    assert [await item_within(items, 1.5, late) for _ in range(3)] == [0, 1, None]


@virtual_time
async def test_an_item_that_does_not_come_in_time_is_an_error_at_that_time() -> None:
    with pytest.raises(DeadlineExceeded, match="too late"):
        await item_within(every(2.0, 1), 1.5, late)
    assert now() == 1.5


class Model:
    """Fails as scripted, then answers."""

    def __init__(self, *errors: PosegateError) -> None:
        self._errors = list(errors)
        self.called_at: list[float] = []

    async def __call__(self) -> str:
        self.called_at.append(now())
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


@virtual_time
async def test_a_model_that_is_unavailable_for_a_moment_is_called_again_when_the_error_says_so() -> None:
    model = Model(
        Overloaded("full", retry_after_s=0.5), Unavailable("away", retry_after_s=2.0), Unavailable("?")
    )
    assert await retry_unavailable(model, 10.0, now) == "answer"
    assert model.called_at == [0.0, 0.5, 2.5, 3.5]


@virtual_time
async def test_the_error_passes_through_once_its_pause_would_end_after_the_patience() -> None:
    errors = [Unavailable(f"error {number}", retry_after_s=2.0) for number in range(9)]
    model = Model(*errors)
    with pytest.raises(Unavailable, match="error 2"):
        await retry_unavailable(model, 5.0, now)
    assert model.called_at == [0.0, 2.0, 4.0]


@virtual_time
async def test_the_error_passes_through_after_a_pause_that_took_longer_than_it_should() -> None:
    """As on a machine that stood still meanwhile."""
    model = Model(Unavailable("away", retry_after_s=2.0))

    def clock() -> float:
        return now() + 30.0 if now() else 0.0

    with pytest.raises(Unavailable, match="away"):
        await retry_unavailable(model, 5.0, clock)
    assert model.called_at == [0.0]


@pytest.mark.parametrize("patience_s", [5.0, 1.5], ids=["answered", "the pause took longer"])
@virtual_time
async def test_an_error_leaves_nothing_to_the_garbage_collector(patience_s: float) -> None:
    kept: list[weakref.ref[PosegateError]] = []

    async def call() -> str:
        if kept:
            return "answer"
        error = Unavailable("away", retry_after_s=1.0)
        kept.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    async def ask() -> None:
        try:
            await retry_unavailable(call, patience_s, lambda: 2 * now())
        except Unavailable:
            assert patience_s == 1.5

    gc.collect()
    gc.disable()
    try:
        await ask()
        assert kept[0]() is None
    finally:
        gc.enable()


@virtual_time
async def test_what_a_call_had_that_failed_is_free_during_the_pause() -> None:
    class Image:
        pass

    images: list[weakref.ref[Image]] = []
    alive: list[bool] = []

    async def call() -> str:
        if images:
            return "answer"
        image = Image()
        images.append(weakref.ref(image))
        asyncio.get_running_loop().call_later(0.5, lambda: alive.append(images[0]() is not None))
        raise Unavailable("away", retry_after_s=1.0)

    assert await retry_unavailable(call, 10.0, now) == "answer"
    assert alive == [False]


@virtual_time
async def test_other_errors_are_not_tried_again() -> None:
    model = Model(DataLoss("gone"))
    with pytest.raises(DataLoss):
        await retry_unavailable(model, 5.0, now)
    assert len(model.called_at) == 1
