"""What the bytes of a file say without a demuxer."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from service.media.container_probe import is_cut_short, is_ragged, still_image, streaming
from tests.media.cases import case
from tests.media.clips import clip, fast_start


def reader(content: bytes) -> Callable[[int, int], bytes]:
    return lambda count, position: content[position : position + count]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("photo_grid.avif", "AVIF"),
        ("turned.heic", "HEIC"),
        ("base.jpg", "JPEG"),
        ("grey16_12bit.png", "PNG"),
        ("v_base.mp4", None),
        ("v_trailing.gif", None),
        ("v_twice.ts", None),
        ("v_piped.avi", None),
    ],
)
def test_a_still_picture_is_recognised(name: str, kind: str | None) -> None:
    content = case(name)
    assert still_image(reader(content), len(content)) == kind


def test_pictures_behind_one_another_are_a_video() -> None:
    content = case("base.jpg") * 3
    assert still_image(reader(content), len(content)) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [("v_base.mp4", "whole file"), ("v_twice.ts", "front to back"), ("v_camera.m2ts", "front to back")],
)
def test_what_can_be_decoded_as_it_comes(name: str, expected: str) -> None:
    content = case(name)
    if name == "v_base.mp4" and content.index(b"moov") < content.index(b"mdat"):
        expected = "front to back"
    assert streaming(reader(content)) == expected
    assert streaming(reader(fast_start())) == "front to back"


@pytest.mark.parametrize(
    "name",
    ["v_base.mp4", "v_piped.avi", "v_trailing.gif", "v_twice.ts", "v_bframes_h264.avi", "v_ragged.ts"],
)
def test_no_file_that_is_whole_is_cut_short(name: str) -> None:
    content = case(name)
    assert not is_cut_short(reader(content), len(content))


@pytest.mark.parametrize("name", ["v_base.mp4", "v_trailing.gif", "v_bframes_h264.avi"])
def test_a_file_that_lacks_its_second_half_is_cut_short(name: str) -> None:
    content = case(name)[: len(case(name)) // 2]
    assert is_cut_short(reader(content), len(content))


def test_the_index_of_an_avi_may_be_missing() -> None:
    content = clip("avi", "mpeg4")
    content = content[: content.index(b"idx1") + 20]
    assert not is_cut_short(reader(content), len(content))


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF])
def test_an_avi_without_sizes_is_not_cut_short(size: int) -> None:
    content = bytearray(clip("avi", "mpeg4"))
    place = content.index(b"movi") - 4
    content[place : place + 4] = struct.pack("<I", size)
    assert not is_cut_short(reader(bytes(content[:-2000])), len(content) - 2000)


@pytest.mark.parametrize(
    ("name", "ragged"), [("v_ragged.ts", True), ("v_twice.ts", False), ("v_camera.m2ts", False)]
)
def test_a_transport_stream_may_end_within_a_packet(name: str, ragged: bool) -> None:
    content = case(name)
    assert is_ragged(reader(content), len(content)) is ragged


def test_the_trailer_of_a_gif_counts_only_where_its_blocks_end() -> None:
    content = case("v_trailing.gif").rstrip()
    assert not is_cut_short(reader(content + b"anything"), len(content) + 8)
    assert not is_cut_short(reader(content[:-1]), len(content) - 1)  # every image is there
    cut = content[:-2]  # within the last image
    assert is_cut_short(reader(cut), len(cut))
    cut = content[: content.rindex(b";", 0, -1) + 1]  # ends with a semicolon that belongs to a picture
    assert is_cut_short(reader(cut), len(cut))
