"""The panel of people in space."""

import numpy as np
import pytest

from service.core.drawing.poses import OverlayStyle
from service.core.drawing.space import with_space_panel
from service.core.poses import Poses
from service.skeletons import shipped

SKELETON = shipped()["coco_17"]
STYLE = OverlayStyle()


def people(count: int, *, known: bool = True) -> Poses:
    keypoints = np.full((count, 17, 3), 0.9, np.float32)
    positions = np.full((count, 17, 3), np.nan, np.float32)
    if known:
        positions[:] = np.linspace(-0.5, 0.5, 17, dtype=np.float32)[None, :, None] * (1, 1, 0.2)
    return Poses(
        boxes_xyxy=np.zeros((count, 4), np.float32),
        scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
        keypoints=keypoints,
        positions=positions,
        depth_source="measured",
    )


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("size_wh", [(640, 480), (1, 1), (200, 900)])
def test_the_picture_stays_and_a_panel_comes_beside_it(count: int, size_wh: tuple[int, int]) -> None:
    picture = np.full((size_wh[1], size_wh[0], 3), 99, np.uint8)
    drawn = with_space_panel(picture, people(count), SKELETON, STYLE)
    assert drawn.shape[0] == size_wh[1]
    assert drawn.shape[1] > size_wh[0]
    assert (drawn[:, : size_wh[0]] == picture).all()


def test_a_person_without_positions_has_an_empty_row() -> None:
    picture = np.zeros((400, 400, 3), np.uint8)
    empty = with_space_panel(picture, people(1, known=False), SKELETON, STYLE)
    known = with_space_panel(picture, people(1), SKELETON, STYLE)
    assert (empty != known).any()


def test_the_two_views_differ_where_depth_does() -> None:
    drawn = with_space_panel(np.zeros((400, 400, 3), np.uint8), people(1), SKELETON, STYLE)
    front, side = drawn[40:, 400:600], drawn[40:, 600:]
    assert (front != side).any()
