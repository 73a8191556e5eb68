from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.drawing.text import (
    LabelRequest,
    Line,
    draw_plate,
    font_size_px,
    place,
    plate_size_wh,
    shortened,
    text_width_px,
)

WHITE, DARK, AMBER = (255, 255, 255), (16, 18, 22), (255, 176, 32)
NOTHING = np.zeros((0, 2))


@pytest.mark.parametrize(
    ("size_wh", "px"),
    [((1, 1), 11), ((320, 240), 11), ((1920, 1080), 24), ((1080, 1920), 24), ((3840, 2160), 48)],
    ids=str,
)
def test_the_font_grows_with_the_picture(size_wh: tuple[int, int], px: int) -> None:
    assert font_size_px(size_wh) == px


def test_no_plate_has_no_place() -> None:
    assert place([], (100, 100), NOTHING) == ()


sizes = st.tuples(st.integers(5, 120), st.integers(5, 40))
points = st.tuples(st.floats(-500, 1000), st.floats(-500, 1000))
requests = st.builds(LabelRequest, sizes, points, points, st.floats(0, 60))


@given(
    st.lists(requests, max_size=25),
    st.tuples(st.integers(1, 640), st.integers(1, 480)),
    st.lists(points, max_size=20),
)
@settings(max_examples=80, deadline=None)
def test_plates_stay_inside_and_apart(
    wished: list[LabelRequest], area_wh: tuple[int, int], clear: list[tuple[float, float]]
) -> None:
    corners = place(wished, area_wh, np.array(clear, np.float64).reshape(-1, 2))
    assert len(corners) == len(wished)
    boxes = [
        (*corner, corner[0] + request.size_wh[0], corner[1] + request.size_wh[1])
        for corner, request in zip(corners, wished, strict=True)
        if corner is not None
    ]
    for x1, y1, x2, y2 in boxes:
        assert x1 >= 0
        assert y1 >= 0
        assert x2 <= area_wh[0]
        assert y2 <= area_wh[1]
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_plate_has_its_preferred_place_when_that_is_free() -> None:
    (corner,) = place([LabelRequest((40, 20), (200, 200), (1, 0), 10)], (400, 400), NOTHING)
    assert corner == (210, 190)


def test_a_plate_moves_aside_rather_than_cover_what_should_stay_visible() -> None:
    request = LabelRequest((40, 20), (200, 200), (1, 0), 10)
    in_the_way = np.array([(x, 200.0) for x in range(205, 260, 4)])
    (corner,) = place([request], (400, 400), in_the_way)
    assert corner is not None
    assert not (corner[0] < 260 and corner[0] + 40 > 205 and corner[1] <= 200 <= corner[1] + 20)


def test_a_plate_keeps_away_from_what_another_is_about() -> None:
    ours, theirs = (200.0, 200.0), (250.0, 200.0)
    corners = place(
        [LabelRequest((40, 20), ours, (1, 0), 5), LabelRequest((40, 20), theirs, (-1, 0), 5)],
        (500, 400),
        NOTHING,
    )
    assert corners[0] is not None
    assert corners[1] is not None
    assert corners[0][0] + 20 < corners[1][0] + 20


def test_what_does_not_fit_has_no_place() -> None:
    request = LabelRequest((40, 20), (5, 5), (1, 1), 0)
    assert place([request], (39, 100), NOTHING) == (None,)
    assert place([request, request], (60, 30), NOTHING)[1] is None


def test_a_plate_holds_its_text_and_writes_nowhere_else() -> None:
    canvas = np.full((120, 300, 3), 90, np.uint8)
    lines = (Line("Left Knee", 18, WHITE), Line("−12° ±3°", 24, WHITE, bold=True))
    x1, y1, x2, y2 = draw_plate(canvas, (40, 30), lines, DARK, AMBER)
    assert (x2 - x1, y2 - y1) == plate_size_wh(lines)
    changed = (canvas != 90).any(axis=2)
    assert not changed[:y1].any()
    assert not changed[y2:].any()
    assert not changed[:, :x1].any()
    assert not changed[:, x2:].any()
    assert (canvas[y1:y2, x1 + 10 : x2] > 240).all(axis=2).any()


@pytest.mark.parametrize("corner", [(-20, -10), (290, 110), (500, 500), (-500, 0)], ids=str)
def test_a_plate_partly_or_wholly_outside_does_no_harm(corner: tuple[int, int]) -> None:
    draw_plate(np.zeros((120, 300, 3), np.uint8), corner, (Line("Left Knee", 18, WHITE),), DARK, AMBER)


@pytest.mark.parametrize(
    "text",
    ["", "a", "Left Knee Flexion", "x" * 100_000, "tab\tnew\nline\x00", "膝 колено 💪", "ab" * 60],
    ids=["empty", "short", "fits", "endless", "control", "foreign", "long"],
)
def test_long_and_odd_texts_are_cut_to_fit(text: str) -> None:
    line = shortened(Line(text, 18, WHITE), 160)
    assert text_width_px(line) <= 160
    assert line.text.isprintable()
    draw_plate(np.zeros((60, 200, 3), np.uint8), (0, 0), (line,), DARK, AMBER)


def test_a_text_that_fits_is_left_alone() -> None:
    assert shortened(Line("Left Knee", 18, WHITE), 160).text == "Left Knee"


def test_degree_and_minus_signs_are_not_question_marks() -> None:
    def ink(text: str) -> bytes:
        canvas = np.zeros((40, 60, 3), np.uint8)
        draw_plate(canvas, (0, 0), (Line(text, 24, WHITE),), DARK, AMBER)
        return canvas.tobytes()

    assert len({ink(text) for text in ("°", "−", "±", "…", "?")}) == 5
