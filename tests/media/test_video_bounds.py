"""Small videos whose structure would cost far more than their frames are refused, or not looked into."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from scripts.hostile_files import tracks, with_scans
from service.errors import VideoTooCostly, VideoUndecodable
from service.media.demuxer import Demuxer
from service.media.spool import Spool, SpoolSpace
from tests.media.clips import clip

MAX_PIXELS = 1_000_000
PROGRESSIVE = with_scans(10)


@contextmanager
def opened(content: bytes) -> Iterator[Demuxer]:
    spool = Spool(SpoolSpace(), len(content))
    spool.append(content)
    spool.finish()
    demuxer = None
    try:
        demuxer = Demuxer(spool, MAX_PIXELS)
        yield demuxer
    finally:
        if demuxer is not None:
            demuxer.close()
        spool.close()


def test_an_mp4_of_many_tracks_is_refused() -> None:
    with (
        pytest.raises(VideoTooCostly, match="one video track") as refused,
        opened(tracks("mp4", 40, PROGRESSIVE)),
    ):
        pass
    assert refused.value.reason == "VIDEO_TOO_COSTLY"


def test_of_the_tracks_of_a_matroska_file_the_first_ones_are_looked_into() -> None:
    with opened(tracks("matroska", 40, PROGRESSIVE)) as demuxer:
        assert demuxer.stream.index == 0
        assert len(demuxer.stream.container.streams) == 16
        assert sum(packet.size > 0 for packet in demuxer.packets()) == 3


@pytest.mark.parametrize("container", ["avi", "matroska"])
def test_a_frame_of_many_scans_is_refused_before_it_is_decoded(container: str) -> None:
    with (
        opened(tracks(container, 1, with_scans(200))) as demuxer,
        pytest.raises(VideoTooCostly, match="encode the video anew"),
    ):
        next(demuxer.packets())


def test_frames_of_progressive_jpeg_are_in_order() -> None:
    with opened(tracks("avi", 1, PROGRESSIVE)) as demuxer:
        assert sum(packet.size > 0 for packet in demuxer.packets()) == 3


def test_a_codec_that_is_not_accepted_is_refused() -> None:
    with pytest.raises(VideoUndecodable, match=r"codec.*H\.264"), opened(clip("avi", "asv1", count=3)):
        pass
