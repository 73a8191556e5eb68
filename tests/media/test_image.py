"""Every kind of file that callers send, and what they must not send."""

import gc
import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from service.core.geometry import Rgb8
from service.errors import ImageTooCostly, ImageTooLarge, ImageUndecodable, PosegateError
from service.media.image import ImageLimits, ScaledDecoding, decode, decode_scaled, encode, read_header
from tests.media.cases import case
from tests.media.damage import damaged
from tests.pictures import encoded, noise, plain, quartered

LIMITS = ImageLimits(max_bytes=1_000_000, max_pixels=1_000_000)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
BEST: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
}
LOSSY = 8  # largest difference of one sample that a good encoder makes of plain colours

formats = pytest.mark.parametrize("file_format", FORMATS)


@pytest.fixture(autouse=True, scope="module")
def _quiet_cv2() -> Iterator[None]:
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    yield
    cv2.utils.logging.setLogLevel(before)


def difference(image: Rgb8, expected: Rgb8 | Image.Image) -> int:
    wanted = np.asarray(expected).astype(int)
    assert image.shape == wanted.shape
    assert image.dtype == np.uint8
    return int(np.abs(image.astype(int) - wanted).max())


@contextmanager
def little_memory(allowed_mib: int) -> Iterator[None]:
    """Fails when the process needs much more memory inside the block, if only for a moment."""

    def peak_mib() -> float:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again from here
    before = peak_mib()
    yield
    assert peak_mib() - before < allowed_mib


# --- what is accepted ---------------------------------------------------------------------------------


@formats
@pytest.mark.parametrize("size_wh", [(1, 1), (60, 40), (33, 17)], ids=str)
def test_every_format_of_the_contract_becomes_rgb(file_format: str, size_wh: tuple[int, int]) -> None:
    image = quartered(size_wh)
    content = encoded(image, file_format, **BEST.get(file_format, {}))
    assert read_header(content, LIMITS).size_wh == size_wh
    assert difference(decode(content, LIMITS), image) <= (LOSSY if file_format == "JPEG" else 0)


QUARTERED = Image.fromarray(quartered((64, 48)))


def middles_differ(image: Rgb8) -> int:
    """Largest difference from QUARTERED in the middle of each quarter, where no encoder blurs."""
    middles = np.ix_([12, 36], [16, 48])
    return difference(image[middles], np.asarray(QUARTERED)[middles])


SIXTEEN_BIT = Image.fromarray(np.asarray(QUARTERED.convert("L")).astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("picture", "file_format"),
    [
        pytest.param(QUARTERED.convert("L"), "JPEG", id="grey JPEG"),
        pytest.param(QUARTERED.convert("L"), "PNG", id="grey PNG"),
        pytest.param(QUARTERED.convert("L"), "BMP", id="grey BMP"),
        pytest.param(QUARTERED.convert("L"), "TIFF", id="grey TIFF"),
        pytest.param(QUARTERED.convert("LA"), "PNG", id="grey PNG with alpha"),
        pytest.param(QUARTERED.convert("LA"), "TIFF", id="grey TIFF with alpha"),
        pytest.param(QUARTERED.convert("RGBA"), "PNG", id="PNG with alpha"),
        pytest.param(QUARTERED.convert("RGBA"), "WEBP", id="WebP with alpha"),
        pytest.param(QUARTERED.convert("RGBA"), "BMP", id="BMP with alpha"),
        pytest.param(QUARTERED.convert("RGBA"), "TIFF", id="TIFF with alpha"),
        pytest.param(QUARTERED.convert("CMYK"), "JPEG", id="CMYK JPEG"),
        pytest.param(QUARTERED.convert("CMYK"), "TIFF", id="CMYK TIFF"),
        pytest.param(QUARTERED.convert("YCbCr"), "TIFF", id="YCbCr TIFF"),
        pytest.param(QUARTERED.convert("P"), "PNG", id="palette PNG"),
        pytest.param(QUARTERED.convert("P"), "BMP", id="palette BMP"),
        pytest.param(QUARTERED.convert("P"), "TIFF", id="palette TIFF"),
        pytest.param(QUARTERED.quantize(4), "PNG", id="palette PNG of 2 bits"),
        pytest.param(QUARTERED.convert("1"), "PNG", id="1-bit PNG"),
        pytest.param(QUARTERED.convert("1"), "BMP", id="1-bit BMP"),
        pytest.param(QUARTERED.convert("1"), "TIFF", id="1-bit TIFF"),
        pytest.param(SIXTEEN_BIT, "PNG", id="16-bit grey PNG"),
        pytest.param(SIXTEEN_BIT, "TIFF", id="16-bit grey TIFF"),
    ],
)
def test_every_kind_of_sample_becomes_8_bit_rgb(picture: Image.Image, file_format: str) -> None:
    image = decode(encoded(picture, file_format, **BEST.get(file_format, {})), LIMITS)
    expected = QUARTERED.convert("L") if picture is SIXTEEN_BIT else picture
    assert difference(image, expected.convert("RGB")) <= (LOSSY if file_format == "JPEG" else 1)


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_16_bit_colour_becomes_8_bit(extension: str) -> None:
    image = quartered((20, 10))
    deep = cv2.cvtColor(image, cv2.COLOR_RGB2BGR).astype(np.uint16) * 257
    assert difference(decode(cv2.imencode(extension, deep)[1].tobytes(), LIMITS), image) <= 1


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_16_bit_samples_that_use_fewer_bits_are_stretched(extension: str, bits: int) -> None:
    image = quartered((20, 10))
    image[0, 0] = 255  # the largest sample uses all of the bits
    deep = cv2.cvtColor(image, cv2.COLOR_RGB2BGR).astype(np.uint16) << (bits - 8)
    content = cv2.imencode(extension, deep)[1].tobytes()
    assert difference(decode(content, LIMITS), image) == 0


