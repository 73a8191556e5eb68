"""Where pixels go on the way into a model, and back."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.geometry import LETTERBOX_GREY, Affine, Rgb8, choose_shape, least_scale, letterbox
from tests.pictures import noise, plain, quartered

SHAPES = ((384, 640), (480, 640), (640, 480), (640, 384), (640, 640))

scales = st.floats(0.01, 100)
shifts = st.floats(-1e4, 1e4)
affines = st.builds(Affine, scales, scales, shifts, shifts)
points = st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), max_size=5).map(
    lambda pairs: np.array(pairs, np.float32).reshape(-1, 2)
)


def reference_letterbox(image: Rgb8, shape_hw: tuple[int, int]) -> Rgb8:
    """Ultralytics' LetterBox(auto=False, scaleup=True, center=True), step by step."""
    height, width = image.shape[:2]
    gain = min(shape_hw[0] / height, shape_hw[1] / width)
    new_w, new_h = max(round(width * gain), 1), max(round(height * gain), 1)
    dw, dh = (shape_hw[1] - new_w) / 2, (shape_hw[0] - new_h) / 2
    if (width, height) != (new_w, new_h):
        image = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    top, bottom = round(dh - 0.1), round(dh + 0.1)
    left, right = round(dw - 0.1), round(dw + 0.1)
    padded = cv2.copyMakeBorder(
        image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(LETTERBOX_GREY,) * 3
    )
    return padded.astype(np.uint8)


@pytest.mark.parametrize(
    "size_wh",
    [
        pytest.param((1, 1), id="one pixel"),
        pytest.param((640, 640), id="exact fit"),
        pytest.param((640, 480), id="exact width"),
        pytest.param((810, 1080), id="bus.jpg"),
        pytest.param((641, 479), id="odd"),
        pytest.param((1279, 721), id="odd margins"),
        pytest.param((30, 20), id="upscaled"),
        pytest.param((2000, 1), id="one line"),
        pytest.param((1, 2000), id="one column"),
        pytest.param((3000, 7), id="extreme aspect"),
        pytest.param((319, 640), id="half a pixel of margin"),
    ],
)
@pytest.mark.parametrize("shape_hw", [(640, 640), (384, 640), (640, 480)], ids=str)
def test_letterbox_gives_the_pixels_of_ultralytics(
    size_wh: tuple[int, int], shape_hw: tuple[int, int]
) -> None:
    image = noise(size_wh)
    boxed, _ = letterbox(image, shape_hw)
    np.testing.assert_array_equal(boxed, reference_letterbox(image, shape_hw))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1500), st.integers(1, 1500), st.sampled_from([(64, 64), (96, 160), (160, 96)]))
def test_letterbox_rounds_as_ultralytics_at_any_size(
    width: int, height: int, shape_hw: tuple[int, int]
) -> None:
    image = quartered((width, height))
    boxed, _ = letterbox(image, shape_hw)
    np.testing.assert_array_equal(boxed, reference_letterbox(image, shape_hw))


def test_letterbox_of_bus_jpg_has_the_published_gain_and_pad() -> None:
    _, to_input = letterbox(plain((810, 1080)), (640, 640))
    assert to_input == Affine(480 / 810, 640 / 1080, 80, 0)


def test_letterbox_leaves_the_picture_as_it_is() -> None:
    image = quartered((50, 40))
    before = image.copy()
    image.setflags(write=False)
    letterbox(image, (64, 64))
    np.testing.assert_array_equal(image, before)


def test_letterbox_takes_a_part_of_a_picture_that_is_not_contiguous() -> None:
    whole = noise((200, 100))
    part = whole[10:90, 20:180]
    boxed, _ = letterbox(part, (96, 160))
    np.testing.assert_array_equal(boxed, reference_letterbox(np.ascontiguousarray(part), (96, 160)))


def test_a_letterboxed_picture_never_shares_memory_with_its_original() -> None:
    image = plain((64, 64))
    boxed, _ = letterbox(image, (64, 64))
    assert not np.shares_memory(boxed, image)


@settings(deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from(SHAPES))
def test_corners_of_the_picture_land_on_the_corners_of_its_image_in_the_input(
    width: int, height: int, shape_hw: tuple[int, int]
) -> None:
    _, to_input = letterbox(np.zeros((height, width, 3), np.uint8), shape_hw)
    (left, top), (right, bottom) = to_input.apply(np.array([[0, 0], [width, height]], np.float32))
    assert 0 <= left < right <= shape_hw[1] + 1e-3
    assert 0 <= top < bottom <= shape_hw[0] + 1e-3
    # Centred, but for half a pixel of rounding and the pixel that is left over.
    assert abs(left - (shape_hw[1] - right)) <= 1 + 1e-3
    assert abs(top - (shape_hw[0] - bottom)) <= 1 + 1e-3


@given(affines, points)
def test_the_inverse_brings_points_back(affine: Affine, points_xy: np.ndarray) -> None:
    there = affine.apply(points_xy)
    back = affine.inverse().apply(there)
    # float32 keeps seven digits of the largest number on the way.
    largest = max(1.0, abs(affine.shift_x), abs(affine.shift_y)) / min(affine.scale_x, affine.scale_y, 1.0)
    np.testing.assert_allclose(back, points_xy, rtol=1e-5, atol=largest * 1e-5 + 1e-2)


