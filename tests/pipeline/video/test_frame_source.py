from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import DataLoss, DeadlineExceeded, InvalidRequest, PosegateError, VideoTooLarge
from service.media.frame_sampler import Sampling
from service.media.spool import Spool, SpoolClosed, SpoolSpace
from service.media.video_reader import VideoLimits, VideoReader
from service.pipeline.video.frame_source import FrameSource, UploadLimits
from service.pipeline.video.threads import RunThreads
from tests.fakes import until
from tests.media.clips import clip
from tests.pipeline.video.fakes import FACTS, FakeReader, grey
from tests.virtual_time import InlineExecutor, now, virtual_time

LIMITS = UploadLimits(idle_s=10.0, max_upload_s=60.0)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    one = Spool(SpoolSpace(tmp_path), 100)
    yield one
    one.close()


async def sent(*chunks: bytes, pause_s: float = 0.0, error: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(pause_s)
        yield chunk
    if error is not None:
        raise error


def source_of(spool: Spool, reader: FakeReader | None = None) -> FrameSource:
    """A source without threads, on the clock of the running loop."""
    return FrameSource(spool, reader or FakeReader(spool), RunThreads(InlineExecutor()), LIMITS, now)


async def numbers(source: FrameSource) -> Sequence[int]:
    found = []
    while (index := await source.next(lambda frame: frame.index)) is not None:
        found.append(index)
    return found


@virtual_time
async def test_the_upload_is_spooled_to_its_end(spool: Spool) -> None:
    source = source_of(spool)
    await source.receive(sent(b"one", b"two"))
    assert (source.bytes_received, source.upload_complete) == (6, True)
    assert spool.read_all(6, 0) == b"onetwo"


@virtual_time
async def test_all_frames_are_fitted_in_order(spool: Spool) -> None:
    source = source_of(spool)
    await source.receive(sent(bytes(10)))
    assert await source.open() == FACTS
    image = await source.next(lambda frame: frame.image)
    assert image is not None
    assert (image == grey(0)).all()
    assert await numbers(source) == list(range(1, 10))


@virtual_time
@pytest.mark.parametrize(
    ("size", "contended", "ends_at"), [(9, True, 20.0), (11, True, 30.0), (9, False, 30.0)]
)
async def test_a_slow_upload_is_ended_while_others_wait_for_its_place(
    spool: Spool, size: int, contended: bool, ends_at: float
) -> None:
    limits = UploadLimits(idle_s=10.0, max_upload_s=600.0, min_bytes_per_s=2.0)
    threads = RunThreads(InlineExecutor())
    source = FrameSource(spool, FakeReader(spool), threads, limits, now, contended=lambda: contended)
    await source.receive(sent(*[bytes(size)] * 6, pause_s=5.0))
    assert now() == ends_at
    assert source.upload_complete == (ends_at == 30.0)


@virtual_time
async def test_a_pause_of_the_upload_is_an_error_of_the_decoder(spool: Spool) -> None:
    source = source_of(spool)
    await source.receive(sent(b"a", b"b", pause_s=11.0))
    assert now() == 10.0
    with pytest.raises(DeadlineExceeded) as failed:
        await source.open()
    assert (failed.value.reason, failed.value.metadata) == ("UPLOAD_IDLE", {"limit_seconds": "10"})


@virtual_time
async def test_an_upload_that_takes_for_ever_is_given_up(spool: Spool) -> None:
    source = source_of(spool)
    await source.receive(sent(*[b"a"] * 99, pause_s=9.0))
    assert now() == 60.0
    with pytest.raises(DeadlineExceeded) as failed:
        await source.open()
    assert (failed.value.reason, failed.value.metadata) == ("UPLOAD_TOO_SLOW", {"limit_seconds": "60"})


@virtual_time
async def test_an_error_of_the_caller_reaches_the_decoder_as_it_is(spool: Spool) -> None:
    source = source_of(spool)
    await source.receive(sent(b"a", error=InvalidRequest("config twice")))
    with pytest.raises(InvalidRequest, match="config twice"):
        await source.open()


@virtual_time
async def test_an_internal_error_of_the_upload_is_logged_and_not_sent(
    spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    source = source_of(spool)
    await source.receive(sent(b"a", error=RuntimeError("secret")))
    with pytest.raises(PosegateError) as failed:
        await source.open()
    assert failed.value.message == "internal error"
    assert "secret" in capsys.readouterr().out


@virtual_time
async def test_an_upload_that_is_too_large_fails_with_both_numbers(spool: Spool) -> None:
    source = source_of(spool)
    await source.receive(sent(bytes(60), bytes(60)))
    with pytest.raises(VideoTooLarge) as failed:
        await source.open()
    assert failed.value.metadata == {"limit_bytes": "100", "actual_bytes": "120"}


@virtual_time
async def test_damage_comes_after_the_frames_before_it(spool: Spool) -> None:
    source = source_of(spool, FakeReader(spool, errors={3: DataLoss("damaged")}))
    await source.receive(sent(bytes(10)))
    await source.open()
    assert [await source.next(lambda frame: frame.index) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataLoss):
        await source.next(lambda frame: frame.index)


async def test_frames_come_while_the_upload_goes_on(spool: Spool) -> None:
    rest = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(4)
        await rest.wait()
        yield bytes(6)

    with ThreadPoolExecutor(2) as executor:
        source = FrameSource(spool, FakeReader(spool), RunThreads(executor), LIMITS)
        upload = asyncio.create_task(source.receive(chunks()))
        await source.open()
        found = [await source.next(lambda frame: frame.index) for _ in range(4)]
        assert not source.upload_complete
        rest.set()
        found += await numbers(source)
        await upload
    assert found == list(range(10))


async def test_an_interrupt_wakes_a_thread_that_waits_for_bytes(spool: Spool) -> None:
    with ThreadPoolExecutor(1) as executor:
        threads = RunThreads(executor)
        source = FrameSource(spool, FakeReader(spool), threads, LIMITS)
        opening = asyncio.create_task(source.open())
        await until(lambda: bool(threads._busy))
        source.interrupt()
        with pytest.raises(SpoolClosed):
            await opening
        await threads.idle()


async def test_a_call_whose_caller_was_cancelled_keeps_the_threads_busy(spool: Spool) -> None:
    with ThreadPoolExecutor(1) as executor:
        threads = RunThreads(executor)
        reader = FakeReader(spool)
        reader.gate.clear()
        source = FrameSource(spool, reader, threads, LIMITS)
        spool.append(bytes(10))
        step = asyncio.create_task(source.next(lambda frame: frame.index))
        await asyncio.to_thread(reader.entered.wait, 10)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        idle = asyncio.create_task(threads.idle())
        done, _ = await asyncio.wait([idle], timeout=0.01)
        assert not done
        reader.gate.set()
        await idle
        source.interrupt()
        source.close()
    assert (reader.closed, reader.closed_inside) == (1, False)


async def test_an_interrupt_stops_a_decoder_that_passes_over_frames(tmp_path: Path) -> None:
    # A real decoder: of 1400 frames only the first is sampled.
    content = clip("matroska", "mpeg4", count=1400, size_wh=(320, 240))
    spool = Spool(SpoolSpace(tmp_path), len(content))
    limits = VideoLimits(max_bytes=len(content), max_pixels=1_000_000, max_seconds=60, max_frames=2000)
    reader = VideoReader(spool, Sampling(every_nth=100_000), limits)
    with ThreadPoolExecutor(1) as executor:
        threads = RunThreads(executor)
        source = FrameSource(spool, reader, threads, LIMITS)
        await source.receive(sent(content))
        await source.open()
        assert await source.next(lambda frame: frame.index) == 0
        step = asyncio.create_task(source.next(lambda frame: frame.index))
        await until(lambda: reader.frames_seen > 5)
        source.interrupt()
        with pytest.raises(SpoolClosed):
            await step
        await threads.idle()
        source.close()
    assert reader.frames_seen < 1400
