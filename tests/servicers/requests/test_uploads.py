from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import numpy as np
import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.errors import DeadlineExceeded, ImageTooLarge, ImageUndecodable, InvalidRequest
from service.media.image import ImageLimits
from service.pipeline.stream import StreamFrame
from service.servicers.requests.uploads import first_message, stream_frames, video_chunks
from tests.virtual_time import now, virtual_time

T = TypeVar("T")

LIMITS = ImageLimits(max_bytes=1000, max_pixels=100)
CONFIG = pb.AnalyzeVideoRequest(config=pb.VideoConfig(model="m"))


async def sent(messages: Sequence[T]) -> AsyncIterator[T]:
    for message in messages:
        yield message


def taken(*capture_ns: int | None, frame_id: str = "a") -> list[pb.StreamPosesRequest]:
    requests = []
    for one in capture_ns:
        frame = pb.StreamFrame(frame_id=frame_id, raw=raw(2, 2, 12))
        if one is not None:
            frame.capture_time.FromNanoseconds(one)
        requests.append(pb.StreamPosesRequest(frame=frame))
    return requests


def raw(width: int, height: int, count: int) -> pb.RawImage:
    return pb.RawImage(rgb=bytes(range(count)), size=types_pb2.ImageSize(width=width, height=height))


async def frames(requests: Sequence[pb.StreamPosesRequest]) -> list[StreamFrame]:
    return [frame async for frame in stream_frames(sent(requests), LIMITS)]


@virtual_time
async def test_the_first_message_is_the_config() -> None:
    assert (await first_message(sent([CONFIG]), "chunks", 5.0)).config.model == "m"


@pytest.mark.parametrize(
    ("requests", "problem"),
    [([], "nothing was sent"), ([pb.AnalyzeVideoRequest(chunk=b"x")], "chunks come after it")],
    ids=["nothing", "a chunk"],
)
def test_another_first_message_is_refused(requests: list[pb.AnalyzeVideoRequest], problem: str) -> None:
    @virtual_time
    async def run() -> None:
        with pytest.raises(InvalidRequest, match=problem):
            await first_message(sent(requests), "chunks", 5.0)

    run()


@virtual_time
async def test_a_config_that_does_not_come_in_time_is_late() -> None:
    async def silent() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        await asyncio.sleep(100)
        yield CONFIG

    with pytest.raises(DeadlineExceeded) as failed:
        await first_message(silent(), "chunks", 5.0)
    assert (failed.value.reason, now()) == ("CONFIG_LATE", 5.0)


@virtual_time
async def test_chunks_are_given_out_and_empty_ones_left_out() -> None:
    requests = [pb.AnalyzeVideoRequest(chunk=chunk) for chunk in (b"ab", b"", b"c")]
    assert [chunk async for chunk in video_chunks(sent(requests))] == [b"ab", b"c"]


@pytest.mark.parametrize("bad", [CONFIG, pb.AnalyzeVideoRequest()], ids=["a second config", "nothing"])
def test_messages_that_are_no_chunk_are_refused(bad: pb.AnalyzeVideoRequest) -> None:
    @virtual_time
    async def run() -> None:
        chunks = video_chunks(sent([pb.AnalyzeVideoRequest(chunk=b"ab"), bad]))
        assert await anext(chunks) == b"ab"
        with pytest.raises(InvalidRequest):
            await anext(chunks)

    run()


@virtual_time
async def test_capture_times_are_exact_and_absent_where_none_is_sent() -> None:
    first = 1_763_000_000_123_456_789
    assert [frame.capture_ns for frame in await frames(taken(first, first, first + 1))] == [
        first, first, first + 1,
    ]  # fmt: skip
    assert [frame.capture_ns for frame in await frames(taken(None, None))] == [None, None]


@pytest.mark.parametrize(
    ("times", "bad"),
    [
        ([5, 4, 6], [1]),
        ([5, None, 6], [1]),
        ([None, 5, None], [1]),
        ([-1, 5, 6], [0]),
        ([20 * 10**18 - 1, 5, 6], [0]),
    ],
    ids=["falling", "missing", "one too many", "negative", "too far"],
)
def test_a_frame_with_a_wrong_capture_time_fails_alone_when_it_is_loaded(
    times: list[int | None], bad: list[int]
) -> None:
    @virtual_time
    async def run() -> None:
        found = await frames(taken(*times))
        assert len(found) == 3
        for number, frame in enumerate(found):
            if number in bad:
                assert frame.capture_ns is None
                with pytest.raises(InvalidRequest) as failed:
                    frame.load(None)
                assert [one.field for one in failed.value.violations] == ["frame.capture_time"]
            else:
                assert frame.load(None).pixels.shape == (2, 2, 3)

    run()


@virtual_time
async def test_a_name_that_is_too_long_is_cut_in_the_answer() -> None:
    (frame,) = await frames(taken(None, frame_id="x" * 200))
    assert frame.frame_id == "x" * 128
    with pytest.raises(InvalidRequest, match="128"):
        frame.load(None)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (pb.StreamFrame(), ImageUndecodable),
        (pb.StreamFrame(encoded=b"no image"), ImageUndecodable),
        (pb.StreamFrame(raw=raw(0, 2, 0)), ImageUndecodable),
        (pb.StreamFrame(raw=raw(2, 2, 11)), ImageUndecodable),
        (pb.StreamFrame(raw=raw(11, 10, 5)), ImageTooLarge),
    ],
    ids=["nothing", "not an image", "no width", "a byte too few", "too large"],
)
def test_an_image_that_cannot_be_read_fails_when_it_is_loaded(
    image: pb.StreamFrame, error: type[Exception]
) -> None:
    @virtual_time
    async def run() -> None:
        (frame,) = await frames([pb.StreamPosesRequest(frame=image)])
        with pytest.raises(error):
            frame.load(None)

    run()


@virtual_time
async def test_raw_pixels_are_taken_as_they_are() -> None:
    (frame,) = await frames(taken(None))
    assert np.array_equal(frame.load(None).pixels, np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
