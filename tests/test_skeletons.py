"""The templates that ship: data that has to be right."""

import re
from importlib.resources import files

import pytest

from service.core.skeleton import Skeleton
from service.skeletons import shipped

# cocodataset/cocoapi, PythonAPI/pycocotools/cocoeval.py, Params.setKpParams: kpt_oks_sigmas / 10.
COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
    0.089, 0.089,
)  # fmt: skip

# jin-s13/COCO-WholeBody, evaluation/myeval_wholebody.py: not the same for left and right feet, faces, hands.
PUBLISHED_UNEVEN = ("coco_wholebody_133", "mediapipe_wholebody")

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
        assert left.replace("left", "right") == right or "left" not in left
    sided = {name for name in skeleton.names if re.search(r"(^|_)(left|right)(_|$)", name)}
    assert sided <= set(paired)


@templates
def test_edges_are_the_same_in_a_mirror(skeleton: Skeleton) -> None:
    mirror = {a: b for left, right in skeleton.flip_pairs for a, b in ((left, right), (right, left))}
    links = {frozenset((edge.start, edge.end)) for edge in skeleton.edges}
    assert {frozenset(mirror.get(name, name) for name in link) for link in links} == links


@templates
def test_sigmas_are_sane_and_the_same_on_both_sides(skeleton: Skeleton) -> None:
    sigma = {point.name: point.sigma for point in skeleton.keypoints}
    assert all(value is None or 0 < value <= 1 for value in sigma.values())
    if skeleton.name not in PUBLISHED_UNEVEN:
        assert all(sigma[left] == sigma[right] for left, right in skeleton.flip_pairs)


def test_coco_17_has_the_points_and_sigmas_of_coco() -> None:
    coco = shipped()["coco_17"]
    assert coco.names == (
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
        "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
        "right_knee", "left_ankle", "right_ankle",
    )  # fmt: skip
    assert tuple(point.sigma for point in coco.keypoints) == COCO_SIGMAS
    assert len(coco.edges) == 19  # as many as COCO's own `skeleton`
