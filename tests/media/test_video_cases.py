"""Video files of kinds that once went wrong, each against the plain `v_base.mp4`."""

from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import pairwise

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.video.stream import VideoStream

from service.core.geometry import Rgb8
from service.errors import DataLoss, VideoUndecodable
from service.media.frame_sampler import Sampling
from service.media.orientation import Orientation
from tests.media.cases import case
from tests.media.clips import clip
from tests.media.test_orientation import MATRICES, shown
from tests.media.test_video_reader import Read, read

BASE = read(case("v_base.mp4"))
FROM_20 = Sampling(start_s=0.8)


def difference(found: Read) -> float:
    """Largest mean difference of a frame from the one of the same number in the base, grey levels."""
    return max(
        float(np.abs(frame.image.astype(int) - BASE.frames[frame.index % 40].image).mean())
        for frame in found.frames
    )


@pytest.mark.parametrize("sampling", [Sampling(), FROM_20], ids=["whole", "from 0.8 s"])
@pytest.mark.parametrize(
    "name",
    [
        *(
            "v_hflip.mp4",
            "v_transpose.mp4",
            "v_raw25_gop10.h264",
            "v_sar4_3.mp4",
            "v_one_bad.mp4",
            "v_ragged.ts",
        ),
        *("v_piped.avi", "v_bframes_h264.avi", "v_camera.m2ts", "v_late_pictures.mp4", "v_base.mp4"),
    ],
)
def test_every_file_gives_the_frames_of_the_base(name: str, sampling: Sampling) -> None:
    found = read(case(name), sampling)
    assert found.error is None
    first = 20 if sampling.start_s else 0
    assert found.numbers == list(range(first, 40))
    assert found.times == pytest.approx([number / 25 for number in range(first, 40)])
    assert found.facts is not None
    assert found.facts.size_wh == (270, 480)
    assert difference(found) < 4


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(start_s=0.4)], ids=["whole", "from 0.4 s"])
def test_an_edit_list_counts_the_frames_that_are_shown(sampling: Sampling) -> None:
    found = read(case("v_editlist.mp4"), sampling)
    assert found.error is None
    first = 10 if sampling.start_s else 0
    assert found.numbers == list(range(first, 25))
    assert found.times == pytest.approx([number / 25 for number in range(first, 25)])
    assert found.facts is not None
    assert found.facts.frame_count == 25
    # The file begins with frame 15 of the base.
    assert np.abs(found.frames[-1].image.astype(int) - BASE.frames[39].image).mean() < 4


@pytest.mark.parametrize(
    "sampling", [Sampling(), FROM_20, Sampling(start_s=2.0)], ids=lambda one: one.start_s
)
def test_two_streams_behind_one_another_are_one_with_rising_times(sampling: Sampling) -> None:
    found = read(case("v_twice.ts"), sampling)
    assert found.error is None
    first = round(sampling.start_s * 25)
    assert found.numbers == list(range(first, 80))
    assert found.times == pytest.approx([number / 25 for number in range(first, 80)])
    assert difference(found) == 0
    assert found.damaged == 0
    assert found.gaps > 0


@pytest.mark.parametrize(
    ("name", "damaged", "gaps"),
    [
        ("v_one_bad.mp4", 1, 0),
        ("v_ragged.ts", 0, 1),
        ("v_piped.avi", 0, 0),
        ("v_trailing.gif", 0, 0),
        ("v_base.mp4", 0, 0),
    ],
)
def test_damage_is_counted_and_nothing_else(name: str, damaged: int, gaps: int) -> None:
    found = read(case(name))
    assert found.error is None
    assert (found.damaged, found.gaps) == (damaged, gaps)
    assert [frame.index for frame in found.frames if frame.damaged] == [14] * damaged


@pytest.mark.parametrize(("name", "frames"), [("v_one_bad.mp4", 14), ("v_ragged.ts", 40), ("v_twice.ts", 40)])
def test_strict_ends_at_the_first_damage_after_every_frame_before(name: str, frames: int) -> None:
    found = read(case(name), strict=True)
    assert type(found.error) is DataLoss
    assert found.numbers[: frames - 3] == list(range(frames - 3))
    assert max(found.numbers) < frames


