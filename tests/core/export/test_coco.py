"""The COCO export, judged by pycocotools."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from service.core.export.coco import coco_files, image_numbers
from service.core.export.files import ExportImage
from service.core.poses import Poses
from service.core.skeleton.template import Skeleton
from service.skeletons import shipped
from tests.core.persons import ODD, ODD_NAMES, big_skeleton, random_people

COCO_17 = shipped()["coco_17"]


def export(pictures: list[ExportImage], skeleton: Skeleton) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    annotations, results = coco_files(pictures, skeleton, 0)
    assert (annotations.name, results.name) == ("annotations.json", "results.json")
    assert annotations.media_type == results.media_type == "application/json"
    return json.loads(annotations.content), json.loads(results.content)


def pictures_of(skeleton: Skeleton, counts: list[int]) -> list[ExportImage]:
    return [
        ExportImage(f"{name}.jpg", (600, 600), random_people(count, skeleton, seed=name))
        for name, count in enumerate(counts)
    ]


def average_precision(
    folder: Path, skeleton: Skeleton, pictures: list[ExportImage], found: list[ExportImage]
) -> float:
    """AP of the found people against the pictures', with the skeleton's sigmas."""
    truth, results = folder / "annotations.json", folder / "results.json"
    truth.write_bytes(coco_files(pictures, skeleton, 0)[0].content)
    results.write_bytes(coco_files(found, skeleton, 0)[1].content)
    known = COCO(str(truth))
    evaluation = COCOeval(known, known.loadRes(str(results)), "keypoints")
    sigmas = known.dataset["categories"][0].get("sigmas", [0.05] * len(skeleton.keypoints))
    evaluation.params.kpt_oks_sigmas = np.array(sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.parametrize("name", list(shipped()))
def test_people_are_as_good_as_themselves(tmp_path: Path, name: str) -> None:
    skeleton = shipped()[name]
    pictures = pictures_of(skeleton, [3, 0, 1, 20])

    assert average_precision(tmp_path, skeleton, pictures, pictures) == pytest.approx(1.0)


def test_people_with_missing_points_are_as_good_as_themselves(tmp_path: Path) -> None:
    pictures = pictures_of(COCO_17, [4])
    pictures[0].poses.keypoints[:, 3:9] = 0
    pictures[0].poses.keypoints[0, 0] = np.nan

    assert average_precision(tmp_path, COCO_17, pictures, pictures) == pytest.approx(1.0)


def test_the_sigmas_decide_how_far_is_too_far(tmp_path: Path) -> None:
    """Every point off by OKS 0.8 at its own sigma: good enough up to threshold 0.80, that is 7 of 10."""
    pictures = pictures_of(COCO_17, [5])
    assert COCO_17.sigmas is not None
    poses = pictures[0].poses
    width, height = (poses.boxes_xyxy[:, 2:] - poses.boxes_xyxy[:, :2]).T
    off = np.sqrt(-np.log(0.801) * 2 * (width * height))[:, None] * 2 * np.array(COCO_17.sigmas)
    moved = poses.keypoints.copy()
    moved[..., 0] += off
    found = Poses(poses.boxes_xyxy, poses.scores, moved)

    ap = average_precision(tmp_path, COCO_17, pictures, [ExportImage("0.jpg", (600, 600), found)])

    assert ap == pytest.approx(0.7, abs=0.01)


def test_a_data_set_says_what_coco_says() -> None:
    people = random_people(2, COCO_17, positions=True)
    people.keypoints[1, 4] = 0
    data, results = export([ExportImage("a.jpg", (640, 600), people, (7, None))], COCO_17)

    assert data["images"] == [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 600}]
    (category,) = data["categories"]
    assert category["name"] == "coco_17"
    assert category["keypoints"] == list(COCO_17.names)
    assert category["skeleton"][0] == [16, 14]  # COCO's own first link
    assert category["sigmas"] == list(COCO_17.sigmas or ())
    first, second = data["annotations"]
    assert [first["id"], second["id"]] == [1, 2]
    assert first["num_keypoints"] == 17
    assert second["num_keypoints"] == 16
    assert second["keypoints"][12:15] == [0, 0, 0]
    assert first["keypoints"][2::3] == [2] * 17
    x1, y1, x2, y2 = people.boxes_xyxy[0]
    assert first["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=2e-3)
    assert first["area"] == pytest.approx((x2 - x1) * (y2 - y1), rel=1e-4)
    assert first["keypoint_scores"] == pytest.approx(people.keypoints[0, :, 2], abs=1e-6)
    assert first["track_id"] == 7
    assert "track_id" not in second
    assert first["depth_source"] == "measured"
    assert people.positions is not None
    assert first["positions"] == pytest.approx(people.positions[0].ravel(), abs=6e-4)
    assert [result["score"] for result in results] == pytest.approx([0.9, 0.3])
    assert results[0]["keypoints"] == first["keypoints"]


def test_outlines_for_drawing_are_no_limbs() -> None:
    whole = shipped()["coco_wholebody_133"]

    data, _ = export([ExportImage("a.jpg", (9, 9), Poses.empty(133))], whole)

    assert len(data["categories"][0]["skeleton"]) == 65


def test_a_skeleton_without_sigmas_says_nothing_of_them() -> None:
    data, _ = export([ExportImage("a.jpg", (9, 9), Poses.empty(21))], shipped()["mediapipe_hand_21"])

    assert "sigmas" not in data["categories"][0]


def test_zero_persons_are_an_empty_list() -> None:
    data, results = export([ExportImage("a.jpg", (9, 9), Poses.empty(17))], COCO_17)

    assert data["annotations"] == results == []
    assert len(data["images"]) == 1


def test_hands_carry_their_side_and_person() -> None:
    hand = shipped()["mediapipe_hand_21"]
    people = random_people(2, hand)
    hands = Poses(
        people.boxes_xyxy,
        people.scores,
        people.keypoints,
        sides=np.array(["left", ""]),
        person_index=np.array([3, -1]),
    )

    data, _ = export([ExportImage("a.jpg", (600, 600), hands)], hand)

    assert data["annotations"][0]["side"] == "left"
    assert data["annotations"][0]["person_index"] == 3
    assert not {"side", "person_index"} & set(data["annotations"][1])


def test_unknown_coordinates_in_space_are_null() -> None:
    people = random_people(2, COCO_17, positions=True)
    assert people.positions is not None
    people.positions[0, 0] = (np.nan, 1, np.inf)
    people.positions[1] = np.nan

    data, _ = export([ExportImage("a.jpg", (600, 600), people)], COCO_17)

    assert data["annotations"][0]["positions"][:3] == [None, 1.0, None]
    assert "positions" not in data["annotations"][1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_no_point(bad: float) -> None:
    people = random_people(1, COCO_17)
    people.keypoints[0, 0, 0] = bad
    people.boxes_xyxy[0, 2] = bad
    people.scores[0] = bad

    data, _ = export([ExportImage("a.jpg", (600, 600), people)], COCO_17)

    (annotation,) = data["annotations"]
    assert annotation["keypoints"][:3] == [0, 0, 0]
    assert annotation["score"] == 0
    assert annotation["bbox"][2] > 0


def test_who_has_no_box_and_no_point_is_refused() -> None:
    nobody = Poses(
        np.full((1, 4), np.nan, np.float32), np.ones(1, np.float32), np.zeros((1, 17, 3), np.float32)
    )

    with pytest.raises(ValueError, match="neither a box nor a point"):
        coco_files([ExportImage("a.jpg", (9, 9), nobody)], COCO_17, 0)


def cut_people() -> Poses:
    """Persons cut by the edge of an image of 300×450 px: boxes and keypoints lie beyond it."""
    keypoints = np.zeros((3, 17, 3), np.float32)
    keypoints[0, 0] = (100, 100, 0.9)
    keypoints[0, 1] = (110, 90, 0.5)
    keypoints[0, 2] = (90, 90, 0.49)
    keypoints[0, 3] = (150, 470, 0.9)  # guessed below the lower edge
    keypoints[1, 0] = (250, 20, 0.05)
    keypoints[2, 0] = (400, 500, 0.9)
    boxes = np.array([[-0.051, 20, 200, 451.2], [200, -3, 301, 100], [310, 0, 420, 460]], np.float32)
    return Poses(boxes, np.array([0.9, 0.8, 0.7], np.float32), keypoints)


def test_boxes_are_cut_to_the_image_and_a_person_outside_is_left_out() -> None:
    picture = ExportImage("a.jpg", (300, 450), cut_people())

    files = coco_files([picture], COCO_17, 0.5)

    for people in (json.loads(files[0].content)["annotations"], json.loads(files[1].content)):
        assert [person["bbox"] for person in people] == [[0, 20, 200, 430], [200, 0, 100, 100]]
        assert [person["area"] for person in people] == [86000, 10000]


@pytest.mark.parametrize(
    ("visible_score", "flags"),
    [(0.5, [2, 2, 1, 1, 0]), (0.0, [2, 2, 2, 1, 0]), (0.9, [2, 1, 1, 1, 0]), (2.0, [1, 1, 1, 1, 0])],
)
def test_only_keypoints_with_the_score_and_in_the_image_are_visible(
    visible_score: float, flags: list[int]
) -> None:
    picture = ExportImage("a.jpg", (300, 450), cut_people())

    data = json.loads(coco_files([picture], COCO_17, visible_score)[0].content)

    first = data["annotations"][0]
    assert first["keypoints"][2:15:3] == flags
    assert first["num_keypoints"] == 4


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["000000000785.jpg", "42.png"], [785, 42]),
        (["1.jpg", "01.jpg"], [1, 2]),
        (["7.jpg", "a.jpg"], [1, 2]),
        (["٧.jpg"], [1]),
        (["9" * 16 + ".jpg"], [1]),
        ([".jpg"], [1]),
        ([], []),
    ],
)
def test_pictures_called_by_numbers_keep_them(names: list[str], numbers: list[int]) -> None:
    assert image_numbers(names) == numbers


def test_odd_names_survive_in_plain_ascii() -> None:
    picture = ExportImage('"odd"\u2028 肩.jpg', (600, 600), random_people(1, ODD))

    files = coco_files([picture], ODD, 0)

    assert all(file.content.isascii() for file in files)
    data = json.loads(files[0].content)
    assert data["images"][0]["file_name"] == picture.file_name
    assert data["categories"][0]["keypoints"] == list(ODD_NAMES)
    assert data["categories"][0]["name"] == ODD.name


def test_a_thousand_points_are_exported(tmp_path: Path) -> None:
    skeleton = big_skeleton()
    pictures = pictures_of(skeleton, [2])

    assert average_precision(tmp_path, skeleton, pictures, pictures) == pytest.approx(1.0)
