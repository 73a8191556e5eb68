"""Image or video, by the first bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cli.formats import kind_of, kind_of_bytes
from tests.media.clips import fast_start
from tests.pictures import encoded, plain

ROOT = Path(__file__).parents[2]
TS = b"".join(bytes([0x47]) + bytes(187) for _ in range(4))
M2TS = b"".join(bytes(4) + bytes([0x47]) + bytes(187) for _ in range(4))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_images_are_images(image_format: str) -> None:
    assert kind_of_bytes(encoded(plain((64, 48), (1, 2, 3)), image_format)) == "image"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", None),
        (b"\xff", None),
        (b"hello world, no image and no video", None),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "image"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "image"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "video"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "video"),
        (b"\0\0\0\x08wide", "video"),
        (b"\x1a\x45\xdf\xa3\x01", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"GIF89a", "video"),
        (b"OggS\0", "video"),
        (b"FLV\x01\x05", "video"),
        (b"\0\0\x01\xba\x44", "video"),
        (TS, "video"),
        (M2TS, "video"),
        (TS[:300], None),
        (b"BM is the beginning of a text", None),
    ],
)
def test_the_first_bytes_say_what_a_file_is(head: bytes, kind: str | None) -> None:
    assert kind_of_bytes(head) == kind


def test_files_are_read_no_further_than_their_head(tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    clip.write_bytes(fast_start())
    assert kind_of(clip) == "video"
    assert kind_of(ROOT / "tests" / "data" / "two_people.jpg") == "image"
    with pytest.raises(FileNotFoundError):
        kind_of(tmp_path / "none")
