"""Work in threads ends when nobody waits for it any more."""

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest

from service.core.cancellation import Stopped, checkpoint, stopping_when
from service.core.drawing.poses import OverlayStyle, draw_poses
from service.core.poses import Poses
from service.core.skeleton.template import Edge, Keypoint, Skeleton
from service.pipeline import concurrency


def test_a_checkpoint_lets_work_go_on_that_was_not_cancelled() -> None:
    checkpoint()
    with stopping_when(lambda: False):
        checkpoint()


def test_a_checkpoint_stops_work_that_is_to_stop_and_only_in_its_own_block_and_thread() -> None:
    with stopping_when(lambda: True):
        with pytest.raises(Stopped):
            checkpoint()
        other = threading.Thread(target=checkpoint)
        other.start()
        other.join()
    checkpoint()


async def test_work_stops_soon_after_its_caller_has_left() -> None:
    begun, ended = threading.Event(), threading.Event()

    def endless() -> None:
        begun.set()
        try:
            while True:
                time.sleep(0.001)
                checkpoint()
        finally:
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        task = asyncio.create_task(concurrency.run(pool, endless))
        assert await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ended.wait, 30)
        assert await concurrency.run(pool, lambda: 7) == 7


async def test_drawing_stops_in_the_middle_of_one_person(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"p{number}" for number in range(1000)]
    skeleton = Skeleton(
        "web",
        "A web",
        tuple(Keypoint(name) for name in names),
        tuple(
            Edge(names[k % 1000], names[(k * 7 + 1) % 1000])
            for k in range(4000)
            if k % 1000 != (k * 7 + 1) % 1000
        ),
    )
    rng = np.random.default_rng(0)
    keypoints = np.concatenate([rng.uniform(0, 3000, (50, 1000, 2)), np.ones((50, 1000, 1))], axis=2)
    poses = Poses(np.zeros((50, 4), np.float32), np.ones(50, np.float32), keypoints.astype(np.float32))
    canvas = np.zeros((3000, 3000, 3), np.uint8)
    lines, at_work, left = 0, threading.Event(), threading.Event()
    draw_line = cv2.line

    def counted(*args: Any) -> Any:
        nonlocal lines
        lines += 1
        if lines == 100:
            at_work.set()
            assert left.wait(30)
        return draw_line(*args)

    monkeypatch.setattr(cv2, "line", counted)
    with ThreadPoolExecutor(1) as pool:
        drawing = asyncio.create_task(
            concurrency.run(pool, draw_poses, canvas, poses, skeleton, OverlayStyle(line_width=32))
        )
        assert await asyncio.to_thread(at_work.wait, 30)
        drawing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await drawing
        left.set()
        await concurrency.run(pool, lambda: None)
    assert lines < 1000  # of 8000 of each person


async def test_what_a_cancelled_caller_had_is_free_when_the_task_that_it_waited_for_has_ended() -> None:
    class Image:
        pass

    images: list[weakref.ref[Image]] = []
    waited_for = asyncio.create_task(asyncio.sleep(0.05))

    async def caller() -> None:
        image = Image()
        images.append(weakref.ref(image))
        await concurrency.ended(waited_for)

    gc.disable()
    try:
        calling = asyncio.create_task(caller())
        await asyncio.sleep(0)
        calling.cancel()
        assert isinstance((await asyncio.gather(calling, return_exceptions=True))[0], asyncio.CancelledError)
        del calling
        await asyncio.sleep(0)
        assert waited_for.done()
        assert images[0]() is None
    finally:
        gc.enable()