@pytest.mark.parametrize(
    "name", ["v_base.mp4", "v_hflip.mp4", "v_piped.avi", "v_trailing.gif", "v_camera.m2ts"]
)
def test_strict_changes_nothing_in_a_good_file(name: str) -> None:
    strict, tolerant = read(case(name), strict=True), read(case(name))
    assert strict.error is None
    assert strict.times == tolerant.times


def test_bytes_behind_a_gif_are_no_damage() -> None:
    found = read(case("v_trailing.gif"))
    assert found.error is None
    assert found.numbers == list(range(10))


def test_a_gif_without_its_end_is_cut_short() -> None:
    content = case("v_trailing.gif").rstrip()
    found = read(content[: content.rindex(b"\0;")])
    assert type(found.error) is DataLoss
    assert len(found.frames) >= 9


def test_the_sizes_of_a_file_from_a_pipe_are_not_believed() -> None:
    facts = read(case("v_piped.avi")).facts
    assert facts is not None
    assert (facts.frame_count, facts.duration_s) == (None, None)


def test_times_count_from_the_first_picture_and_not_from_the_sound() -> None:
    found = read(case("v_late_pictures.mp4"))
    assert found.times[0] == 0
    assert found.facts is not None
    assert found.facts.begin_s == pytest.approx(1.0)
    assert BASE.facts is not None
    assert BASE.facts.begin_s == 0


def test_frames_have_square_pixels() -> None:
    found = read(case("v_sar4_3.mp4"))
    assert found.facts is not None
    assert float(found.facts.pixel_aspect) == pytest.approx(270 / 202, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "kind"), [("photo_grid.avif", "AVIF"), ("turned.heic", "HEIC"), ("base.jpg", "JPEG")]
)
def test_a_still_picture_is_refused_with_the_call_to_use(name: str, kind: str) -> None:
    found = read(case(name))
    assert type(found.error) is VideoUndecodable
    assert kind in found.error.message
    assert "DetectPoses" in found.error.message


def square(number: int) -> Rgb8:
    """A frame without any symmetry."""
    image = np.full((64, 96, 3), 60, np.uint8)
    image[:20, :30] = (200, 40, 40)
    image[-16:, :20] = (40, 40, 200)
    image[:12, -40:] = (20 + 3 * number, 200, 60)
    return image


def matrix_file(container: str, numbers: tuple[int, int, int, int]) -> bytes:
    a, b, c, d = (65536 * one for one in numbers)
    return clip(
        container,
        count=12,
        images=square,
        display_matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30],
        pix_fmt="yuv444p",
    )


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("container", ["mp4", "mov", "matroska"])
def test_all_eight_matrices_are_applied(container: str, name: str) -> None:
    numbers, orientation = MATRICES[name]
    found = read(matrix_file(container, numbers))
    stored = read(clip(container, count=12, images=square, pix_fmt="yuv444p"))
    assert found.error is None
    assert found.facts is not None
    assert Orientation(found.facts.rotation_deg, found.facts.mirrored) == orientation
    for frame, plain in zip(found.frames, stored.frames, strict=True):
        expected = shown(plain.image, *numbers)
        assert frame.image.shape == expected.shape
        assert np.abs(frame.image.astype(int) - expected).mean() < 3


@pytest.mark.parametrize(
    ("options", "orientation"),
    [
        ("display_orientation=insert:rotate=90", Orientation(270)),
        ("display_orientation=insert:flip=horizontal", Orientation(0, mirrored=True)),
        ("display_orientation=insert:flip=vertical", Orientation(180, mirrored=True)),
    ],
)
def test_the_orientation_in_the_codec_is_applied(options: str, orientation: Orientation) -> None:
    found = read(with_filter(clip("h264", count=12, images=square), f"h264_metadata={options}"))
    assert found.facts is not None
    assert Orientation(found.facts.rotation_deg, found.facts.mirrored) == orientation


