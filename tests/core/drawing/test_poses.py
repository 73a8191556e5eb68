"""What is drawn, and what is not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from service.core.drawing.poses import SIDE_COLORS, OverlayStyle, default_line_width, draw_poses
from service.core.geometry import Rgb8
from service.core.poses import Poses
from service.core.skeleton.template import Edge, Keypoint, Skeleton
from tests.pictures import noise, plain

PAIR = Skeleton(
    name="pair",
    title="Two points and a limb",
    keypoints=(Keypoint("left_end"), Keypoint("right_end"), Keypoint("middle_end")),
    edges=(Edge("left_end", "right_end"), Edge("left_end", "middle_end")),
    flip_pairs=(("left_end", "right_end"),),
)
BARE = OverlayStyle(line_width=4, boxes=False, labels=False)
FULL = OverlayStyle()


def people(*points: Sequence[tuple[float, float, float]], boxes: Any = None, scores: Any = None) -> Poses:
    """People of PAIR's three points; boxes from corner to corner of their points unless given."""
    keypoints = np.array(points, np.float32).reshape(len(points), -1, 3)
    xy = keypoints[..., :2]
    around = np.concatenate([xy.min(axis=1), xy.max(axis=1)], axis=1) if boxes is None else boxes
    return Poses(
        boxes_xyxy=np.array(around, np.float32).reshape(len(points), 4),
        scores=np.array([0.9] * len(points) if scores is None else scores, np.float32),
        keypoints=keypoints,
    )


def changed(before: Rgb8, after: Rgb8) -> NDArray[np.bool_]:
    """(H, W): the pixels that differ."""
    different: NDArray[np.bool_] = (before != after).any(axis=2)
    return different


ONE = people([(20, 50, 0.9), (80, 50, 0.9), (20, 90, 0.9)])


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 50), (640, 480)], ids=str)
def test_zero_persons_give_a_plain_copy(size_wh: tuple[int, int]) -> None:
    image = noise(size_wh)
    drawn = draw_poses(image, Poses.empty(3), PAIR, FULL)
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_the_picture_itself_stays_as_it_is() -> None:
    image = noise((100, 100))
    before = image.copy()
    image.setflags(write=False)
    drawn = draw_poses(image, ONE, PAIR, FULL)
    np.testing.assert_array_equal(image, before)
    assert drawn.flags.writeable
    assert changed(image, drawn).any()


def test_people_of_another_number_of_keypoints_are_refused() -> None:
    with pytest.raises(ValueError, match="3 keypoints do not fit skeleton coco_17"):
        draw_poses(plain((9, 9)), ONE, replace(PAIR, name="coco_17", keypoints=PAIR.keypoints[:2]), FULL)


def test_zero_persons_fit_every_skeleton() -> None:
    draw_poses(plain((9, 9)), Poses.empty(17), PAIR, FULL)


def test_limbs_and_points_have_the_colours_of_their_sides() -> None:
    drawn = draw_poses(plain((100, 100), (0, 0, 0)), ONE, PAIR, replace(BARE, line_width=12))
    middle, left = SIDE_COLORS["middle"], SIDE_COLORS["left"]
    assert tuple(drawn[50, 50]) == middle  # from left to right: neither
    assert tuple(drawn[70, 20]) == left  # from left to the middle: left
    assert tuple(drawn[50, 30]) == left  # the ring around the left point
    assert tuple(drawn[50, 70]) == SIDE_COLORS["right"]
    assert SIDE_COLORS["left"] != SIDE_COLORS["right"]


def test_colours_of_the_skeleton_come_before_those_of_the_sides() -> None:
    red, green = (255, 0, 0), (0, 255, 0)
    skeleton = replace(
        PAIR,
        keypoints=(Keypoint("left_end", color=green), *PAIR.keypoints[1:]),
        edges=(Edge("left_end", "right_end", color=red),),
    )
    drawn = draw_poses(plain((100, 100), (0, 0, 0)), ONE, skeleton, replace(BARE, line_width=12))
    assert tuple(drawn[50, 50]) == red
    assert tuple(drawn[50, 30]) == green


def test_a_wider_line_covers_more() -> None:
    image = plain((100, 100))
    thin, thick = (
        changed(image, draw_poses(image, ONE, PAIR, replace(BARE, line_width=width))).sum()
        for width in (1, 12)
    )
    assert 0 < thin < thick / 3


