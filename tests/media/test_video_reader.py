from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from service.errors import DataLoss, PosegateError, VideoTooLarge, VideoTooLong, VideoUndecodable
from service.media.frame_sampler import Sampling
from service.media.spool import Spool, SpoolClosed, SpoolSpace
from service.media.video_reader import VideoFacts, VideoFrame, VideoLimits, VideoReader
from tests.media.clips import clip, fast_start, grey, picture, sound_only
from tests.media.damage import damaged

LIMITS = VideoLimits(max_bytes=1 << 30, max_pixels=4_000_000, max_seconds=600, max_frames=5000)


@dataclass
class Read:
    """What a reader gave."""

    facts: VideoFacts | None = None
    frames: list[VideoFrame] = field(default_factory=list)
    error: Exception | None = None
    damaged: int = 0
    gaps: int = 0

    @property
    def numbers(self) -> list[int]:
        return [frame.index for frame in self.frames]

    @property
    def times(self) -> list[float]:
        return [frame.time_s for frame in self.frames]


def read(
    content: bytes,
    sampling: Sampling | None = None,
    limits: VideoLimits = LIMITS,
    *,
    strict: bool = False,
    threads: int = 1,
) -> Read:
    spool = Spool(SpoolSpace(), limits.max_bytes)
    spool.append(content)
    spool.finish()
    reader = VideoReader(spool, sampling or Sampling(), limits, threads, strict=strict)
    found = Read()
    try:
        found.facts = reader.open()
        while (frame := reader.next_frame()) is not None:
            found.frames.append(frame)
    except PosegateError as error:
        found.error = error
    finally:
        found.damaged, found.gaps = reader.frames_damaged, reader.gaps
        reader.close()
        spool.close()
    return found