def test_a_12_bit_picture_is_as_bright_as_its_8_bit_original() -> None:
    deep = decode(case("grey16_12bit.png"), LIMITS)
    assert deep.shape == (564, 320, 3)
    assert 80 < deep.mean() < 160
    assert deep.max() > 200


@pytest.mark.parametrize("size_wh", [(40, 30), (33, 17)], ids=str)
def test_avif_is_read(size_wh: tuple[int, int]) -> None:
    content = encoded(quartered(size_wh), "AVIF", quality=100, subsampling="4:4:4")
    assert read_header(content, LIMITS).size_wh == size_wh
    assert difference(decode(content, LIMITS), quartered(size_wh)) <= LOSSY


def test_an_avif_of_several_tiles_is_read_whole() -> None:
    image = decode(case("photo_grid.avif"), LIMITS)
    assert image.shape == (896, 512, 3)
    assert min(part.std() for part in np.array_split(image, 4)) > 10  # there is something in every tile


def test_a_heic_is_read_upright() -> None:
    turned, expected = decode(case("turned.heic"), LIMITS), decode(case("base.jpg"), LIMITS)
    assert turned.shape == expected.shape
    assert np.abs(turned.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_an_avif_is_applied(orientation: int) -> None:
    stored = Image.fromarray(quartered((64, 48)))
    exif = stored.getexif()
    exif[0x0112] = orientation
    content = encoded(quartered((64, 48)), "AVIF", quality=100, subsampling="4:4:4", exif=exif.tobytes())
    stored.getexif()[0x0112] = orientation
    assert difference(decode(content, LIMITS), ImageOps.exif_transpose(stored)) <= LOSSY


@pytest.mark.parametrize("name", ["photo_grid.avif", "turned.heic"])
def test_the_limits_hold_for_heif(name: str) -> None:
    content = case(name)
    with pytest.raises(ImageTooLarge):
        decode(content, ImageLimits(len(content), 100_000))
    with pytest.raises(ImageTooLarge):
        decode(content, ImageLimits(len(content) - 1, 10_000_000))


@pytest.mark.parametrize("name", ["photo_grid.avif", "turned.heic"])
@pytest.mark.parametrize("part", [0.02, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_heif_is_refused(name: str, part: float) -> None:
    content = case(name)
    with pytest.raises(ImageUndecodable):
        decode(content[: int(len(content) * part)], LIMITS)


@pytest.mark.parametrize("name", ["photo_grid.avif", "turned.heic"])
def test_two_hundred_damaged_heif_files_do_no_harm(name: str) -> None:
    outcomes = set()
    for content in damaged([case(name)], 200, seed=20_261_128):
        try:
            outcomes.add(decode(content, LIMITS).dtype.name)
        except (ImageUndecodable, ImageTooLarge) as error:
            outcomes.add(type(error).__name__)
    assert outcomes >= {"ImageUndecodable", "uint8"}


def test_transparency_is_dropped_and_not_blended() -> None:
    picture = QUARTERED.convert("RGBA")
    picture.putalpha(0)
    assert difference(decode(encoded(picture, "PNG"), LIMITS), QUARTERED) == 0


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("JPEG", {"subsampling": "4:2:0"}),
        ("WEBP", {"lossless": True}),
        ("PNG", {"compress_level": 0}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "packbits"}),
        ("TIFF", {"compression": "jpeg"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, *value.items())),
)
def test_every_common_way_of_storing_it_is_read(file_format: str, options: dict[str, object]) -> None:
    assert middles_differ(decode(encoded(QUARTERED, file_format, **options), LIMITS)) <= LOSSY


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_in_the_file_is_applied(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(QUARTERED, file_format, exif=exif, **BEST.get(file_format, {}))
    with Image.open(io.BytesIO(content)) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    image = decode(content, LIMITS)
    assert image.shape[:2] == ((48, 64) if orientation < 5 else (64, 48))
    assert difference(image, upright) <= LOSSY


@pytest.mark.parametrize(
    ("file_format", "options"), [("MPO", {}), ("TIFF", {}), ("WEBP", {"lossless": True})], ids=str
)
def test_the_first_of_several_pictures_is_taken(file_format: str, options: dict[str, object]) -> None:
    first, second = Image.fromarray(plain((30, 20), (200, 0, 0))), Image.fromarray(plain((30, 20)))
    content = encoded(first, file_format, save_all=True, append_images=[second], **options)
    assert difference(decode(content, LIMITS), first) <= LOSSY


def test_a_bmp_stored_from_the_top_is_upright() -> None:
    content = bytearray(encoded(quartered((30, 20)), "BMP"))
    content[22:26] = struct.pack("<i", -20)
    assert difference(decode(bytes(content), LIMITS), quartered((30, 20))[::-1]) == 0


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0", id="one byte"),
        pytest.param(b"not a picture, but some words that go on for a while", id="words"),
        pytest.param(bytes(5000), id="zeros"),
        pytest.param(b"\xff\xd8\xff", id="three bytes of JPEG"),
        pytest.param(b"\x89PNG\r\n\x1a\n", id="the PNG signature"),
        pytest.param(b"RIFF\x04\0\0\0WEBP", id="the WebP signature"),
        pytest.param(b"BM", id="the BMP signature"),
        pytest.param(b"II*\0\x08\0\0\0", id="the TIFF signature"),
        pytest.param(b"II*\0\x08\0\0\0\0\0\0\0\0\0", id="a TIFF without entries"),
        pytest.param(b"%PDF-1.7 ...", id="PDF"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>", id="SVG"),
        pytest.param(encoded(QUARTERED, "GIF"), id="GIF"),
        pytest.param(encoded(QUARTERED, "PPM"), id="PPM"),
        pytest.param(encoded(QUARTERED, "ICO"), id="ICO"),
        pytest.param(encoded(QUARTERED, "TGA"), id="TGA"),
        pytest.param(encoded(QUARTERED.convert("I"), "TIFF"), id="32-bit TIFF"),
        pytest.param(encoded(QUARTERED.convert("F"), "TIFF"), id="float TIFF"),
    ],
)
def test_what_is_no_picture_of_the_contract_is_refused(content: bytes) -> None:
    with pytest.raises(ImageUndecodable) as refused:
        decode(content, LIMITS)
    assert refused.value.reason == "IMAGE_UNDECODABLE"
    assert "send" in refused.value.message  # what to do about it


@formats
@pytest.mark.parametrize("part", [0.02, 0.2, 0.5, 0.9, 0.99, None], ids=lambda part: part or "last byte")
def test_a_truncated_file_is_refused(file_format: str, part: float | None) -> None:
    content = encoded(noise((120, 80)), file_format)
    missing = 3 if file_format == "JPEG" else 1  # a JPEG may lack its end marker of 2 bytes
    kept = content[: int(len(content) * part)] if part else content[:-missing]
    with pytest.raises(ImageUndecodable):
        decode(kept, LIMITS)


def test_a_truncated_progressive_jpeg_is_refused() -> None:
    content = encoded(noise((120, 80)), "JPEG", progressive=True)
    for part in (0.3, 0.6, 0.95):
        with pytest.raises(ImageUndecodable):
            decode(content[: int(len(content) * part)], LIMITS)


def test_one_byte_too_many_is_refused_with_limit_and_actual_value() -> None:
    content = encoded(quartered((60, 40)), "PNG")
    exact = ImageLimits(max_bytes=len(content), max_pixels=10_000)
    decode(content, exact)
    with pytest.raises(ImageTooLarge) as refused:
        decode(content + b"\0", exact)
    assert refused.value.reason == "IMAGE_TOO_LARGE"
    assert refused.value.metadata == {"limit_bytes": str(len(content)), "actual_bytes": str(len(content) + 1)}


@formats
def test_one_pixel_too_many_is_refused_with_limit_and_actual_value(file_format: str) -> None:
    content = encoded(plain((60, 40)), file_format)
    decode(content, ImageLimits(max_bytes=100_000, max_pixels=2400))
    with pytest.raises(ImageTooLarge, match="60×40 px") as refused:
        decode(content, ImageLimits(max_bytes=100_000, max_pixels=2399))
    assert refused.value.metadata == {"limit_pixels": "2399", "actual_pixels": "2400"}


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def declared(file_format: str, width: int, height: int) -> bytes:
    """A small file whose header says that it is of this size."""
    content = bytearray(encoded(plain((30, 20)), file_format))
    if file_format == "PNG":
        content[8:33] = png_header(width, height)
    elif file_format == "BMP":
        content[18:26] = struct.pack("<ii", width, height)
    elif file_format == "JPEG":
        start = content.index(b"\xff\xc0")
        content[start + 5 : start + 9] = struct.pack(">HH", height, width)
    elif file_format == "WEBP":
        frame = content.index(b"\x9d\x01\x2a")
        content[frame + 3 : frame + 7] = struct.pack("<HH", width, height)
    else:
        directory = struct.unpack("<I", content[4:8])[0]
        for entry in range(directory + 2, directory + 2 + 12 * 2, 12):
            tag = struct.unpack("<H", content[entry : entry + 2])[0]
            content[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, {256: width, 257: height}[tag])
    return bytes(content)


@pytest.mark.parametrize(
    ("file_format", "size_wh"),
    [
        ("JPEG", (65_000, 65_000)),
        ("PNG", (2**31 - 1, 2**31 - 1)),
        ("PNG", (100_000, 100_000)),
        ("WEBP", (16_383, 16_383)),
        ("BMP", (2**31 - 1, 2**31 - 1)),
        ("BMP", (30_000, -30_000)),
        ("TIFF", (2**32 - 1, 2**32 - 1)),
        ("TIFF", (100_000, 100_000)),
    ],
    ids=str,
)
def test_a_giant_declared_size_is_refused_before_anything_is_decoded(
    file_format: str, size_wh: tuple[int, int]
) -> None:
    content = declared(file_format, *size_wh)
    with little_memory(allowed_mib=20), pytest.raises(ImageTooLarge) as refused:
        decode(content, ImageLimits(max_bytes=25_000_000, max_pixels=50_000_000))
    assert refused.value.metadata["actual_pixels"] == str(abs(size_wh[0] * size_wh[1]))


@formats
def test_a_declared_size_of_zero_is_refused(file_format: str) -> None:
    with pytest.raises(ImageUndecodable):
        decode(declared(file_format, 0, 20), LIMITS)
    with pytest.raises(ImageUndecodable):
        decode(declared(file_format, 30, 0), LIMITS)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "BMP", "TIFF"])  # libjpeg fills up with grey
