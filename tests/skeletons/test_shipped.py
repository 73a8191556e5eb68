"""The templates that ship, held against what their sources publish."""

import math

import pytest

from service.core.skeleton import Skeleton
from service.core.skeleton_data import parse_skeleton, skeleton_data
from service.skeletons import shipped

# name: points, published links, drawn outlines, flip pairs, sum of the sigmas
TABLE = {
    "animal_24": (24, 24, 0, 9, None),
    "blazepose_33": (33, 35, 0, 16, None),
    "coco_17": (17, 19, 0, 8, 1.138),
    "coco_wholebody_133": (133, 65, 63, 61, 3.861),
    "mediapipe_face_mesh_468": (468, 149, 0, 220, None),
    "mediapipe_hand_21": (21, 21, 0, 0, None),
}


@pytest.fixture(params=TABLE)
def template(request: pytest.FixtureRequest) -> Skeleton:
    return shipped()[request.param]


def test_these_templates_ship_in_the_order_of_their_names() -> None:
    assert list(shipped()) == list(TABLE)


def test_the_numbers_are_those_of_the_source(template: Skeleton) -> None:
    points, links, outlines, pairs, sigmas = TABLE[template.name]

    assert len(template.keypoints) == points
    assert sum(not edge.drawing_only for edge in template.edges) == links
    assert sum(edge.drawing_only for edge in template.edges) == outlines
    assert len(template.flip_pairs) == pairs
    assert (template.sigmas is None) == (sigmas is None)
    if template.sigmas is not None and sigmas is not None:
        assert sum(template.sigmas) == pytest.approx(sigmas, abs=1e-9)


def test_a_template_survives_being_written_and_read(template: Skeleton) -> None:
    assert parse_skeleton(skeleton_data(template)) == template


def test_no_link_is_there_twice(template: Skeleton) -> None:
    links = [frozenset((edge.start, edge.end)) for edge in template.edges]

    assert len(set(links)) == len(links)


def test_a_mirror_twice_is_no_mirror(template: Skeleton) -> None:
    flip = template.flip_index

    assert [flip[flip[index]] for index in range(len(flip))] == list(range(len(flip)))


def test_left_is_called_left(template: Skeleton) -> None:
    for left, right in template.flip_pairs:
        assert "right" not in left
        assert "left" not in right
        if "left" in left or "right" in right:
            assert left.replace("left", "right") == right


def test_the_mirror_image_of_a_limb_is_a_limb(template: Skeleton) -> None:
    names, flip = template.names, template.flip_index
    links = {frozenset((edge.start, edge.end)) for edge in template.edges}

    mirrored = {frozenset(names[flip[template.index(end)]] for end in link) for link in links}

    assert mirrored == links


def test_every_point_is_linked_to_something(template: Skeleton) -> None:
    linked = {name for edge in template.edges for name in (edge.start, edge.end)}

    if template.name != "mediapipe_face_mesh_468":  # only its outlines are drawn
        assert linked == set(template.names)


def test_coco_is_the_beginning_of_whole_body() -> None:
    coco, whole = shipped()["coco_17"], shipped()["coco_wholebody_133"]

    assert whole.keypoints[:17] == coco.keypoints
    assert whole.edges[:19] == coco.edges


@pytest.mark.parametrize(
    ("index", "name", "mirrored", "sigma"),
    [
        (0, "nose", "nose", 0.026),
        (12, "right_hip", "left_hip", 0.107),
        (17, "left_big_toe", "right_big_toe", 0.068),
        (20, "right_big_toe", "left_big_toe", 0.092),
        (23, "face-0", "face-16", 0.042),
        (31, "face-8", "face-8", 0.020),
        (70, "face-47", "face-40", 0.034),
        (90, "face-67", "face-65", 0.008),
        (91, "left_hand_root", "right_hand_root", 0.029),
        (95, "left_thumb4", "right_thumb4", 0.047),
        (132, "right_pinky_finger4", "left_pinky_finger4", 0.031),
    ],
)
def test_points_of_whole_body(index: int, name: str, mirrored: str, sigma: float) -> None:
    whole = shipped()["coco_wholebody_133"]

    assert whole.names[index] == name
    assert whole.names[whole.flip_index[index]] == mirrored
    assert math.isclose(whole.keypoints[index].sigma or 0, sigma)


def test_the_left_of_a_face_is_the_persons_own() -> None:
    """Point 36 of the 68 is the outer corner of the right eye; mesh point 33 is it too."""
    assert shipped()["coco_wholebody_133"].side("face-36") == "right"
    assert shipped()["mediapipe_face_mesh_468"].side("mesh_33") == "right"
    assert shipped()["mediapipe_face_mesh_468"].side("mesh_263") == "left"
    assert shipped()["mediapipe_face_mesh_468"].side("mesh_1") == "middle"


def test_hands_of_a_whole_body_are_in_the_hands_order() -> None:
    hand, whole = shipped()["mediapipe_hand_21"], shipped()["coco_wholebody_133"]

    for instance, first in zip(hand.instances, (91, 112), strict=True):
        names = dict(instance.names)
        assert [whole.index(names[name]) for name in hand.names] == list(range(first, first + 21))
    assert [instance.side for instance in hand.instances] == ["left", "right"]