QUIET = {"x265-params": "log-level=none"}
MAKERS: dict[str, Callable[[], bytes]] = {
    "MP4": clip,
    "MP4, index in front": fast_start,
    "MP4 with sound": lambda: clip(sound=True),
    "MP4 in fragments": lambda: clip(options={"movflags": "frag_keyframe+empty_moov"}),
    "MOV": lambda: clip("mov"),
    "MKV": lambda: clip("matroska"),
    "WebM": lambda: clip("webm", "libvpx-vp9"),
    "MPEG-TS": lambda: clip("mpegts"),
    "AVI": lambda: clip("avi", "mpeg4"),
    "AVI, Motion JPEG": lambda: clip("avi", "mjpeg", pix_fmt="yuvj420p"),
    "FLV": lambda: clip("flv", "flv"),
    "ASF": lambda: clip("asf", "msmpeg4"),
    "H.265, 10 bits": lambda: clip("mp4", "libx265", pix_fmt="yuv420p10le", codec_options=QUIET),
    "H.264, 4:4:4": lambda: clip(pix_fmt="yuv444p"),
    "GIF": lambda: clip("gif", "gif", pix_fmt="rgb8"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_container_gives_every_frame_upright_in_rgb_with_its_time(name: str) -> None:
    found = read(MAKERS[name]())
    assert found.error is None
    assert found.numbers == list(range(40))
    assert found.times == pytest.approx([number / 25 for number in range(40)], abs=0.002)
    for frame in (found.frames[0], found.frames[17], found.frames[39]):
        expected = picture(frame.index)
        assert frame.image.shape == expected.shape
        tolerance = {"GIF": 40, "ASF": 20}.get(name, 6)  # 256 colours; a codec of 1999
        assert abs(grey(frame.image) - grey(expected)) < tolerance
        red, green, blue = (int(part) for part in frame.image[4, 4])
        assert red > 180
        assert max(green, blue) < 80


@pytest.mark.parametrize("name", MAKERS)
def test_a_later_start_gives_the_same_frames_with_the_same_numbers(name: str) -> None:
    content = MAKERS[name]()
    whole, part = read(content), read(content, Sampling(start_s=0.9, end_s=1.3))
    assert part.error is None
    assert part.gaps == 0
    assert part.numbers == list(range(23, 33))
    for frame in part.frames:
        assert np.array_equal(frame.image, whole.frames[frame.index].image)


def test_a_start_is_reached_without_decoding_all_that_comes_before() -> None:
    content = clip(count=1000, gop=25, size_wh=(640, 480))
    started = time.process_time()
    whole = read(content)
    all_s = time.process_time() - started
    started = time.process_time()
    part = read(content, Sampling(start_s=39.0))
    assert time.process_time() - started < all_s / 5
    assert part.numbers == whole.numbers[975:]


@pytest.mark.parametrize(("turn", "clockwise"), [(0, 0), (-90, 90), (180, 180), (90, 270)])
def test_the_display_matrix_is_applied(turn: int, clockwise: int) -> None:
    found = read(clip(rotation_deg=turn))
    assert found.facts is not None
    assert found.facts.rotation_deg == clockwise
    turned = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    expected = read(clip()).frames[3].image
    if clockwise:
        expected = cv2.rotate(expected, turned[clockwise])  # type: ignore[assignment]
    assert np.array_equal(found.frames[3].image, expected)
    assert found.facts.size_wh == (expected.shape[1], expected.shape[0])


def test_full_range_is_read_as_full_range() -> None:
    tv, full = read(clip()).frames[20].image, read(clip(full_range=True)).frames[20].image
    # The same samples, said to be of another range: 16…235 stands for less contrast.
    assert grey(full) == pytest.approx(16 + grey(tv) * 219 / 255, abs=3)


def test_times_of_a_variable_frame_rate_are_kept() -> None:
    times = [0.0, 0.1, 0.15, 0.4, 1.0, 1.01]
    assert read(clip(times=times)).times == pytest.approx(times, abs=0.002)


def test_negative_times_start_at_zero() -> None:
    found = read(clip("matroska", times=[number / 25 - 0.5 for number in range(20)]))
    assert found.times == pytest.approx([number / 25 for number in range(20)], abs=0.002)


@pytest.mark.parametrize(
    ("sampling", "numbers"),
    [
        (Sampling(every_nth=1), list(range(40))),
        (Sampling(every_nth=7), list(range(0, 40, 7))),
        (Sampling(every_nth=100), [0]),
        (Sampling(every_nth=2, start_s=0.2, end_s=0.4), [5, 7, 9]),
        (Sampling(target_fps=25), list(range(40))),
        (Sampling(target_fps=240), list(range(40))),
        (Sampling(target_fps=5), list(range(0, 40, 5))),
        (Sampling(target_fps=1), [0, 25]),
        (Sampling(start_s=99), []),
        (Sampling(end_s=0.001), [0]),
    ],
)
def test_sampling(sampling: Sampling, numbers: list[int]) -> None:
    found = read(fast_start(), sampling)
    assert found.error is None
    assert found.numbers == numbers


def test_the_beat_takes_the_nearest_frame_of_an_uneven_source() -> None:
    found = read(clip(times=[0.0, 0.03, 0.48, 0.52, 0.9, 1.04, 1.5]), Sampling(target_fps=2))
    assert found.times[0] == 0.0
    assert len(found.times) == 4
    assert max(abs(time_s - beat) for time_s, beat in zip(found.times, (0, 0.5, 1, 1.5), strict=True)) < 0.11


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"no video" * 1000,
        sound_only(),
        clip()[:700],
        cv2.imencode(".png", picture(0))[1].tobytes(),
    ],
    ids=["empty", "a byte", "text", "sound only", "a head", "a picture"],
)
def test_what_is_no_video_is_undecodable(content: bytes) -> None:
    found = read(content)
    assert type(found.error) is VideoUndecodable
    assert not found.frames