def test_a_declared_size_that_the_data_does_not_fill_is_refused(file_format: str) -> None:
    with pytest.raises(ImageUndecodable):
        decode(declared(file_format, 900, 900), LIMITS)


def test_a_second_header_does_not_get_round_the_limit() -> None:
    small, large = png_header(30, 20), png_header(20_000, 20_000)
    content = encoded(plain((30, 20)), "PNG")
    jpeg = encoded(plain((30, 20)), "JPEG")
    start = jpeg.index(b"\xff\xc0")
    frame = jpeg[start : start + 19]
    giant = frame[:5] + struct.pack(">HH", 65_000, 65_000) + frame[9:]
    for forged in (
        content[:8] + large + small + content[33:],
        content[:8] + small + large + content[33:],
        jpeg[:start] + giant + jpeg[start:],
        jpeg[: start + 19] + giant + jpeg[start + 19 :],
    ):
        with little_memory(allowed_mib=20), pytest.raises(PosegateError):
            decode(forged, LIMITS)


def tiff(*entries: tuple[int, int]) -> bytes:
    """A little-endian TIFF with these tags, each one number, and some data."""
    directory = struct.pack("<H", len(entries))
    for tag, value in entries:
        directory += struct.pack("<HHII", tag, 4, 1, value)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + bytes(2000)


