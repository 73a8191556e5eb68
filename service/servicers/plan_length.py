"""Limits of a plan on the length of videos and live streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from service.core.plan import Plan
from service.errors import PlanDoesNotAllow, VideoTooLong
from service.pipeline.stream import StreamFrame

T = TypeVar("T")

_LIMIT = "max_video_seconds"


async def refused_by_plan(answers: AsyncGenerator[T, None], plan: Plan | None) -> AsyncGenerator[T, None]:
    """Pass the answers to a video on; an end because of the plan's limit becomes the error of the plan.

    Raises:
        PlanDoesNotAllow: the video is too long for the plan, though not for the service.
        PosegateError: what `answers` raises.
    """
    try:
        async with aclosing(answers) as running:
            async for answer in running:
                yield answer
    except VideoTooLong as error:
        limit, actual = (error.metadata.get(f"{kind}_seconds") for kind in ("limit", "actual"))
        seconds = None if plan is None else plan.max_video_seconds
        if plan is None or seconds is None or limit is None or actual is None or float(limit) != seconds:
            raise
        raise PlanDoesNotAllow.of(plan.name, _LIMIT, limit=seconds, actual=float(actual)) from error


async def frames_within_plan(
    frames: AsyncGenerator[StreamFrame, None], plan: Plan | None
) -> AsyncGenerator[StreamFrame, None]:
    """Pass the frames of a live stream on, up to the seconds that the plan allows, by the clock and by their
    capture times.

    Raises:
        PlanDoesNotAllow: the stream goes on for longer.
    """
    limit_s = None if plan is None else plan.max_video_seconds
    if plan is None or limit_s is None:
        async with aclosing(frames) as running:
            async for frame in running:
                yield frame
        return
    began, first_ns = time.monotonic(), None
    async with aclosing(frames) as running:
        while True:
            left_s = began + limit_s - time.monotonic()
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    frame = await anext(running)
            except StopAsyncIteration:
                return
            except TimeoutError:
                # A stream of which nothing more came is as long as it lasted.
                raise PlanDoesNotAllow.of(
                    plan.name, _LIMIT, limit=limit_s, actual=round(time.monotonic() - began, 3)
                ) from None
            if frame.capture_ns is not None:
                first_ns = frame.capture_ns if first_ns is None else first_ns
                length_s = (frame.capture_ns - first_ns) / 1e9
                if length_s > limit_s:
                    raise PlanDoesNotAllow.of(plan.name, _LIMIT, limit=limit_s, actual=round(length_s, 3))
            yield frame
