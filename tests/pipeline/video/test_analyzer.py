from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.angles import AngleOptions
from service.core.drawing.poses import OverlayStyle
from service.core.model import PoseModel
from service.core.poses import Floats
from service.core.skeleton.mapping import plan_mapping
from service.errors import DataLoss, Overloaded, PosegateError, Unavailable, Unimplemented, VideoUndecodable
from service.media.frame_sampler import Sampling
from service.media.spool import SpoolSpace
from service.media.video_reader import VideoLimits
from service.media.video_writer import NoEncoder
from service.pipeline.estimator import DetectionOptions, Estimator
from service.pipeline.limits import Limits
from service.pipeline.sequence_analyzer import SequenceConfig
from service.pipeline.stream_limiter import StreamLimiter
from service.pipeline.video.analyzer import VideoAnalyzer
from service.pipeline.video.events import AnnotatedChunk, Event, FrameDone, Progress, Started, Summary
from service.pipeline.video.request import VideoRequest
from service.settings import Settings
from service.skeletons import shipped
from tests.fakes import MODEL, FakeTritonClient, candidate, rows, until
from tests.pipeline.video.fakes import FACTS, SIZE_WH, MakeFakeReader, MakeFakeWriter

E = TypeVar("E", bound=Event)

COCO = shipped()["coco_17"]
WHOLE = Sampling()
WHO = rows(candidate((200, 100, 440, 500), 0.9))
LIMITS = VideoLimits(max_bytes=1000, max_pixels=1_000_000, max_seconds=60, max_frames=1000)


@dataclass(eq=False)
class Desk:
    """A VideoAnalyzer with peers of everything around it."""

    analyzer: VideoAnalyzer
    triton: FakeTritonClient
    limiter: StreamLimiter
    readers: MakeFakeReader
    writers: MakeFakeWriter

    def run(
        self,
        chunks: AsyncIterator[bytes] | None = None,
        *,
        annotated: bool = False,
        sampling: Sampling = WHOLE,
        strict: bool = False,
    ) -> AsyncGenerator[Event, None]:
        request = VideoRequest(
            model=PoseModel(MODEL, None, COCO),
            options=DetectionOptions(min_score=0.25, iou_threshold=0.7, max_persons=10),
            sampling=sampling,
            sequence=SequenceConfig(
                plan=plan_mapping(COCO, COCO),
                track=True,
                smooth=False,
                measurements=(),
                side="both",
                angles=AngleOptions(),
                prominent_only=False,
            ),
            overlay=OverlayStyle() if annotated else None,
            strict=strict,
        )
        return self.analyzer.analyze(chunks or upload(), request)


MakeDesk = Callable[..., Desk]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[MakeDesk]:
    with ThreadPoolExecutor(6) as executor:

        def make(
            *,
            readers: MakeFakeReader | None = None,
            writers: MakeFakeWriter | None = None,
            max_memory_bytes: int = 1 << 30,
            **changes: Any,
        ) -> Desk:
            triton, limiter = FakeTritonClient(), StreamLimiter(4, max_memory_bytes)
            triton.answer = WHO
            limits = replace(
                Limits.of(Settings()),
                **{
                    "video": LIMITS,
                    "video_look_ahead": 4,
                    "video_look_ahead_bytes": 64 << 20,
                    "video_decode_threads": 3,
                    "video_encode_threads": 2,
                    "video_encoder": "libx264",
                    "stream_idle_s": 10.0,
                    "max_upload_s": 60.0,
                    "request_timeout_s": 10.0,
                    **changes,
                },
            )
            made = readers or MakeFakeReader(), writers or MakeFakeWriter()
            estimator = Estimator(triton, executor, 16)
            analyzer = VideoAnalyzer(
                estimator,
                executor,
                limiter,
                limits,
                SpoolSpace(tmp_path),
                make_reader=made[0],
                make_writer=made[1],
            )
            return Desk(analyzer, triton, limiter, *made)

        yield make


async def upload(count: int = 10) -> AsyncIterator[bytes]:
    """A byte for every frame."""
    for _ in range(count):
        yield b"x"


async def paused(count: int = 5) -> AsyncIterator[bytes]:
    """An upload that stops in the middle and stays open."""
    yield bytes(count)
    await asyncio.Event().wait()


