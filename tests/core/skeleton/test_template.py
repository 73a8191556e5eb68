"""Names, sides and flips of a skeleton."""

from dataclasses import replace

import pytest

from service.core.skeleton.template import Edge, Keypoint, Skeleton

ARM = Skeleton(
    name="arms",
    title="Arms",
    keypoints=(Keypoint("neck", 0.1), Keypoint("left_wrist", 0.2), Keypoint("right_wrist", 0.3)),
    edges=(Edge("neck", "left_wrist"),),
    flip_pairs=(("left_wrist", "right_wrist"),),
)


def test_names_and_their_order() -> None:
    assert ARM.names == ("neck", "left_wrist", "right_wrist")
    assert ARM.index("right_wrist") == 2


def test_an_unknown_name_has_no_index() -> None:
    with pytest.raises(ValueError, match="no keypoint left_ankle"):
        ARM.index("left_ankle")


def test_sides_come_from_the_flip_pairs() -> None:
    assert [ARM.side(name) for name in ARM.names] == ["middle", "left", "right"]


def test_a_mirror_swaps_the_pairs_and_leaves_the_rest() -> None:
    assert ARM.flip_index == (0, 2, 1)


def test_sigmas_are_all_or_none() -> None:
    assert ARM.sigmas == (0.1, 0.2, 0.3)
    assert replace(ARM, keypoints=(*ARM.keypoints, Keypoint("nose"))).sigmas is None


def test_equal_skeletons_have_equal_hashes() -> None:
    again = replace(ARM)

    assert again is not ARM
    assert again == ARM
    assert hash(again) == hash(ARM)
    assert replace(ARM, title="Other") != ARM