def test_the_line_width_scales_with_the_picture_unless_it_is_given() -> None:
    assert default_line_width(1, 1) == default_line_width(640, 480) == 2
    assert default_line_width(4000, 3000) == default_line_width(3000, 4000) == 15


def test_boxes_are_drawn_unless_they_are_not_wanted() -> None:
    image = plain((100, 100))
    poses = people([(50, 50, 0.0)] * 3, boxes=[10, 10, 90, 90])
    style = replace(BARE, min_keypoint_score=0.5)
    assert not changed(image, draw_poses(image, poses, PAIR, style)).any()
    drawn = changed(image, draw_poses(image, poses, PAIR, replace(style, boxes=True)))
    assert drawn[50, 10]
    assert drawn[10, 50]
    assert drawn[50, 90]
    assert drawn[90, 50]
    assert not drawn[20:80, 20:80].any()


def test_points_below_the_wanted_score_are_left_out_with_their_limbs() -> None:
    image = plain((100, 100))
    poses = people([(20, 50, 0.9), (80, 50, 0.4), (20, 90, 0.9)])
    drawn = changed(image, draw_poses(image, poses, PAIR, replace(BARE, min_keypoint_score=0.5)))
    assert drawn[70, 20]
    assert not drawn[:, 40:].any()


def test_unsure_points_are_hollow_and_their_limbs_thin() -> None:
    image = plain((100, 100), (0, 0, 0))
    sure = draw_poses(image, people([(20, 50, 0.9), (80, 50, 0.9), (20, 50, 0.9)]), PAIR, BARE)
    unsure = draw_poses(image, people([(20, 50, 0.1), (80, 50, 0.1), (20, 50, 0.1)]), PAIR, BARE)
    assert changed(image, unsure)[:, 50].sum() < changed(image, sure)[:, 50].sum()
    assert tuple(unsure[50, 80]) == (9, 9, 9)  # the dark outline, faint on black
    assert sure[50, 80].sum() > 600


@pytest.mark.parametrize("ground", [0, 255], ids=["on black", "on white"])
def test_unsure_points_and_limbs_show_the_image_through_even_where_points_are_small(ground: int) -> None:
    """In a crowd of points without room for rings, too: no pixel of them is drawn as if sure."""
    image = plain((200, 100), (ground, ground, ground))
    for apart in (6, 60):
        row = [(20, 50, 0.0), (20 + apart, 50, 0.0), (20, 50, 0.0)]
        sure, unsure = (
            draw_poses(image, people([(x, y, score) for x, y, _ in row]), PAIR, BARE) for score in (0.9, 0.3)
        )
        away = [np.abs(drawn.astype(int) - ground).max() for drawn in (sure, unsure)]
        assert away[1] <= 0.5 * 255 < away[0]
        assert away[1] > 0.1 * 255


def test_an_unsure_limb_lies_under_a_sure_one_and_leaves_the_rest_of_the_image_alone() -> None:
    image = noise((100, 100))
    drawn = draw_poses(image, people([(20, 50, 0.3), (80, 50, 0.3), (20, 50, 0.3)]), PAIR, BARE)
    assert (drawn[:30] == image[:30]).all()
    assert (drawn[70:] == image[70:]).all()


def test_unsure_points_outside_the_image_are_drawn_nowhere() -> None:
    image = plain((100, 100), (0, 0, 0))
    drawn = draw_poses(image, people([(-500, -500, 0.3), (-300, 900, 0.3), (5000, 50, 0.3)]), PAIR, BARE)
    assert drawn.shape == image.shape


def test_limbs_are_anti_aliased() -> None:
    image = plain((100, 100), (0, 0, 0))
    slanted = people([(10, 13, 0.9), (90, 71, 0.9), (10, 13, 0.9)])
    assert len(np.unique(draw_poses(image, slanted, PAIR, BARE))) > 50


def test_the_better_person_lies_on_top() -> None:
    image = plain((100, 100), (0, 0, 0))
    across = [(10, 50, 0.9), (90, 50, 0.9), (10, 50, 0.9)]
    down = [(50, 10, 0.9), (50, 90, 0.9), (50, 10, 0.9)]
    skeleton = replace(PAIR, edges=(Edge("left_end", "right_end", color=(255, 0, 0)),))
    crossing = draw_poses(image, people(across, down), skeleton, BARE)[50, 44:57]
    alone = draw_poses(image, people(across), skeleton, BARE)[50, 44:57]
    np.testing.assert_array_equal(crossing, alone)


