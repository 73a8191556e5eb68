"""Videos decoded in processes: the same frames as in a thread, and an end for those that cost too much."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from service.core.geometry import letterbox
from service.errors import DataLoss, DeadlineExceeded, PosegateError, VideoTooCostly, VideoUndecodable
from service.media.frame_sampler import Sampling
from service.media.isolation.processes import DecoderHost
from service.media.isolation.videos import IsolatedVideoReader
from service.media.spool import Spool, SpoolClosed, SpoolSpace
from service.media.video_reader import VideoFacts, VideoFrame, VideoLimits, VideoReader
from tests.media.cases import CASES
from tests.media.clips import clip, fast_start
from tests.media.isolation.test_images import children, only_child, until_gone

LIMITS = VideoLimits(max_bytes=1 << 30, max_pixels=4_000_000, max_seconds=600, max_frames=5000)
VIDEOS = sorted(path.name for path in CASES.iterdir() if path.name.startswith("v_"))

Reader = VideoReader | IsolatedVideoReader


@pytest.fixture(scope="module")
def host() -> Iterator[DecoderHost]:
    host = DecoderHost()
    yield host
    host.close()


@contextmanager
def spooled(content: bytes, *, whole: bool = True) -> Iterator[Spool]:
    spool = Spool(SpoolSpace(), LIMITS.max_bytes)
    spool.append(content)
    if whole:
        spool.finish()
    try:
        yield spool
    finally:
        spool.close()


Found = tuple[VideoFacts | None, list[VideoFrame], object, tuple[object, ...]]


def read(make: Callable[[Spool], Reader], content: bytes) -> Found:
    facts, frames, failed = None, [], None
    with spooled(content) as spool:
        reader = make(spool)
        try:
            facts = reader.open()
            while (frame := reader.next_frame()) is not None:
                frames.append(frame)
        except PosegateError as error:
            failed = type(error), error.message, error.metadata
        counters = (
            reader.frames_seen,
            reader.frames_damaged,
            reader.gaps,
            reader.first_time_s,
            reader.last_time_s,
            reader.bytes_decoded,
            reader.decoder_bytes() if facts else 0,
        )
        reader.close()
    return facts, frames, failed, counters


def assert_alike(
    host: DecoderHost, content: bytes, sampling: Sampling | None = None, *, strict: bool = False
) -> Found:
    chosen = sampling or Sampling()
    expected = read(lambda spool: VideoReader(spool, chosen, LIMITS, strict=strict), content)
    found = read(lambda spool: IsolatedVideoReader(host, spool, chosen, LIMITS, strict=strict), content)
    assert found[0] == expected[0]
    assert found[2:] == expected[2:]
    assert len(found[1]) == len(expected[1])
    for one, other in zip(found[1], expected[1], strict=True):
        assert (one.index, one.time_s, one.damaged) == (other.index, other.time_s, other.damaged)
        assert np.array_equal(one.image, other.image)
    return found


@pytest.mark.parametrize("name", VIDEOS)
def test_a_process_gives_the_same_frames_and_counters_as_a_thread(host: DecoderHost, name: str) -> None:
    assert_alike(host, (CASES / name).read_bytes())


def test_a_process_reduces_frames_as_the_letterbox_would(host: DecoderHost) -> None:
    content = clip(count=4, size_wh=(320, 180))
    with spooled(content) as spool, spooled(content) as other:
        whole = VideoReader(spool, Sampling(), LIMITS)
        reduced = IsolatedVideoReader(host, other, Sampling(), LIMITS)
        assert whole.open() == reduced.open()
        reduced.reduce_to((64, 36))
        for _ in range(4):
            frame, small = whole.next_frame(), reduced.next_frame()
            assert frame is not None
            assert small is not None
            boxed, _ = letterbox(frame.image, (36, 64))
            np.testing.assert_array_equal(small.image, boxed)
        whole.close()
        reduced.close()


def test_start_rate_and_strictness_are_those_of_the_request(host: DecoderHost) -> None:
    found = assert_alike(host, clip(), Sampling(start_s=0.9, end_s=1.3, target_fps=10.0))
    assert 0 < len(found[1]) < 10
    found = assert_alike(host, clip()[:3000], strict=True)
    assert found[2] is not None


@pytest.mark.parametrize("content", [b"", b"words", clip("mpegts")[:400]], ids=["empty", "words", "cut"])
def test_a_process_refuses_in_the_same_words_as_a_thread(host: DecoderHost, content: bytes) -> None:
    found = assert_alike(host, content)
    assert isinstance(found[2], tuple)
    assert found[2][0] in (VideoUndecodable, DataLoss)


def test_a_video_that_is_still_being_uploaded_is_read_to_its_end(host: DecoderHost) -> None:
    content = fast_start()
    with spooled(content[:100], whole=False) as spool:

        def upload() -> None:
            for start in range(100, len(content), 1000):
                spool.append(content[start : start + 1000])
            spool.finish()

        uploading = threading.Timer(0.1, upload)
        uploading.start()
        reader = IsolatedVideoReader(host, spool, Sampling(), LIMITS)
        assert reader.open().codec == "h264"
        numbers = []
        while (frame := reader.next_frame()) is not None:
            numbers.append(frame.index)
        uploading.join()
        reader.close()
    assert numbers == list(range(40))


def test_the_error_of_the_upload_is_that_of_the_reader(host: DecoderHost) -> None:
    with spooled(b"\x1a\x45\xdf\xa3", whole=False) as spool:
        reader = IsolatedVideoReader(host, spool, Sampling(), LIMITS)
        spool.fail(DeadlineExceeded("late"))
        with pytest.raises(DeadlineExceeded, match="late"):
            reader.open()
        reader.close()


def test_giving_up_the_spool_ends_a_process_that_is_at_work(host: DecoderHost) -> None:
    with spooled(clip(), whole=True) as spool:
        reader = IsolatedVideoReader(host, spool, Sampling(), LIMITS)
        reader.open()
        pid = only_child()
        os.kill(pid, signal.SIGSTOP)  # as good as a decoder that is busy for long
        threading.Timer(0.1, spool.close).start()
        with pytest.raises(SpoolClosed):
            reader.next_frame()
        until_gone(children())
        assert children() == []


def test_a_process_that_is_ended_costs_its_caller_one_error(host: DecoderHost) -> None:
    with spooled(clip()) as spool, spooled(clip()) as neighbour:
        reader = IsolatedVideoReader(host, spool, Sampling(), LIMITS)
        other = IsolatedVideoReader(host, neighbour, Sampling(), LIMITS)
        reader.open()
        pid = only_child()
        other.open()
        os.kill(pid, signal.SIGXCPU)  # what the kernel sends when the CPU time is used up
        with pytest.raises(VideoTooCostly, match="encode it anew"):
            reader.next_frame()
        assert other.next_frame() is not None
        reader.close()
        other.close()


def test_a_video_cannot_take_more_memory_than_it_may(
    host: DecoderHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.media.isolation.videos._BASE_BYTES", 1 << 20)
    monkeypatch.setattr("service.media.isolation.videos._BYTES_PER_PIXEL", 1)
    with spooled(clip(count=3, size_wh=(1920, 1080))) as spool:
        reader = IsolatedVideoReader(host, spool, Sampling(), LIMITS)
        with pytest.raises((VideoTooCostly, VideoUndecodable)):
            reader.open()
        reader.close()
    until_gone(children())
    assert children() == []
