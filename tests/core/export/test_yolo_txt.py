"""The YOLO export, read back as Ultralytics reads it."""

from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from service.core.export.files import ExportImage, File
from service.core.export.yolo_txt import label_name, yolo_files
from service.core.poses import Floats, Poses, extents
from service.core.skeleton.template import Keypoint, Skeleton
from service.skeletons import shipped
from tests.core.persons import ODD, ODD_NAMES, big_skeleton, random_people

COCO_17 = shipped()["coco_17"]


def labels(file: File, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What Ultralytics' `verify_image_label` asserts of a label file, and the rows (N, 5 + 3K)."""
    rows = [line.split() for line in file.content.decode("ascii").splitlines() if line]
    table = np.array(rows, np.float32).reshape(-1, 5 + 3 * count)
    assert all(len(row) == 5 + 3 * count for row in rows)
    points = table[:, 5:].reshape(-1, 3)[:, :2]
    assert points.size == 0 or points.max() <= 1
    assert table[:, 1:].size == 0 or table[:, 1:5].max() <= 1
    assert table.size == 0 or table.min() >= 0
    assert (table[:, 0] == 0).all()
    return table


def data_yaml(files: list[File]) -> dict[str, Any]:
    assert files[-1].name == "data.yaml"
    assert files[-1].media_type == "application/yaml"
    loaded: dict[str, Any] = yaml.safe_load(files[-1].content)
    return loaded


def test_people_come_back() -> None:
    people = random_people(3, COCO_17)

    files = yolo_files([ExportImage("dir.name.jpg", (600, 1200), people)], COCO_17, 0)

    assert [file.name for file in files] == ["dir.name.txt", "data.yaml"]
    assert files[0].media_type == "text/plain"
    table = labels(files[0], 17)
    size = np.array([600, 1200])
    centre, extent = table[:, 1:3] * size, table[:, 3:5] * size
    back = np.hstack([centre - extent / 2, centre + extent / 2])
    np.testing.assert_allclose(back, people.boxes_xyxy, atol=2e-3)
    points = table[:, 5:].reshape(3, 17, 3)
    np.testing.assert_allclose(points[..., :2] * size, people.keypoints[..., :2], atol=1e-3)
    assert (points[..., 2] == 2).all()


def test_the_yaml_says_what_ultralytics_asks_for() -> None:
    data = data_yaml(yolo_files([], COCO_17, 0))

    assert data["kpt_shape"] == [17, 3]
    assert data["flip_idx"] == [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    assert data["names"] == {0: "coco_17"}
    assert data["kpt_names"] == {0: list(COCO_17.names)}
    assert data["train"] == data["val"] == "images"


@pytest.mark.parametrize("name", list(shipped()))
def test_every_shipped_skeleton_can_be_written(name: str) -> None:
    skeleton = shipped()[name]

    files = yolo_files([ExportImage("a.jpg", (600, 600), random_people(2, skeleton))], skeleton, 0)

    assert len(labels(files[0], len(skeleton.keypoints))) == 2
    data = data_yaml(files)
    assert sorted(data["flip_idx"]) == list(range(len(skeleton.keypoints)))


def test_zero_persons_are_an_empty_file() -> None:
    files = yolo_files([ExportImage("a.jpg", (9, 9), Poses.empty(17))], COCO_17, 0)

    assert files[0].content == b""


def test_what_lies_outside_is_not_labelled() -> None:
    people = random_people(3, COCO_17)
    people.keypoints[0, 0, :2] = (-5, 50)
    people.keypoints[0, 1, :2] = (50, 1e30)
    people.keypoints[0, 2] = np.nan
    people.keypoints[0, 3] = 0
    people.keypoints[0, 4, :2] = (600, 0)  # just inside
    people.boxes_xyxy[0] = (-100, -100, 700, 300)
    people.boxes_xyxy[1] = (700, 0, 800, 100)  # this person is outside

    files = yolo_files([ExportImage("a.jpg", (600, 600), people)], COCO_17, 0)

    table = labels(files[0], 17)
    assert len(table) == 2
    assert table[0, 1:5].tolist() == pytest.approx([0.5, 0.25, 1, 0.5])
    points = table[0, 5:].reshape(17, 3)
    assert not points[:4].any()
    assert points[4].tolist() == [1, 0, 2]


@pytest.mark.parametrize(("visible_score", "flags"), [(0.5, [2, 1, 0, 0]), (0.0, [2, 2, 0, 0])])
def test_only_keypoints_with_the_score_are_visible(visible_score: float, flags: list[int]) -> None:
    people = random_people(1, COCO_17)
    people.keypoints[0, 0] = (50, 50, 0.5)
    people.keypoints[0, 1] = (60, 50, 0.49)
    people.keypoints[0, 2] = (-1, 50, 0.9)  # outside, which Ultralytics refuses
    people.keypoints[0, 3] = 0

    files = yolo_files([ExportImage("a.jpg", (600, 600), people)], COCO_17, visible_score)

    assert labels(files[0], 17)[0, 5:].reshape(17, 3)[:4, 2].tolist() == flags


@given(st.data())
def test_any_coordinates_make_a_file_that_ultralytics_takes(data: st.DataObject) -> None:
    numbers = st.floats(width=32) | st.floats(-100, 700, width=32)
    keypoints: Floats = np.array(
        data.draw(st.lists(st.tuples(numbers, numbers, st.floats(0, 1, width=32)), min_size=3, max_size=3)),
        np.float32,
    )[None]
    box = data.draw(st.none() | st.tuples(numbers, numbers, numbers, numbers))
    poses = Poses(np.array([box or [np.nan] * 4], np.float32), np.ones(1, np.float32), keypoints)
    skeleton = Skeleton("three", "", (Keypoint("a"), Keypoint("b"), Keypoint("c")))
    if not np.isfinite(poses.boxes_xyxy).all() and np.isnan(extents(keypoints)).any():
        return

    labels(yolo_files([ExportImage("a.jpg", (640, 480), poses)], skeleton, 0)[0], 3)


def test_odd_names_survive() -> None:
    data = data_yaml(yolo_files([], ODD, 0))

    assert data["kpt_names"][0] == list(ODD_NAMES)
    assert data["names"][0] == ODD.name
    assert data["flip_idx"][5:7] == [6, 5]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=5))
def test_any_name_survives(names: list[str]) -> None:
    """Control characters too, though templates have none."""
    skeleton = Skeleton(names[0], "", tuple(Keypoint(name) for name in names))

    assert data_yaml(yolo_files([], skeleton, 0))["kpt_names"][0] == names


@pytest.mark.parametrize(
    ("picture", "label"),
    [("a.jpg", "a.txt"), ("a.b.jpg", "a.b.txt"), ("a", "a.txt"), (".jpg", ".jpg.txt"), ("肩.png", "肩.txt")],
)
def test_labels_are_called_after_their_picture(picture: str, label: str) -> None:
    assert label_name(picture) == label


def test_a_thousand_points_are_written() -> None:
    skeleton = big_skeleton()

    files = yolo_files([ExportImage("a.jpg", (600, 600), random_people(5, skeleton))], skeleton, 0)

    assert labels(files[0], 1000).shape == (5, 3005)
    assert data_yaml(files)["kpt_shape"] == [1000, 3]