@pytest.mark.parametrize("giant_first", [True, False])
def test_a_tiff_that_gives_its_size_twice_does_not_get_round_the_limit(giant_first: bool) -> None:
    giant, small = [(256, 60_000), (257, 60_000)], [(256, 10), (257, 10)]
    sizes = sorted([*giant, *small], key=lambda entry: (entry[0], entry[1] * (-1 if giant_first else 1)))
    content = tiff(*sizes, (258, 8), (259, 1), (262, 1), (273, 200), (277, 1), (278, 60_000), (279, 100))
    with little_memory(allowed_mib=20):
        try:
            image = decode(content, LIMITS)
        except (ImageTooLarge, ImageUndecodable):
            return
    assert image.shape == (10, 10, 3)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(FORMATS), st.data())
def test_damaged_files_are_decoded_or_refused_and_nothing_else(file_format: str, data: st.DataObject) -> None:
    content = bytearray(encoded(quartered((40, 30)), file_format))
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=8)
    ):
        content[place] = value
    end = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    try:
        image = decode(bytes(content[:end]), LIMITS)
    except (ImageUndecodable, ImageTooLarge, ImageTooCostly):
        return
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.dtype == np.uint8
    assert image.shape[0] * image.shape[1] <= LIMITS.max_pixels


# --- writing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_wh", [(1, 1), (64, 48)], ids=str)
def test_png_keeps_every_pixel(size_wh: tuple[int, int]) -> None:
    image = noise(size_wh)
    content = encode(image, "png")
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"
        assert difference(image, picture.convert("RGB")) == 0