@pytest.mark.parametrize("container", ["fast", "frag", "matroska", "avi"])
def test_a_truncated_file_gives_what_is_there_and_then_says_so(container: str) -> None:
    content = {
        "fast": lambda: fast_start(count=200),
        "frag": lambda: clip(count=200, options={"movflags": "frag_keyframe+empty_moov"}),
        "matroska": lambda: clip("matroska", count=200),
        "avi": lambda: clip("avi", "mpeg4", count=200),
    }[container]()
    found = read(content[: len(content) * 2 // 3])
    assert type(found.error) is DataLoss
    assert 20 < len(found.frames) < 200
    assert found.numbers == list(range(len(found.frames)))


def test_damage_in_the_middle_is_stepped_over_and_counted() -> None:
    content = bytearray(clip("matroska", count=200, gop=5))
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(300)
    found = read(bytes(content))
    assert found.error is None
    assert 100 < len(found.frames) < 200
    assert found.times[-1] == pytest.approx(199 / 25)
    whole = sum(not frame.damaged for frame in found.frames)
    assert (whole + found.damaged, found.gaps) == (200, 1)


def test_tiny_and_odd_frames_are_read() -> None:
    for size_wh in ((2, 2), (18, 34)):
        found = read(clip(size_wh=size_wh, count=3))
        assert found.error is None
        assert found.frames[0].image.shape == (size_wh[1], size_wh[0], 3)
    one = read(clip("avi", "ffv1", size_wh=(1, 1), pix_fmt="bgr0", count=3))
    assert one.error is None
    assert one.frames[2].image.shape == (1, 1, 3)


def test_giant_frames_are_refused_before_they_are_decoded() -> None:
    content = clip("avi", "mjpeg", pix_fmt="yuvj420p", size_wh=(16_384, 8_192), count=1)
    before = psutil.Process().memory_info().rss
    found = read(content)
    assert type(found.error) in (VideoTooLarge, VideoUndecodable)
    assert psutil.Process().memory_info().rss < before + 64e6


def test_too_many_pixels_are_told_with_both_numbers() -> None:
    found = read(clip(size_wh=(4096, 2048), count=1))
    assert type(found.error) is VideoTooLarge
    assert found.error.metadata == {"limit_pixels": "4000000", "actual_pixels": str(4096 * 2048)}


@pytest.mark.parametrize(
    ("size_wh", "inner"),
    [((192, 128), (slice(0, 64), slice(0, 96))), ((64, 128), (slice(0, 64), slice(32, 64)))],
    ids=["same shape", "another shape"],
)
def test_a_size_that_changes_in_the_middle_is_fitted_into_the_first(
    size_wh: tuple[int, int], inner: tuple[slice, slice]
) -> None:
    found = read(clip("h264", count=20) + clip("h264", count=20, size_wh=size_wh))
    assert {frame.image.shape for frame in found.frames} == {(64, 96, 3)}
    assert len(found.frames) >= 35
    last = found.frames[-1].image
    alone = cv2.resize(
        read(clip("h264", count=20, size_wh=size_wh)).frames[-1].image,
        (inner[1].stop - inner[1].start, 64),
        interpolation=cv2.INTER_AREA,
    )
    assert np.abs(last[inner].astype(int) - alone).mean() < 6
    outside = np.ones((64, 96), bool)
    outside[inner] = False
    assert not last[outside].any()


def patched(content: bytes, box: bytes, at: int, value: bytes) -> bytes:
    """An MP4 with some bytes of a box changed, counted from its name."""
    start = content.index(box) + 4 + at
    return content[:start] + value + content[start + len(value) :]


def test_wrong_durations_in_the_container_do_no_harm() -> None:
    none = read(patched(patched(fast_start(), b"mvhd", 16, bytes(4)), b"tkhd", 20, bytes(4)))
    assert none.error is None
    assert none.numbers == list(range(40))
    long = read(patched(fast_start(), b"mdhd", 16, (1 << 30).to_bytes(4, "big")))
    assert isinstance(long.error, VideoTooLong) or long.numbers == list(range(40))


@pytest.mark.parametrize("limits", [VideoLimits(1 << 30, 4_000_000, 1.0, 5000)])
def test_what_is_too_long_is_refused_before_it_is_decoded(limits: VideoLimits) -> None:
    found = read(fast_start(), limits=limits)
    assert type(found.error) is VideoTooLong
    assert not found.frames
    assert read(fast_start(), Sampling(start_s=0.7), limits).error is None
    assert read(fast_start(), Sampling(end_s=0.9), limits).error is None


def test_frames_come_while_the_file_still_grows() -> None:
    content = fast_start(count=100)
    spool = Spool(SpoolSpace(), 1 << 30)
    spool.append(content[: len(content) * 3 // 4])
    reader = VideoReader(spool, Sampling(), LIMITS)
    reader.open()
    numbers = [frame.index for _ in range(20) if (frame := reader.next_frame()) is not None]
    assert numbers == list(range(20))

    def rest() -> None:
        spool.append(content[len(content) * 3 // 4 :])
        spool.finish()

    threading.Timer(0.1, rest).start()
    while (frame := reader.next_frame()) is not None:
        numbers.append(frame.index)
    assert numbers == list(range(100))
    reader.close()
    spool.close()


def test_a_reader_that_waits_for_bytes_can_be_stopped() -> None:
    content = fast_start(count=100)
    spool = Spool(SpoolSpace(), 1 << 30)
    spool.append(content[: len(content) // 2])
    reader = VideoReader(spool, Sampling(), LIMITS)
    reader.open()
    threading.Timer(0.2, spool.close).start()

    def go_on() -> None:
        while reader.next_frame() is not None:
            pass

    with pytest.raises(SpoolClosed):
        go_on()
    reader.close()


def test_no_other_file_is_opened(tmp_path: Path) -> None:
    # A FIFO tells whether anybody opened it: a writer that does not wait finds no reader.
    secret = tmp_path / "secret"
    os.mkfifo(secret)
    name = str(secret).encode()
    files: list[bytes] = [
        b"#EXTM3U\n#EXTINF:1,\n" + name + b"\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile " + name + b"\n",
        b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n",
    ]
    opened: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                opened.append(os.open(secret, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                done.wait(0.001)
            else:
                return

    watching = threading.Thread(target=watch)
    watching.start()
    errors = [type(read(content).error) for content in files]
    done.set()
    watching.join()
    for descriptor in opened:
        os.close(descriptor)
    assert opened == []
    assert set(errors) == {VideoUndecodable}


def seeds() -> list[bytes]:
    return [maker() for name, maker in MAKERS.items() if name not in ("GIF", "AVI, Motion JPEG", "MOV")]


def test_five_hundred_damaged_containers_do_no_harm() -> None:
    process = psutil.Process()
    read(clip())
    before = process.memory_info().rss
    outcomes: dict[str, int] = {}
    for number, content in enumerate(damaged(seeds(), 500, seed=20_251_121)):
        started = time.process_time()
        found = read(content, Sampling(start_s=0.5) if number % 5 == 0 else None)
        assert time.process_time() - started < 10
        assert found.times == sorted(found.times)
        name = type(found.error).__name__
        outcomes[name] = outcomes.get(name, 0) + 1
    allowed = {"NoneType", "VideoUndecodable", "DataLoss", "VideoTooLong", "VideoTooLarge", "VideoTooCostly"}
    assert set(outcomes) <= allowed
    assert min(outcomes[name] for name in ("NoneType", "VideoUndecodable", "DataLoss")) > 50
    assert process.memory_info().rss < before + 150e6


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("gif", "gif", {"pix_fmt": "rgb8"}),
        ("asf", "mpeg4", {}),
        ("mp4", "libx264", {"options": {"movflags": "faststart"}}),
        ("matroska", "libx264", {}),
        ("avi", "mpeg4", {}),
    ],
)
def test_a_file_that_stops_in_the_middle_is_told_from_a_whole_one(
    container: str, codec: str, options: dict[str, Any]
) -> None:
    content = clip(container, codec, count=60, **options)
    cut = read(content[: len(content) * 2 // 3 + 1])
    assert read(content).error is None
    assert isinstance(cut.error, DataLoss)
    assert 0 < len(cut.frames) < 60


@pytest.mark.parametrize(
    "tail", [b"\0" * 100, b"\xff" * 64, b"SEFH" + b"\x6b\0\0\0" * 5 + b"SEFT"], ids=["zeros", "ones", "phone"]
)
def test_what_stands_behind_the_last_box_is_no_damage(tail: bytes) -> None:
    found = read(fast_start() + tail)
    assert found.error is None
    assert len(found.frames) == 40