@given(affines)
def test_inverting_twice_changes_nothing(affine: Affine) -> None:
    twice = affine.inverse().inverse()
    assert twice.scale_x == pytest.approx(affine.scale_x)
    assert twice.scale_y == pytest.approx(affine.scale_y)
    assert twice.shift_x == pytest.approx(affine.shift_x)
    assert twice.shift_y == pytest.approx(affine.shift_y)


@given(affines, affines, points)
def test_then_is_one_after_the_other(first: Affine, second: Affine, points_xy: np.ndarray) -> None:
    both = first.then(second).apply(points_xy)
    in_turn = second.apply(first.apply(points_xy))
    largest = (1e4 * first.scale_x + abs(first.shift_x)) * second.scale_x + abs(second.shift_x)
    largest += (1e4 * first.scale_y + abs(first.shift_y)) * second.scale_y + abs(second.shift_y)
    np.testing.assert_allclose(both, in_turn, rtol=1e-5, atol=largest * 1e-6)


@given(affines)
def test_an_affine_and_its_inverse_make_the_identity(affine: Affine) -> None:
    nothing = affine.then(affine.inverse())
    assert (nothing.scale_x, nothing.scale_y) == pytest.approx((1, 1))
    room = 1e-9 * max(1, abs(affine.shift_x), abs(affine.shift_y)) / min(affine.scale_x, affine.scale_y)
    assert (nothing.shift_x, nothing.shift_y) == pytest.approx((0, 0), abs=room)


@pytest.mark.parametrize("shape", [(0, 2), (3, 2), (2, 5, 2)], ids=["nobody", "points", "people"])
def test_apply_keeps_shape_and_type_and_writes_nothing(shape: tuple[int, ...]) -> None:
    before = np.ones(shape, np.float32)
    before.setflags(write=False)
    after = Affine(2, 3, 1, -1).apply(before)
    assert after.shape == shape
    assert after.dtype == np.float32
    np.testing.assert_array_equal(after, np.broadcast_to(np.array([3, 2], np.float32), shape))


@pytest.mark.parametrize(
    ("size_wh", "expected_hw"),
    [
        pytest.param((1, 1), (640, 640), id="one pixel is square"),
        pytest.param((1920, 1080), (384, 640), id="16:9"),
        pytest.param((640, 384), (384, 640), id="exact"),
        pytest.param((640, 385), (480, 640), id="a line more"),
        pytest.param((640, 480), (480, 640), id="4:3"),
        pytest.param((64, 48), (480, 640), id="small 4:3 is seen at full size"),
        pytest.param((480, 640), (640, 480), id="3:4"),
        pytest.param((1080, 1920), (640, 384), id="9:16"),
        pytest.param((600, 601), (640, 640), id="nearly square"),
        pytest.param((100_000, 1), (384, 640), id="one line"),
        pytest.param((1, 100_000), (640, 384), id="one column"),
    ],
)
def test_choose_shape_takes_the_smallest_that_holds_the_picture(
    size_wh: tuple[int, int], expected_hw: tuple[int, int]
) -> None:
    assert choose_shape(size_wh, SHAPES) == expected_hw


def test_choose_shape_shows_a_picture_that_nothing_holds_as_large_as_it_can() -> None:
    assert choose_shape((480, 640), [(384, 640), (480, 640)]) == (480, 640)


def test_choose_shape_does_not_mind_the_order_of_the_shapes() -> None:
    for size_wh in ((640, 480), (480, 640), (1920, 1080), (7, 7)):
        assert choose_shape(size_wh, SHAPES) == choose_shape(size_wh, SHAPES[::-1])


@given(st.integers(1, 60_000), st.integers(1, 60_000))
def test_with_a_square_among_the_shapes_the_long_side_always_has_full_length(width: int, height: int) -> None:
    shape_h, shape_w = choose_shape((width, height), SHAPES)
    gain = min(shape_h / height, shape_w / width)
    assert max(width, height) * gain == pytest.approx(640, abs=0.5 * max(width, height) / min(width, height))
    assert max(round(width * gain), round(height * gain)) == 640


@pytest.mark.parametrize(
    ("size_wh", "region", "scale"),
    [
        ((1280, 960), None, 0.5),
        ((960, 1280), None, 0.5),
        ((320, 240), None, 2.0),
        ((4000, 3000), (100, 100, 1380, 1060), 0.5),
        ((4000, 3000), (3000, 2000, 9000, 9000), 0.64),
        ((4000, 3000), (5000, 0, 5010, 10), 0.0),
    ],
    ids=str,
)
def test_the_least_scale_fills_the_input_with_what_is_looked_at(
    size_wh: tuple[int, int], region: tuple[int, int, int, int] | None, scale: float
) -> None:
    assert least_scale(size_wh, SHAPES, region) == pytest.approx(scale)


def test_a_reduced_image_covers_the_input_as_the_whole_one_does() -> None:
    whole, half = plain((1001, 601)), plain((501, 301))  # half of 1001 is 500.5
    expected, _ = letterbox(whole, (384, 640))
    boxed, to_input = letterbox(half, (384, 640), (1001, 601))
    np.testing.assert_array_equal(boxed, expected)
    assert to_input.scale_x == 640 / 501