def test_jpeg_has_the_quality_asked_for() -> None:
    image = noise((64, 48))
    low, high = encode(image, "jpeg", jpeg_quality=10), encode(image, "jpeg", jpeg_quality=95)
    assert len(low) < len(high) / 3
    with Image.open(io.BytesIO(encode(quartered((64, 48)), "jpeg", jpeg_quality=100))) as picture:
        assert picture.format == "JPEG"
        assert middles_differ(np.asarray(picture)) <= LOSSY


def test_encoding_takes_a_read_only_picture() -> None:
    image = quartered((20, 10))
    image.setflags(write=False)
    assert decode(encode(image, "png"), LIMITS).shape == (10, 20, 3)


# --- reduced while it is decoded ----------------------------------------------------------------------

WHITE_XY = (277, 151)  # the top left corner of a white square on black, px of the upright image


def marked(size_wh: tuple[int, int], orientation: int = 1) -> bytes:
    """A JPEG with a white square whose upright position is known; stored turned, as its EXIF data say."""
    image = plain(size_wh, (0, 0, 0))
    x, y = WHITE_XY
    image[y : y + 64, x : x + 64] = 255
    stored = Image.fromarray(image)
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(stored if turn is None else stored.transpose(turn), "JPEG", quality=95, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
def test_a_reduced_jpeg_says_where_its_pixels_are_in_the_upright_original(
    orientation: int, divisor: int
) -> None:
    content = marked((533, 403), orientation)  # sides that no divisor divides
    scaled = decode_scaled(content, LIMITS, lambda _: 1 / divisor, "fast")
    assert scaled.size_wh == (533, 403)
    assert scaled.pixels.shape == (-(-403 // divisor), -(-533 // divisor), 3)
    light = scaled.pixels[..., 1].astype(float)
    left = np.average(np.arange(light.shape[1]) + 0.5, weights=light.sum(axis=0))
    top = np.average(np.arange(light.shape[0]) + 0.5, weights=light.sum(axis=1))
    center = scaled.to_pixels.inverse().apply(np.array([left, top], np.float32))
    np.testing.assert_allclose(center, np.add(WHITE_XY, 32), atol=0.35)


@pytest.mark.parametrize(
    ("mode", "needed", "width"),
    [
        ("off", 0.1, 800),
        ("fine", 0.1, 200),
        ("fast", 0.1, 100),
        ("fine", 0.3, 800),
        ("fast", 0.3, 400),
        ("fast", 0.5, 400),
        ("fast", 2.0, 800),
    ],
)
def test_a_jpeg_is_reduced_no_further_than_its_use_allows(
    mode: ScaledDecoding, needed: float, width: int
) -> None:
    scaled = decode_scaled(encoded(plain((800, 600)), "JPEG"), LIMITS, lambda _: needed, mode)
    assert scaled.pixels.shape[1] == width


def test_other_formats_are_decoded_whole() -> None:
    scaled = decode_scaled(encoded(plain((800, 600)), "PNG"), LIMITS, lambda _: 0.1, "fast")
    assert scaled.pixels.shape == (600, 800, 3)


def test_a_jpeg_that_is_cut_short_is_refused_at_every_scale() -> None:
    content = encoded(noise((800, 600)), "JPEG")
    with pytest.raises(ImageUndecodable, match="cut short"):
        decode_scaled(content[: len(content) // 2], LIMITS, lambda _: 0.1, "fast")


def test_a_jpeg_without_an_end_marker_is_decoded_whole() -> None:
    content = encoded(noise((800, 600)), "JPEG")[:-2]
    assert decode_scaled(content, LIMITS, lambda _: 0.1, "fast").pixels.shape == (600, 800, 3)