def with_filter(content: bytes, description: str) -> bytes:
    """A raw H.264 stream behind one of FFmpeg's bit stream filters."""
    result = bytearray()
    with av.open(io.BytesIO(content), "r", format="h264") as source:
        stream = source.streams.video[0]
        assert isinstance(stream, VideoStream)
        bitstream = BitStreamFilterContext(description, stream)
        for packet in source.demux(stream):
            for filtered in bitstream.filter(packet if packet.size else None):
                result += bytes(filtered)
    return bytes(result)


@pytest.mark.parametrize("container", ["avi", "h264", "matroska", "mpegts", "mp4"])
@pytest.mark.parametrize("start_s", [0.0, 0.36, 0.4, 0.44, 1.0])
def test_b_frames_have_rising_times_in_every_container(container: str, start_s: float) -> None:
    content = clip(container, codec_options={"bf": "3", "b-pyramid": "normal", "b-adapt": "0"})
    found = read(content, Sampling(start_s=start_s))
    first = round(start_s * 25)
    assert found.error is None
    assert found.numbers == list(range(first, 40))
    assert found.times == pytest.approx([number / 25 for number in range(first, 40)], abs=0.002)


def test_a_stream_that_begins_within_a_group_of_pictures_counts_from_its_first_frame() -> None:
    content = clip("mpegts", gop=10)
    packet = 188
    cut = content[2 * packet :]  # the tables, which every decoder needs, come again later
    found = read(content[: 2 * packet] + cut[len(cut) // 8 // packet * packet :])
    assert found.error is None
    assert found.numbers == list(range(len(found.frames)))
    assert found.times[0] == 0
    assert 20 < len(found.frames) < 40


@pytest.mark.parametrize(
    ("size_wh", "aspect", "shown_wh"),
    [((96, 64), (4, 3), (128, 64)), ((96, 64), (3, 4), (96, 85)), ((96, 64), (1000, 1), (96, 64))],
    ids=["wide pixels", "tall pixels", "not believed"],
)
def test_pixels_become_square_without_loss(
    size_wh: tuple[int, int], aspect: tuple[int, int], shown_wh: tuple[int, int]
) -> None:
    found = read(clip("matroska", size_wh=size_wh, pixel_aspect=aspect, count=4))
    assert found.facts is not None
    assert found.facts.size_wh == shown_wh
    assert found.frames[0].image.shape == (shown_wh[1], shown_wh[0], 3)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_a_lost_packet_in_the_middle_costs_a_few_frames_only(container: str) -> None:
    options = {"cluster_time_limit": "500"} if container == "matroska" else {}
    content = bytearray(clip(container, count=100, options=options))
    middle = len(content) // 2 // 188 * 188
    if container == "mpegts":
        del content[middle : middle + 3 * 188]
    else:
        content[middle + 30 : middle + 120] = bytes(90)
    found = read(bytes(content))
    assert found.error is None
    assert len(found.frames) > 60
    assert found.times[-1] == pytest.approx(99 / 25, abs=0.1)
    assert all(earlier < later for earlier, later in pairwise(found.times))
    assert found.damaged + found.gaps > 0


def test_what_cannot_be_read_any_more_is_data_loss() -> None:
    content = bytearray(clip("matroska", count=100))
    middle = len(content) // 2
    content[middle:-100] = bytes(len(content) - 100 - middle)
    found = read(bytes(content))
    assert type(found.error) is DataLoss
    assert found.numbers == list(range(len(found.frames)))
    assert 20 < len(found.frames) < 80


def remuxed(content: bytes, container: str, options: dict[str, str] | None = None) -> bytes:
    """The video track in another container, not encoded again."""
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(content), "r") as source,
        av.open(file, "w", format=container, options=options or {}) as target,
    ):
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    return file.getvalue()


def with_lost_packets(content: bytes, numbers: Iterable[int], head: int = 0) -> bytes:
    """The file with all bytes of some packets, in decoding order, set to ff; but for `head` bytes of each."""
    damaged = bytearray(content)
    with av.open(io.BytesIO(content), "r") as source:
        packets = [(one.pos, one.size) for one in source.demux(video=0) if one.size]
    for number in numbers:
        start, size = packets[number]
        assert start is not None
        damaged[start + head : start + size] = b"\xff" * (size - head)
    return bytes(damaged)


