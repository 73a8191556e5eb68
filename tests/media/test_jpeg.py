"""JPEG files without their end marker, and JPEG files whose rows end early."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from service.errors import ImageUndecodable
from service.media.jpeg import decode_jpeg
from tests.media.cases import case

STORED: dict[str, dict[str, object]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_rows": 1},
    "4:2:0": {"subsampling": 2},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
}


def stored(name: str) -> bytes:
    """`base.jpg` encoded in another way."""
    options = dict(STORED[name])
    mode = str(options.pop("mode", "RGB"))
    file = io.BytesIO()
    with Image.open(io.BytesIO(case("base.jpg"))) as picture:
        picture.convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def test_a_picture_without_its_end_marker_is_the_whole_picture() -> None:
    assert np.array_equal(decode_jpeg(case("no_eoi.jpg")), decode_jpeg(case("base.jpg")))


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("missing", [1, 2], ids=["half a marker", "no marker"])
def test_every_way_of_storing_does_without_the_end_marker(name: str, missing: int) -> None:
    content = stored(name)
    assert np.array_equal(decode_jpeg(content[:-missing]), decode_jpeg(content))


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["cut", "cut, with an end marker"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_rows_that_end_early_are_refused_with_their_number(name: str, end: bytes, part: float) -> None:
    content = stored(name)
    with pytest.raises(ImageUndecodable, match="cut short") as refused:
        decode_jpeg(content[: int((len(content) - 2) * part)] + end)
    assert refused.value.metadata["height"] == "640"
    assert 0 <= int(refused.value.metadata["rows"]) < 640


def test_the_number_of_rows_follows_the_bytes_that_are_there() -> None:
    content = case("base.jpg")
    rows = []
    for part in (0.2, 0.5, 0.8):
        with pytest.raises(ImageUndecodable) as refused:
            decode_jpeg(content[: int(len(content) * part)])
        rows.append(int(refused.value.metadata["rows"]))
    assert rows == sorted(rows)
    assert rows[0] > 0
    assert rows[2] > 400


def test_a_progressive_picture_without_its_last_scans_is_refused() -> None:
    content = stored("progressive")
    last_scan = content.rindex(b"\xff\xda")
    with pytest.raises(ImageUndecodable, match="detail"):
        decode_jpeg(content[:last_scan])


def test_bytes_behind_the_end_do_not_matter() -> None:
    content = case("base.jpg")
    assert np.array_equal(decode_jpeg(content + b"SEFH" * 100), decode_jpeg(content))


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", case("base.jpg")[:300]], ids=len)
def test_a_head_alone_is_refused(content: bytes) -> None:
    with pytest.raises(ImageUndecodable):
        decode_jpeg(content)


def test_damage_in_the_middle_that_libjpeg_reports_is_refused() -> None:
    rng = random.Random(7)  # noqa: S311 - repeatable damage, not a secret
    reported = 0
    for _ in range(40):
        content = bytearray(case("base.jpg"))
        start = rng.randrange(len(content) // 4, len(content) - 200)
        content[start : start + 50] = rng.randbytes(50)
        try:
            simplejpeg.decode_jpeg(bytes(content))
        except ValueError:
            reported += 1
            with pytest.raises(ImageUndecodable, match=r"[Ss]end the"):
                decode_jpeg(bytes(content))
    assert reported > 10


@pytest.mark.parametrize("name", STORED)
def test_padding_before_the_end_marker_is_harmless(name: str) -> None:
    content = stored(name)
    assert np.array_equal(decode_jpeg(content[:-2] + bytes(300) + content[-2:]), decode_jpeg(content))
