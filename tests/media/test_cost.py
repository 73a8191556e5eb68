import pytest
from PIL import Image

from service.media.cost import LARGE_PIXELS, expected_pixels, is_large
from service.media.image_bounds import check_head
from tests.media.cases import case
from tests.pictures import encoded, jpeg, noise, plain


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        (jpeg((64, 48)), 64 * 48),
        (encoded(plain((48, 64)), "PNG"), 64 * 48),
        (encoded(plain((48, 64)), "TIFF"), 64 * 48),
        (encoded(plain((48, 64)), "BMP"), 64 * 48),
        (b"BM" + bytes(12) + b"\x0c\0\0\0\x30\0\x40\0" + bytes(8), 64 * 48),
        (encoded(noise((48, 64)), "WEBP"), 64 * 48),
        (encoded(noise((48, 64)), "WEBP", lossless=True), 64 * 48),
        (encoded(Image.fromarray(plain((48, 64))).convert("RGBA"), "WEBP", exif=b"Exif\0\0"), 64 * 48),
        (case("turned.heic"), 364 * 640),  # as coded, before it is turned and cut
        (case("photo_grid.avif"), 512 * 896),
        (b"", 0),
        (b"\xff\xd8", 16),
        (b"\x89PNG\r\n\x1a\n", 64),
        (b"BM", 16),
        (b"RIFF\0\0\0\0WEBPVP8X", 128),
        (b"\0\0\0\x10ftypavif", 96),
        (b"no picture", 80),
    ],
    ids=[
        "JPEG",
        "PNG",
        "TIFF",
        "BMP",
        "old BMP",
        "WebP",
        "lossless WebP",
        "extended WebP",
        "HEIC",
        "AVIF",
        "empty",
        "JPEG cut",
        "PNG cut",
        "BMP cut",
        "WebP cut",
        "AVIF cut",
        "words",
    ],
)
def test_pixels_are_read_from_the_header_or_guessed_from_the_bytes(content: bytes, pixels: int) -> None:
    assert expected_pixels(content, check_head(content)) == pixels


def test_an_image_of_many_pixels_is_large_however_few_its_bytes() -> None:
    assert LARGE_PIXELS == 4000 * 4000
    for file_format in ("JPEG", "WEBP"):
        content = encoded(plain((4000, 4000)), file_format)
        assert is_large(content, check_head(content))
    content = encoded(noise((1000, 600)), "JPEG")
    assert not is_large(content, check_head(content))