def assert_damage_is_honest(found: Read, first: int) -> None:
    """Every frame of the base is given as it is, marked, or counted as lost; at its number and its time."""
    assert found.error is None
    assert found.numbers == sorted(set(found.numbers))
    assert found.times == [number / 25 for number in found.numbers]
    good = [frame for frame in found.frames if not frame.damaged]
    assert len(good) + found.damaged == 40 - first
    for frame in good:
        assert np.abs(frame.image.astype(int) - BASE.frames[frame.index].image).mean() < 1


@pytest.mark.parametrize("start_s", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("lost", "given"),
    [
        ([12], 27),
        ([24], 26),
        ([12, 24], 15),
        ([0], 28),
        ([0, 12], 16),
        ([5], 33),
        ([37], 37),
        ([38, 39], 38),
        ([36], 36),
    ],
    ids=str,
)
def test_lost_packets_cost_what_depends_on_them_and_nothing_is_invented(
    lost: list[int], given: int, threads: int, start_s: float
) -> None:
    found = read(with_lost_packets(case("v_base.mp4"), lost), Sampling(start_s=start_s), threads=threads)
    assert_damage_is_honest(found, round(start_s * 25))
    if not start_s:
        assert sum(not frame.damaged for frame in found.frames) == given


@pytest.mark.parametrize("lost", [[0], [12], [38, 39]], ids=str)
def test_lost_packets_are_counted_in_matroska_as_in_mp4(lost: list[int]) -> None:
    block_head = 4  # track, time and flags
    content = with_lost_packets(remuxed(case("v_base.mp4"), "matroska"), lost, block_head)
    assert_damage_is_honest(read(content), 0)


@pytest.mark.parametrize("what", ["size", "track"])
@pytest.mark.parametrize("number", [5, 20, 39])
def test_a_matroska_block_with_a_broken_head_is_a_gap_or_the_end(number: int, what: str) -> None:
    content = bytearray(remuxed(case("v_base.mp4"), "matroska"))
    with av.open(io.BytesIO(content), "r") as source:
        start = [one.pos for one in source.demux(video=0) if one.size][number]
    assert start is not None
    if what == "size":
        content[start - 3 : start] = bytes(3)
    else:
        content[start] = 0xFF
    found = read(bytes(content))
    last = 39
    assert found.times[:3] == [0, 0.04, 0.08]
    assert 25 < len(found.frames) < 40
    if number == last and what == "size":
        assert type(found.error) is DataLoss
    else:
        assert found.error is None
        assert found.gaps == 1
        strict = read(bytes(content), strict=True)
        assert type(strict.error) is DataLoss
        assert strict.times == found.times[: len(strict.times)]


@pytest.mark.parametrize(
    "options", [{}, {"live": "1"}, {"cluster_time_limit": "300"}], ids=["plain", "live", "clusters"]
)
@pytest.mark.parametrize("tail", [b"", b"\n", b"SEFH" * 10], ids=["whole", "newline", "phone"])
def test_a_whole_matroska_is_never_cut_short(options: dict[str, str], tail: bytes) -> None:
    times = [0, 0.1, 0.15, 0.9, 4, 4.1, 9.0]
    found = read(clip("matroska", options=options, times=times, sound=True) + tail)
    assert found.error is None
    assert found.times == pytest.approx(times, abs=0.002)
    assert found.gaps == bool(tail and "live" in options)  # a live file does not state its length


def test_without_presentation_times_nothing_is_placed_by_guess() -> None:
    found = read(with_lost_packets(case("v_bframes_h264.avi"), [24], 8))
    assert found.error is None
    assert found.numbers == list(range(len(found.frames)))
    assert 20 <= len(found.frames) < 24  # there is no other key frame
    assert len(found.frames) + found.damaged == 40
    assert difference(found) < 4