async def told(events: AsyncGenerator[Event, None]) -> tuple[list[Event], Exception | None]:
    """All events, and the error that ended them."""
    found = []
    async with asyncio.timeout(60):
        try:
            async for event in events:
                found.append(event)  # noqa: PERF401 - those before the error are kept
        except Exception as error:
            return found, error
    return found, None


async def started(events: AsyncGenerator[Event, None]) -> None:
    """Wait for the start; progress is told before it where the machine takes longer than a second."""
    while not isinstance(event := await anext(events), Started):
        assert isinstance(event, Progress)


def only(events: list[Event], kind: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


async def test_frames_come_in_order_between_the_start_and_the_summary(desk: MakeDesk) -> None:
    one = desk()
    events, error = await told(one.run())
    assert error is None
    assert next(event for event in events if not isinstance(event, Progress)) == Started(FACTS)
    frames = only(events, FrameDone)
    assert [frame.source.index for frame in frames] == list(range(10))
    assert [frame.source.time_s for frame in frames] == pytest.approx([number / 25 for number in range(10)])
    assert all(frame.analysis.track_ids == (1,) for frame in frames)
    assert all(frame.timings.decode_ms > 0 and frame.total_ms > 0 for frame in frames)
    *_, last_progress, summary = events
    assert isinstance(last_progress, Progress)
    assert (last_progress.percent, last_progress.frame, last_progress.bytes_received) == (100.0, 10, 10)
    assert isinstance(summary, Summary)
    assert (summary.total_frames, summary.frames_analyzed, summary.frames_with_persons) == (10, 10, 10)
    assert (summary.persons_tracked, summary.size_wh) == (1, SIZE_WH)
    assert summary.fps == pytest.approx(25)
    assert one.readers.arguments == [(WHOLE, LIMITS, 3)]


async def test_frames_without_persons_are_counted_and_not_dropped(desk: MakeDesk) -> None:
    one = desk()
    one.triton.answer = lambda image: rows() if image[240, 320, 0] > 30 else WHO  # grey level of frame 4
    events, _ = await told(one.run())
    (summary,) = only(events, Summary)
    assert (summary.frames_analyzed, summary.frames_with_persons) == (10, 5)
    assert [len(frame.analysis.poses) for frame in only(events, FrameDone)] == [1] * 5 + [0] * 5


async def test_a_slow_frame_does_not_change_the_order(desk: MakeDesk) -> None:
    one = desk(video_look_ahead=10)
    release = asyncio.Event()
    infer = one.triton.infer

    async def first_is_last(*args: Any, **kwargs: Any) -> Any:
        if not args[1]["images"][0, 240, 320, 0] > 10:
            await release.wait()
        answer = await infer(*args, **kwargs)
        if len(one.triton.calls) == 9:
            release.set()
        return answer

    one.triton.infer = first_is_last  # type: ignore[method-assign]
    events, error = await told(one.run())
    assert error is None
    assert [frame.source.index for frame in only(events, FrameDone)] == list(range(10))


@pytest.mark.parametrize(
    ("look_ahead", "look_ahead_frames", "in_flight"), [(1, 99, 1), (4, 99, 4), (8, 3, 3), (8, 0, 1)]
)
async def test_only_so_many_frames_are_decoded_ahead(
    desk: MakeDesk, look_ahead: int, look_ahead_frames: int, in_flight: int
) -> None:
    frame_bytes = 3 * 640 * 640  # the largest input of the model
    one = desk(video_look_ahead=look_ahead, video_look_ahead_bytes=look_ahead_frames * frame_bytes)
    one.triton.gate.clear()
    async with aclosing(one.run()) as events:
        await started(events)
        await until(lambda: one.triton.under_way == in_flight)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.wait([waiting], timeout=0.05)
        assert one.readers.only.frames_seen == one.triton.under_way == in_flight
        one.triton.gate.set()
        await waiting


async def test_the_annotated_video_is_cut_into_chunks_of_a_megabyte(desk: MakeDesk) -> None:
    one = desk(writers=MakeFakeWriter(bytes_per_frame=(1 << 20) + 5))
    events, error = await told(one.run(annotated=True, sampling=Sampling(every_nth=2)))
    assert error is None
    chunks = [chunk.content for chunk in only(events, AnnotatedChunk)]
    assert [len(chunk) for chunk in chunks] == [1 << 20, 5] * 10 + [3]
    assert b"".join(chunks) == b"".join(bytes([n]) * ((1 << 20) + 5) for n in range(1, 11)) + b"end"
    (writer,) = one.writers.made
    assert (writer.size_wh, writer.fps) == (SIZE_WH, 12.5)
    assert one.writers.encoders == [("libx264", 2)]
    assert [time_s for _, time_s in writer.added] == pytest.approx([number / 25 for number in range(10)])
    assert writer.closed == 1


async def test_without_an_encoder_nothing_reaches_the_model(desk: MakeDesk) -> None:
    one = desk(writers=MakeFakeWriter(NoEncoder("h264_nvenc")))
    events, error = await told(one.run(annotated=True))
    assert isinstance(error, Unimplemented)
    assert error.reason == "NO_ENCODER"
    assert not only(events, Started)
    assert one.triton.calls == []
    assert one.readers.only.closed == 1


@pytest.mark.parametrize("annotated", [False, True], ids=["plain", "annotated"])
@pytest.mark.parametrize("outcome", ["ok", "damaged", "no video", "model error", "left", "drained"])
async def test_however_an_analysis_ends_everything_is_closed_and_no_task_is_left(
    desk: MakeDesk, outcome: str, annotated: bool
) -> None:
    errors: dict[str, dict[int, Exception]] = {
        "damaged": {5: DataLoss("damaged")},
        "no video": {-1: VideoUndecodable("no video")},
    }
    one = desk(readers=MakeFakeReader(errors=errors.get(outcome)))
    before = asyncio.all_tasks()
    if outcome == "model error":
        one.triton.script = [PosegateError("broken")]
    if outcome in ("left", "drained"):
        events = one.run(paused(), annotated=annotated)
        async for event in events:
            if isinstance(event, FrameDone):
                break
        if outcome == "left":
            await events.aclose()
        else:
            one.limiter.end()
            found, error = await told(events)
            assert isinstance(found[-1], Progress)
            assert isinstance(error, Unavailable)
            assert error.reason == "DRAINING"
    else:
        found, error = await told(one.run(annotated=annotated))
        assert (error is None) == (outcome == "ok")
        assert (isinstance(found[-1], Summary) if found else False) == (outcome == "ok")
    reader = one.readers.only
    assert (reader.closed, reader.closed_inside) == (1, False)
    assert all(writer.closed == 1 for writer in one.writers.made)
    assert len(one.writers.made) == (annotated and outcome != "no video")
    assert asyncio.all_tasks() == before
    with one.limiter.holding(1 << 30):  # all memory was given back
        pass


async def test_leaving_waits_for_the_thread_that_decodes(desk: MakeDesk) -> None:
    readers = MakeFakeReader()
    readers.hold = True
    one = desk(readers=readers)
    events = one.run()
    await started(events)
    reader = readers.only
    await asyncio.to_thread(reader.entered.wait, 10)
    closing = asyncio.ensure_future(events.aclose())
    done, _ = await asyncio.wait([closing], timeout=0.05)
    assert not done
    assert reader.closed == 0
    reader.gate.set()
    await closing
    assert (reader.closed, reader.closed_inside) == (1, False)


async def test_damage_comes_after_the_frames_before_it(desk: MakeDesk) -> None:
    one = desk(readers=MakeFakeReader(errors={6: DataLoss("damaged")}))
    events, error = await told(one.run())
    assert isinstance(error, DataLoss)
    assert [frame.source.index for frame in only(events, FrameDone)] == list(range(6))
    assert not only(events, Summary)


async def test_a_model_error_ends_the_analysis_while_the_upload_still_waits(desk: MakeDesk) -> None:
    one = desk()
    one.triton.script = [PosegateError("broken")]
    _, error = await told(one.run(paused()))
    assert error is not None
    assert str(error) == "broken"


async def test_a_model_that_is_busy_or_away_for_a_moment_is_called_again(desk: MakeDesk) -> None:
    one = desk()
    one.triton.script = [Overloaded("full", retry_after_s=0.01), Unavailable("away", retry_after_s=0.01)]
    events, error = await told(one.run())
    assert error is None
    assert len(only(events, FrameDone)) == 10
    assert len(one.triton.calls) == 12


async def test_a_model_that_stays_away_ends_the_analysis_with_its_error(desk: MakeDesk) -> None:
    one = desk(request_timeout_s=2.0)
    one.triton.answer = Unavailable("away", retry_after_s=0.5)
    _, error = await told(one.run())
    assert isinstance(error, Unavailable)
    assert str(error) == "away"


async def test_memory_is_reserved_for_the_decoder_and_the_frames_ahead(desk: MakeDesk) -> None:
    # 4 frames of 640 × 640 × 3 bytes and the decoder.
    needed = 4 * 640 * 640 * 3 + 1000
    one = desk(readers=MakeFakeReader(decoder_bytes=1000), max_memory_bytes=needed + 10)
    with one.limiter.holding(11):
        events, error = await told(one.run())
        assert isinstance(error, Overloaded)
        assert error.metadata["actual_bytes"] == str(needed + 11)
        assert not only(events, Started)
    with one.limiter.holding(10):
        assert (await told(one.run()))[1] is None


async def test_a_caller_who_takes_nothing_stops_the_decoding(desk: MakeDesk) -> None:
    one = desk(readers=MakeFakeReader(count=100), video_look_ahead=2)
    async with aclosing(one.run(upload(100))) as events:
        await started(events)
        await until(lambda: one.readers.only.frames_seen > 1)
        seen = -1
        while seen != one.readers.only.frames_seen:
            seen = one.readers.only.frames_seen
            await asyncio.sleep(0.05)
        # Two events in the queue, one that waits to be put, and the window.
        assert 2 <= seen <= 2 + 1 + 2
        rest, error = await told(events)
    assert error is None
    assert len(only(rest, FrameDone)) == 100


async def test_looking_ahead_changes_nothing_in_the_results(desk: MakeDesk) -> None:
    def by_brightness(image: NDArray[np.uint8]) -> Floats:
        left = float(image[240, 320, 0])
        return rows(candidate((left, 100, left + 200, 500), 0.9))

    found = []
    for look_ahead in (1, 8):
        one = desk(video_look_ahead=look_ahead)
        one.triton.answer = by_brightness
        events, _ = await told(one.run())
        found.append([frame.analysis.poses.boxes_xyxy.tolist() for frame in only(events, FrameDone)])
    assert found[0] == found[1]
    assert len({str(boxes) for boxes in found[0]}) == 10


@pytest.mark.parametrize("size_wh", [(1920, 1080), (1083, 1920)], ids=["landscape", "portrait"])
async def test_large_frames_are_reduced_in_the_decoder_unless_they_are_drawn_on(
    desk: MakeDesk, size_wh: tuple[int, int]
) -> None:
    seen = []
    for annotated in (False, True):
        made = desk(readers=MakeFakeReader(2, size_wh=size_wh))
        frames = only([event async for event in made.run(upload(2), annotated=annotated)], FrameDone)
        assert (made.readers.only.reduced_wh is None) == annotated
        seen.append(
            (
                [call.inputs["images"] for call in made.triton.calls],
                [frame.analysis.poses.keypoints for frame in frames],
                [frame.analysis.poses.boxes_xyxy for frame in frames],
            )
        )
    for reduced, whole in zip(*seen, strict=True):
        np.testing.assert_allclose(reduced, whole, atol=1e-3)


async def test_small_frames_are_given_as_they_are(desk: MakeDesk) -> None:
    made = desk()
    assert [event async for event in made.run()]
    assert made.readers.only.reduced_wh is None


async def test_damaged_frames_are_analysed_marked_and_counted(desk: MakeDesk) -> None:
    made = desk(readers=MakeFakeReader(damaged=frozenset({3, 7})))
    events = [event async for event in made.run()]
    frames = [event for event in events if isinstance(event, FrameDone)]
    assert [frame.source.index for frame in frames if frame.source.damaged] == [3, 7]
    assert len(frames) == 10
    final, summary = events[-2:]
    assert isinstance(final, Progress)
    assert isinstance(summary, Summary)
    assert (final.frames_damaged, final.gaps) == (2, 2)
    assert (summary.frames_damaged, summary.gaps) == (2, 2)


@pytest.mark.parametrize("strict", [True, False])
async def test_the_reader_knows_whether_damage_ends_the_analysis(desk: MakeDesk, strict: bool) -> None:
    made = desk()
    async for _ in made.run(strict=strict):
        pass
    assert made.readers.strict == [strict]
