"""The templates that ship: data that has to be right."""

import json
import math
import re
from importlib.resources import files
from pathlib import Path

import pytest

from service.core.skeleton.template import Skeleton
from service.skeletons import known, shipped
from service.skeletons.format import parse_skeleton, skeleton_data

# cocodataset/cocoapi, PythonAPI/pycocotools/cocoeval.py, Params.setKpParams: kpt_oks_sigmas / 10.
COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
    0.089, 0.089,
)  # fmt: skip

templates = pytest.mark.parametrize("skeleton", shipped().values(), ids=lambda skeleton: skeleton.name)


def test_every_data_file_is_a_template_named_like_the_file() -> None:
    stems = {entry.name.removesuffix(".json") for entry in files("service.skeletons").iterdir()
             if entry.name.endswith(".json")}  # fmt: skip
    assert stems
    assert set(shipped()) == stems
    assert all(name == skeleton.name for name, skeleton in shipped().items())


def test_the_templates_are_read_once_and_cannot_be_changed() -> None:
    assert shipped() is shipped()
    with pytest.raises(TypeError):
        shipped()["coco_17"] = None  # type: ignore[index]


@templates
def test_keypoints_have_unique_names_in_lower_snake_case(skeleton: Skeleton) -> None:
    assert len(set(skeleton.names)) == len(skeleton.names) > 0
    for name in skeleton.names:
        assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name)


@templates
def test_it_has_a_title_for_people(skeleton: Skeleton) -> None:
    assert skeleton.title.strip()


@templates
def test_edges_link_two_different_known_points_once(skeleton: Skeleton) -> None:
    links = [frozenset((edge.start, edge.end)) for edge in skeleton.edges]
    assert all(len(link) == 2 for link in links)
    assert len(set(links)) == len(links)
    assert set().union(*links) <= set(skeleton.names)


@templates
def test_flip_pairs_balance_left_and_right(skeleton: Skeleton) -> None:
    paired = [name for pair in skeleton.flip_pairs for name in pair]
    assert len(set(paired)) == len(paired)
    assert set(paired) <= set(skeleton.names)
    for left, right in skeleton.flip_pairs:
        if re.search(r"left|right", left + right):  # points of a face are numbered
            assert left.replace("left", "right") == right
    sided = {name for name in skeleton.names if re.search(r"(^|_)(left|right)(_|$)", name)}
    assert sided <= set(paired)


@templates
def test_edges_are_the_same_in_a_mirror(skeleton: Skeleton) -> None:
    mirror = {a: b for left, right in skeleton.flip_pairs for a, b in ((left, right), (right, left))}
    links = {frozenset((edge.start, edge.end)) for edge in skeleton.edges}
    assert {frozenset(mirror.get(name, name) for name in link) for link in links} == links


@templates
def test_sigmas_are_sane_and_those_of_the_body_the_same_on_both_sides(skeleton: Skeleton) -> None:
    sigma = {point.name: point.sigma for point in skeleton.keypoints}
    assert all(value is None or 0 < value <= 1 for value in sigma.values())
    body = set(shipped()["coco_17"].names)  # COCO-WholeBody publishes others for left and right feet
    assert all(sigma[left] == sigma[right] for left, right in skeleton.flip_pairs if left in body)


def test_coco_17_has_the_points_and_sigmas_of_coco() -> None:
    coco = shipped()["coco_17"]
    assert coco.names == (
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
        "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
        "right_knee", "left_ankle", "right_ankle",
    )  # fmt: skip
    assert tuple(point.sigma for point in coco.keypoints) == COCO_SIGMAS
    assert len(coco.edges) == 19  # as many as COCO's own `skeleton`


# name: points, published links, drawn outlines, flip pairs, sum of the sigmas
TABLE = {
    "animal_24": (24, 24, 0, 9, None),
    "blazepose_33": (33, 35, 0, 16, None),
    "coco_17": (17, 19, 0, 8, 1.138),
    "coco_wholebody_133": (133, 65, 63, 61, 3.861),
    "mediapipe_face_mesh_468": (468, 149, 0, 220, None),
    "mediapipe_hand_21": (21, 21, 0, 0, None),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_numbers_are_those_of_the_source(name: str) -> None:
    template = shipped()[name]
    points, links, outlines, pairs, sigmas = TABLE[name]

    assert len(template.keypoints) == points
    assert sum(not edge.drawing_only for edge in template.edges) == links
    assert sum(edge.drawing_only for edge in template.edges) == outlines
    assert len(template.flip_pairs) == pairs
    assert (template.sigmas is None) == (sigmas is None)
    if template.sigmas is not None and sigmas is not None:
        assert sum(template.sigmas) == pytest.approx(sigmas, abs=1e-9)


@templates
def test_a_template_survives_being_written_and_read(skeleton: Skeleton) -> None:
    assert parse_skeleton(skeleton_data(skeleton)) == skeleton


@templates
def test_a_mirror_twice_is_no_mirror(skeleton: Skeleton) -> None:
    flip = skeleton.flip_index

    assert [flip[flip[index]] for index in range(len(flip))] == list(range(len(flip)))


@pytest.mark.parametrize("name", sorted(TABLE.keys() - {"mediapipe_face_mesh_468"}))
def test_every_point_is_linked_to_something(name: str) -> None:
    """But for the mesh, of which only the outlines are drawn."""
    template = shipped()[name]

    assert {end for edge in template.edges for end in (edge.start, edge.end)} == set(template.names)


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
        (23, "face_0", "face_16", 0.042),
        (31, "face_8", "face_8", 0.020),
        (70, "face_47", "face_40", 0.034),
        (90, "face_67", "face_65", 0.008),
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
    """Point 36 of the 68 is the outer corner of the right eye; point 33 of the mesh is it too."""
    assert shipped()["coco_wholebody_133"].side("face_36") == "right"
    assert shipped()["mediapipe_face_mesh_468"].side("face_mesh_033") == "right"
    assert shipped()["mediapipe_face_mesh_468"].side("face_mesh_263") == "left"
    assert shipped()["mediapipe_face_mesh_468"].side("face_mesh_001") == "middle"


def test_hands_of_a_whole_body_are_in_the_hands_order() -> None:
    hand, whole = shipped()["mediapipe_hand_21"], shipped()["coco_wholebody_133"]

    for instance, first in zip(hand.instances, (91, 112), strict=True):
        names = dict(instance.names)
        assert [whole.index(names[name]) for name in hand.names] == list(range(first, first + 21))
    assert [instance.side for instance in hand.instances] == ["left", "right"]


def test_templates_of_the_operators_own_are_known_beside_the_shipped_ones(tmp_path: Path) -> None:
    good = {"name": "stick", "title": "A stick", "keypoints": [{"name": "top"}, {"name": "end"}]}
    (tmp_path / "stick.json").write_text(json.dumps(good), encoding="utf-8")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    (tmp_path / "empty.json").write_text('{"name": "", "keypoints": []}', encoding="utf-8")
    (tmp_path / "taken.json").write_text(json.dumps({**good, "name": "coco_17"}), encoding="utf-8")
    templates = known(tmp_path)
    assert set(templates) == {*shipped(), "stick"}
    assert templates["coco_17"] is shipped()["coco_17"]
    assert known(tmp_path / "nowhere") == shipped()
