import pytest

from service.media.cost import LARGE_PIXELS, expected_pixels, is_large
from tests.pictures import encoded, jpeg, noise, plain


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        (jpeg((64, 48)), 64 * 48),
        (encoded(plain((48, 64)), "PNG"), 64 * 48),
        (b"", 0),
        (b"\xff\xd8", 16),
        (b"\xff\xd8" + b"\xff\xfe\x00\x02" * 1000, 8 * 4002),
        (b"\x89PNG\r\n\x1a\n", 64),
        (b"no picture", 80),
    ],
    ids=["JPEG", "PNG", "empty", "JPEG cut", "JPEG of comments", "PNG cut", "words"],
)
def test_pixels_are_read_from_the_header_or_guessed_from_the_bytes(content: bytes, pixels: int) -> None:
    assert expected_pixels(content) == pixels


def test_an_image_of_many_pixels_is_large_however_few_its_bytes() -> None:
    assert LARGE_PIXELS == 4000 * 4000
    assert is_large(jpeg((4000, 4000)))
    assert not is_large(encoded(noise((1000, 600)), "JPEG"))
