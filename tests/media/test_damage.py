"""One damaged place in a file of each container: what is lost is counted, and nothing else is changed."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import cache, partial

import av
import numpy as np
import pytest

from service.errors import DataLoss
from service.media.container_probe import Read as ReadBytes
from service.media.frame_sampler import Sampling
from service.media.walks.asf import AsfWalk
from service.media.walks.avi import AviWalk
from service.media.walks.flv import FlvWalk
from service.media.walks.fragments import FragmentWalk
from service.media.walks.matroska import MatroskaWalk
from service.media.walks.mpeg_ps import ProgramStreamWalk
from service.media.walks.mxf import MxfWalk
from service.media.walks.ogg import OggWalk
from service.media.walks.walk import Walk
from tests.media.cases import case
from tests.media.clips import clip
from tests.media.damage import damaged
from tests.media.test_video_cases import remuxed
from tests.media.test_video_reader import Read, read

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
MOVABLE = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
FILES: dict[str, Callable[[], bytes]] = {
    "FLV": lambda: remuxed(case("v_base.mp4"), "flv"),
    "FLV with sound": lambda: clip("flv", sound=True),
    "FLV without a length": lambda: clip("flv", options={"flvflags": "no_duration_filesize"}),
    "MP4 in fragments": lambda: clip("mp4", options=FRAGMENTS),
    "MP4 in fragments with sound": lambda: clip("mp4", options=FRAGMENTS, sound=True),
    "MP4 in fragments and an index": lambda: clip("mp4", options={"movflags": "frag_keyframe"}),
    "MP4 in fragments that may move": lambda: clip("mp4", options=MOVABLE, sound=True),
    "CMAF, a frame each": lambda: clip("mp4", options={"movflags": "frag_every_frame+empty_moov+cmaf"}),
    "AVI": lambda: clip("avi", "mpeg4"),
    "AVI with sound": lambda: clip("avi", "mpeg4", sound=True),
    "AVI from a pipe": lambda: case("v_piped.avi"),
    "ASF": lambda: clip("asf", "msmpeg4", size_wh=(640, 480)),
    "Ogg": lambda: clip("ogg", "libvpx", codec_options={"deadline": "realtime"}),
    "MPEG-PS": lambda: clip("mpeg", "mpeg2video"),
    "MXF": lambda: clip("mxf", "mpeg2video"),
    "MXF in one piece": lambda: clip("mxf_opatom", "mpeg2video"),
    "MKV": lambda: remuxed(case("v_base.mp4"), "matroska"),
    "MPEG-TS": lambda: remuxed(case("v_base.mp4"), "mpegts"),
}


@cache
def whole(name: str) -> bytes:
    """The file without damage."""
    return FILES[name]()


@cache
def places(name: str) -> list[int]:
    """Of the packets, as FFmpeg states them."""
    with av.open(io.BytesIO(whole(name)), "r") as file:
        return [packet.pos or 0 for packet in file.demux(video=0) if packet.size]


def overwritten(content: bytes, start: int, new: bytes) -> bytes:
    """The file with other bytes from a place on."""
    return content[:start] + new + content[start + len(new) :]


def is_told(found: Read) -> bool:
    """Whether a result that lacks frames says so."""
    return type(found.error) is DataLoss or found.gaps + found.damaged > 0


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_has_no_gap(name: str) -> None:
    found = read(whole(name), strict=True)
    assert found.error is None
    assert (found.numbers, found.gaps, found.damaged) == (list(range(40)), 0, 0)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("back", [16, 8, 4, 0])
def test_a_damaged_head_in_the_middle_is_counted_or_ends_the_video(name: str, back: int) -> None:
    start = places(name)[16] - back
    found = read(overwritten(whole(name), start, b"\xff" * 11))
    assert found.error is None or type(found.error) is DataLoss
    assert is_told(found) or len(found.frames) == 40
    assert found.numbers[:10] == list(range(10))


def boxes(content: bytes, kind: bytes) -> list[int]:
    """Where boxes of that kind start."""
    found, at = [], 0
    while at < len(content):
        if content[at + 4 : at + 8] == kind:
            found.append(at)
        at += int(struct.unpack_from(">I", content, at)[0])
    return found


@pytest.mark.parametrize(
    ("at", "new"),
    [
        (8, b"\xff" * 32),
        (4, b"xxxx"),
        (4, b"\xff\xff\xff\xff"),
        (0, bytes(4)),
        (0, b"\0\0\0\x08"),
        (0, b"\x7f\0\0\0"),
        (28, b"xxxx"),
        (36, b"\0\xff\xff\xff"),
    ],
    ids=["content", "kind", "kind that is no text", "no size", "short", "long", "no traf", "tfhd"],
)
def test_a_damaged_fragment_is_counted_or_ends_the_video(at: int, new: bytes) -> None:
    content = whole("MP4 in fragments")
    third = boxes(content, b"moof")[2]
    found = read(overwritten(content, third + at, new))
    assert is_told(found)
    assert found.numbers[:19] == list(range(19))
    last = boxes(content, b"moof")[-1]
    assert is_told(read(overwritten(content, last + at, new)))


@pytest.mark.parametrize("kind", [b"styp", b"sidx", b"emsg", b"prft", b"free", b"uuid", b"abcd"])
def test_other_boxes_between_fragments_are_no_damage(kind: bytes) -> None:
    content = whole("MP4 in fragments that may move")
    for start in reversed(boxes(content, b"moof")):
        content = content[:start] + struct.pack(">I", 40) + kind + bytes(32) + content[start:]
    found = read(content)
    assert (found.error, found.gaps, found.numbers) == (None, 0, list(range(40)))


@pytest.mark.parametrize(
    "tail", [b"\n", b"\0\0\0\x40SEFH" + bytes(20), bytes(5000)], ids=["newline", "phone", "zeros"]
)
def test_bytes_behind_the_last_fragment_are_no_damage(tail: bytes) -> None:
    found = read(whole("MP4 in fragments") + tail)
    assert (found.error, found.gaps, found.numbers) == (None, 0, list(range(40)))


@pytest.mark.parametrize("strict", [False, True])
def test_an_index_behind_asf_data_of_no_stated_length_is_no_damage(strict: bool) -> None:
    content = whole("ASF")
    data = content.index(bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"))
    found = read(overwritten(content, data + 16, bytes(8)), strict=strict)
    assert (found.error, found.gaps, found.numbers) == (None, 0, list(range(40)))


def test_bytes_before_the_first_partition_of_an_mxf_are_no_damage() -> None:
    found = read(bytes(100) + whole("MXF"), strict=True)
    assert (found.error, found.gaps, found.numbers) == (None, 0, list(range(40)))


@pytest.mark.parametrize("threads", [1, 2])
def test_open_groups_of_pictures_are_no_damage_behind_a_start(threads: int) -> None:
    content = clip(
        "mp4",
        count=75,
        gop=15,
        options={"movflags": "faststart"},
        codec_options={"x264-params": "open-gop=1:bframes=3:b-pyramid=normal:ref=4:scenecut=0:b-adapt=0"},
    )
    found = read(content, Sampling(start_s=1.5), strict=True, threads=threads)
    assert (found.error, found.gaps, found.damaged) == (None, 0, 0)
    assert found.numbers == list(range(38, 75))


def data_first(content: bytes) -> bytes:
    """The file with every fragment behind its media data, as GStreamer writes one that it finalises later."""
    whole, fragment, at = b"", b"", 0
    while at < len(content):
        box = content[at : at + int.from_bytes(content[at : at + 4], "big")]
        at += len(box)
        if box[4:8] == b"moof":
            fragment = box
        elif box[4:8] == b"mdat" and fragment:
            run = fragment.index(b"trun")
            whole += box + overwritten(fragment, run + 12, struct.pack(">i", 8 - len(box)))
            fragment = b""
        elif box[4:8] == b"ftyp":
            whole += box + struct.pack(">I", 8) + b"mdat"  # the index is not in front of all media data
        elif box[4:8] != b"mfra":
            whole += box
    return whole


@pytest.mark.parametrize("strict", [False, True])
def test_fragments_behind_their_media_data_are_no_damage(strict: bool) -> None:
    content = clip("mp4", count=60, options=MOVABLE)
    found = read(data_first(content), strict=strict)
    assert (found.error, found.gaps, found.numbers) == (None, 0, list(range(60)))


def _box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I", 8 + sum(map(len, content))) + kind + b"".join(content)


def test_a_fragment_of_billions_of_samples_is_not_entered() -> None:
    runs = _box(b"trun", struct.pack(">II", 0, 1 << 20)) * 1000
    header = _box(b"tfhd", struct.pack(">III", 0x20002, 1, 2))
    index = _box(b"moov", _box(b"mvex", _box(b"trex", struct.pack(">6I", 0, 1, 1, 1, 100, 0))))
    content = index + _box(b"moof", _box(b"traf", header, runs)) + _box(b"mdat", bytes(100))
    walk = FragmentWalk(lambda count, position: content[position : position + count], 1)
    assert not walk.reach(len(content) - 50)


@pytest.mark.parametrize("name", ["MP4 in fragments", "FLV", "AVI"])
def test_a_file_that_ends_in_the_middle_is_cut_short(name: str) -> None:
    found = read(whole(name)[: places(name)[25] + 20])
    assert type(found.error) is DataLoss
    assert 20 <= len(found.frames) <= 26


@pytest.mark.parametrize("number", [15, 39])
@pytest.mark.parametrize("new", [b"xxdc", b"\xff\xff\xff\xff", b"07dc"])
def test_an_avi_chunk_of_a_damaged_kind_is_counted(number: int, new: bytes) -> None:
    for name in ("AVI", "AVI with sound", "AVI from a pipe"):
        found = read(overwritten(whole(name), places(name)[number] - 8, new))
        assert len(found.frames) < 40
        assert is_told(found)


def test_empty_avi_chunks_and_those_of_other_kinds_are_no_damage() -> None:
    content = whole("AVI from a pipe")
    start = places("AVI from a pipe")[15] - 8
    for chunk in (b"00dc\0\0\0\0", b"JUNK\x03\0\0\0abc\0", b"ix00\x04\0\0\0abcd", b"00tx\x04\0\0\0abcd"):
        found = read(content[:start] + chunk + content[start:])
        assert found.error is None
        assert (len(found.frames), found.gaps) == (40, 0)


@pytest.mark.parametrize("back", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_an_flv_without_sizes_behind_its_tags_is_damaged_only_where_frames_are_lost(back: bytes) -> None:
    content = whole("FLV")
    found = read(overwritten(content, places("FLV")[16] - 4, back))
    assert found.error is None
    assert (len(found.frames) < 40) == (found.gaps > 0)


@pytest.mark.parametrize("start_s", [0.0, 1.2], ids=["whole", "from 1.2 s"])
@pytest.mark.parametrize(
    "name", ["FLV", "MKV", "AVI", "AVI with sound", "ASF", "MP4 in fragments that may move"]
)
def test_frames_behind_a_gap_have_their_numbers_and_times(name: str, start_s: float) -> None:
    content = whole(name)
    if name.startswith("MP4"):
        broken = overwritten(content, boxes(content, b"moof")[1] + 4, b"xxxx")
    else:
        at, new = {"AVI": (-8, b"\xff" * 4), "FLV": (3, b"\x20")}.get(name[:3], (0, b"\xff" * 4))
        broken = overwritten(content, places(name)[16] + at, new)
    before, found = read(content), read(broken, Sampling(start_s=start_s))
    by_number = {frame.index: frame for frame in before.frames}
    assert found.error is None
    assert found.numbers[-1] == 39
    for frame in found.frames:
        assert frame.time_s == pytest.approx(by_number[frame.index].time_s, abs=0.002)
        if not frame.damaged:
            assert np.abs(frame.image.astype(int) - by_number[frame.index].image).mean() < 1
    if not start_s:
        assert sum(not frame.damaged for frame in found.frames) + found.damaged == 40
        assert found.gaps == 1


def test_a_video_that_breaks_off_between_reordered_frames_numbers_the_last_one_right() -> None:
    content = case("v_base.mp4")
    fragments = remuxed(content, "mp4", {"movflags": "frag_every_frame+empty_moov+default_base_moof"})
    found = read(fragments[: boxes(fragments, b"moof")[6] + 10])
    assert type(found.error) is DataLoss
    assert found.times == pytest.approx([number / 25 for number in found.numbers])
    assert found.numbers != list(range(len(found.numbers)))


WALKS: dict[str, Callable[[ReadBytes], Walk]] = {
    "FLV": FlvWalk,
    "MP4 in fragments": lambda read: FragmentWalk(read, 1),
    "AVI": lambda read: AviWalk(read, 1, frozenset()),
    "ASF": lambda read: AsfWalk(read, 1, frozenset((1,))),
    "Ogg": OggWalk,
    "MPEG-PS": ProgramStreamWalk,
    "MXF": MxfWalk,
    "MKV": MatroskaWalk,
}


def part(content: bytes, count: int, at: int) -> bytes:
    """So many bytes from a place on."""
    return content[at : at + count]


@pytest.mark.parametrize("name", WALKS)
def test_no_bytes_break_a_walk(name: str) -> None:
    for content in damaged([whole(name)], 60, seed=3):
        walk = WALKS[name](partial(part, content))
        found = [walk.reach(place) for place in places(name) if place < len(content)]
        assert set(found) <= {True, False}
        assert walk.rest(len(content)) in ("whole", "ragged", "lost")