def test_labels_give_place_in_the_answer_and_score(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    put_text = cv2.putText

    def spy(canvas: Any, text: str, *rest: Any) -> Any:
        written.append(text)
        return put_text(canvas, text, *rest)

    monkeypatch.setattr(cv2, "putText", spy)
    three = people(*[[(20, 50, 0.9)] * 3] * 3, scores=[0.91, 0.5, 0.256])
    draw_poses(plain((200, 200)), three, PAIR, FULL)
    assert sorted(written) == ["0  0.91", "1  0.50", "2  0.26"]  # zero-based, as the contract says
    written.clear()
    draw_poses(plain((200, 200)), three, PAIR, replace(FULL, labels=False))
    assert written == []


@pytest.mark.parametrize(
    "box",
    [(0, 0, 50, 50), (-500, -500, -400, -400), (5000, 5000, 6000, 6000), (150, 100, 250, 150)],
    ids=["corner", "off the upper left", "off the lower right", "at the edge"],
)
def test_a_label_lies_inside_the_picture_wherever_the_box_is(box: tuple[float, ...]) -> None:
    image = plain((200, 120))
    poses = people([(-900, -900, 0.9)] * 3, boxes=box)
    drawn = changed(image, draw_poses(image, poses, PAIR, replace(BARE, labels=True)))
    ys, xs = np.nonzero(drawn)
    assert np.ptp(xs) > 40
    assert 10 < np.ptp(ys) < 60
    assert drawn[ys.min() : ys.max(), xs.min() : xs.max()].all()  # a whole plate


@pytest.mark.parametrize("size_wh", [(1, 1), (2, 1), (5, 200), (200, 5)], ids=str)
def test_pictures_too_small_for_a_label_are_drawn_all_the_same(size_wh: tuple[int, int]) -> None:
    drawn = draw_poses(plain(size_wh), people([(0, 0, 0.9), (1, 1, 0.3), (0, 1, 0.0)]), PAIR, FULL)
    assert drawn.shape == (size_wh[1], size_wh[0], 3)


@pytest.mark.parametrize(
    "value",
    [np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38, -1e5],
    ids=str,
)
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (0, 2)], ids=["x", "y", "other end", "score"])
def test_numbers_that_no_picture_has_are_no_trouble(value: float, place: tuple[int, int]) -> None:
    poses = people([(20, 50, 0.9), (80, 50, 0.9), (20, 90, 0.9)])
    keypoints = poses.keypoints.copy()
    keypoints[0][place] = value
    boxes = poses.boxes_xyxy.copy()
    boxes[0, place[0]] = value
    wild = replace(poses, keypoints=keypoints, boxes_xyxy=boxes)
    drawn = draw_poses(plain((100, 100)), wild, PAIR, FULL)
    assert drawn.shape == (100, 100, 3)
    if not np.isfinite(value):
        bare = draw_poses(plain((100, 100)), wild, PAIR, BARE)
        assert not changed(plain((100, 100)), bare)[50, 30:70].any()  # no limb to nowhere


def test_points_off_the_picture_leave_only_their_limbs() -> None:
    image = plain((100, 100))
    poses = people([(-50, 50, 0.9), (150, 50, 0.9), (-50, 50, 0.9)])
    drawn = changed(image, draw_poses(image, poses, PAIR, BARE))
    assert drawn[50].all()
    assert not drawn[:40].any()


def test_a_very_wide_picture_is_drawn_on_to_its_end() -> None:
    image = plain((40_000, 20))
    poses = people([(39_000, 10, 0.9), (39_900, 10, 0.9), (39_000, 10, 0.9)])
    drawn = changed(image, draw_poses(image, poses, PAIR, BARE))
    assert drawn[10, 39_000:39_900].all()
    assert not drawn[:, :38_000].any()


any_float = st.floats(width=32)


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.float32, (2, 3, 3), elements=any_float),
    arrays(np.float32, (2, 4), elements=any_float),
    arrays(np.float32, (2,), elements=any_float),
    st.builds(OverlayStyle, st.integers(0, 32), st.booleans(), st.booleans(), st.floats(0, 1)),
)
def test_whatever_the_numbers_a_picture_comes_out(
    keypoints: np.ndarray, boxes: np.ndarray, scores: np.ndarray, style: OverlayStyle
) -> None:
    poses = Poses(boxes_xyxy=boxes, scores=scores, keypoints=keypoints)
    drawn = draw_poses(plain((60, 40)), poses, PAIR, style)
    assert drawn.shape == (40, 60, 3)
    assert drawn.dtype == np.uint8
