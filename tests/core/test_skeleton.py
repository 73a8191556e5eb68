"""Named points and how they hang together."""

import pytest

from service.core.skeleton import Edge, Keypoint, Skeleton

ARM = Skeleton(
    name="arm",
    title="Two hands and a nose",
    keypoints=(Keypoint("nose"), Keypoint("left_hand"), Keypoint("right_hand")),
    edges=(Edge("nose", "left_hand"),),
    flip_pairs=(("left_hand", "right_hand"),),
)


def test_names_are_in_the_order_of_the_points() -> None:
    assert ARM.names == ("nose", "left_hand", "right_hand")
    assert [ARM.index(name) for name in ARM.names] == [0, 1, 2]


def test_a_name_that_is_not_there_has_no_index() -> None:
    with pytest.raises(ValueError, match="tuple"):
        ARM.index("tail")


@pytest.mark.parametrize(
    ("name", "side"),
    [("nose", "middle"), ("left_hand", "left"), ("right_hand", "right"), ("tail", "middle")],
)
def test_the_side_comes_from_the_flip_pairs(name: str, side: str) -> None:
    assert ARM.side(name) == side
