"""Small files whose structure would cost far more than their pixels are refused before they are decoded."""

import struct
import time
import zlib

import pytest
from PIL import Image

from scripts.hostile_files import giant_tile, tiff, with_scans
from service.errors import ImageTooCostly, ImageUndecodable, InvalidRequest
from service.media.image import ImageLimits, decode
from service.media.image_bounds import MAX_SCANS, check_head, check_structure
from tests.media.cases import case
from tests.pictures import encoded, noise, plain

LIMITS = ImageLimits(max_bytes=25_000_000, max_pixels=50_000_000)
SMALL = plain((64, 64))


def jpeg(*, progressive: bool = False) -> bytes:
    return encoded(noise((64, 64)), "JPEG", progressive=progressive)


def heif(items: int, *, padding: int = 0, meta: bytes = b"meta") -> bytes:
    """The head of a HEIC with so many items."""
    entries = b"".join(struct.pack(">I4s", 8, b"infe") for _ in range(items)) + bytes(padding)
    return (
        struct.pack(">I4s4s4x", 16, b"ftyp", b"heic") + struct.pack(">I4s", 8 + len(entries), meta) + entries
    )


def before_scan(inserted: bytes) -> bytes:
    return jpeg()[:2] + inserted + jpeg()[2:]


def png(kind: bytes, data: bytes, count: int) -> bytes:
    """A PNG with chunks before its pixels."""
    content = encoded(SMALL, "PNG")
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    place = content.index(b"IDAT") - 4
    return content[:place] + chunk * count + content[place:]


@pytest.mark.parametrize(
    ("content", "change"),
    [
        pytest.param(with_scans(MAX_SCANS + 1), "baseline", id="scans"),
        pytest.param(heif(1001), "fewer tiles", id="items"),
        pytest.param(heif(1, padding=1 << 20), "anew", id="metadata of a HEIC"),
        pytest.param(before_scan(b"\xff\xfe\0\2" * 100_000), "without metadata", id="comments"),
        pytest.param(before_scan(b"\xff\xd8" * 100_000), "without metadata", id="markers without length"),
        pytest.param(png(b"abCd", b"", 100_000), "without metadata", id="chunks"),
        pytest.param(
            png(b"iCCP", b"a\0\0" + zlib.compress(bytes(2_000_000)), 1), "without metadata", id="profile"
        ),
        pytest.param(giant_tile(), "tiles", id="tile"),
        pytest.param(tiff({322: (1, 30_000), 323: (1, 30_000)}, ">"), "tiles", id="tile, big-endian"),
        pytest.param(tiff({322: (1, 30_000), 323: (1, 30_000)}, "<", big=True), "tiles", id="tile, BigTIFF"),
        pytest.param(tiff({273: (1_000_000, 200)}), "anew", id="strips"),
        pytest.param(tiff({322: (1, 64), 323: (1, 64), 324: (1_000_000, 200)}), "anew", id="tiles"),
    ],
)
def test_more_structure_than_pixels_is_refused_with_what_to_change(content: bytes, change: str) -> None:
    before = time.process_time()
    with pytest.raises(ImageTooCostly, match=change) as refused:
        decode(content, LIMITS)
    assert time.process_time() - before < 1  # CPU time: each took several seconds unbounded
    assert refused.value.reason == "IMAGE_TOO_COSTLY"


@pytest.mark.parametrize("filler", [b"\xff", b"\0", b"\xff\0"], ids=["fill bytes", "zeros", "stuffed bytes"])
def test_a_million_bytes_between_segments_are_refused_at_once(filler: bytes) -> None:
    before = time.process_time()
    with pytest.raises(ImageUndecodable):
        decode(before_scan(filler * 1_000_000), LIMITS)
    assert time.process_time() - before < 1


def test_a_damaged_jpeg_of_a_million_segments_is_not_walked_to_its_end() -> None:
    content = jpeg()
    with pytest.raises(InvalidRequest, match="segments"):
        decode(content[:-400] + b"\xff\xfe\0\2" * 1_000_000, LIMITS)


def test_the_larger_the_image_for_its_limit_the_fewer_scans_it_may_have() -> None:
    check_structure(with_scans(50), 5 * 64 * 64)
    with pytest.raises(ImageTooCostly, match="20 scans"):
        check_structure(with_scans(50), 64 * 64)


def test_scans_behind_a_false_end_within_a_segment_count() -> None:
    content = with_scans(MAX_SCANS + 1)
    place = content.index(b"\xff\xda", content.index(b"\xff\xda") + 2)
    with pytest.raises(ImageTooCostly):
        decode(content[:place] + b"\xff\xfe\0\4\xff\xd9" + content[place:], LIMITS)


def test_scans_of_a_second_image_in_the_file_do_not_count() -> None:
    assert decode(jpeg() + with_scans(2 * MAX_SCANS), LIMITS).shape == (64, 64, 3)
    assert decode(jpeg(progressive=True) + with_scans(2 * MAX_SCANS), LIMITS).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("content", "streams"),
    [
        (jpeg(), True),
        (case("base.jpg"), True),
        (jpeg(progressive=True), False),
        (encoded(Image.fromarray(SMALL).convert("L"), "JPEG"), True),
        (b"\xff\xd8\xff", False),
        (jpeg().replace(b"\xff\xda\0\x0c\x03", b"\xff\xda\0\x0c\x01", 1), False),
    ],
    ids=["baseline", "photo", "progressive", "grey", "three bytes", "one component a scan"],
)
def test_what_streams_is_sequential_with_all_components_in_one_scan(content: bytes, streams: bool) -> None:
    assert check_head(content).streams is streams


@pytest.mark.parametrize("size_wh", [(64, 64), (700, 900)], ids=str)
def test_tiles_that_are_larger_than_a_small_image_are_in_order(size_wh: tuple[int, int]) -> None:
    options = {"compression": "tiff_adobe_deflate"}
    content = encoded(plain(size_wh), "TIFF", **options)
    assert decode(content, LIMITS).shape == (size_wh[1], size_wh[0], 3)
    with pytest.raises(ImageUndecodable):  # the tiles are not there, but their size is no reason
        decode(tiff({322: (1, 1024), 323: (1, 1024), 324: (1, 200), 325: (1, 10)}), LIMITS)


@pytest.mark.parametrize(
    "content",
    [
        heif(1000),
        heif(2000, meta=b"mdat"),
        heif(0)[:20],
        b"\0\0\0\4ftyp" * 4,
        b"\0\0\0\x10ftypheic" + bytes(4) + b"\0\0\0\x08free" * 20,
        case("turned.heic"),
        case("photo_grid.avif"),
    ],
    ids=["most items", "items as data", "cut short", "no box", "many boxes", "HEIC", "AVIF"],
)
def test_other_heads_of_a_heif_pass(content: bytes) -> None:
    assert not check_head(content).streams
