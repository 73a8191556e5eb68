"""The CSV export, read back by the csv module."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.export.csv_table import csv_files, plain
from service.core.export.files import ExportImage
from service.core.poses import Poses
from service.core.skeleton.template import Skeleton
from service.skeletons import shipped
from tests.core.persons import ODD, ODD_NAMES, big_skeleton, random_people

COCO_17 = shipped()["coco_17"]


def rows(pictures: list[ExportImage], skeleton: Skeleton) -> list[dict[str, str]]:
    (file,) = csv_files(pictures, skeleton)
    assert file.name == "poses.csv"
    assert file.media_type == "text/csv"
    return list(csv.DictReader(io.StringIO(file.content.decode(), newline=""), strict=True))


def test_people_come_back() -> None:
    people = random_people(2, COCO_17)
    people.keypoints[1, 0] = 0

    first, second = rows([ExportImage("a.jpg", (640, 480), people, (5, None))], COCO_17)

    assert (first["file_name"], first["image_width"], first["image_height"]) == ("a.jpg", "640", "480")
    assert (first["person"], second["person"]) == ("0", "1")
    assert (first["track_id"], second["track_id"]) == ("5", "")
    assert float(first["score"]) == pytest.approx(0.9)
    corners = [float(first[name]) for name in ("x1", "y1", "x2", "y2")]
    assert corners == pytest.approx(people.boxes_xyxy[0].tolist(), abs=1e-3)
    for place, name in enumerate(COCO_17.names):
        point = [float(first[f"{name}_{end}"]) for end in ("x", "y", "score")]
        assert point == pytest.approx(people.keypoints[0, place].tolist(), abs=1e-3)
    assert [second[f"nose_{end}"] for end in ("x", "y", "score")] == ["", "", "0"]
    assert "depth_source" not in first
    assert len(first) == 12 + 3 * 17


def test_positions_have_columns_if_any_person_has_them() -> None:
    known, unknown = random_people(1, COCO_17, positions=True), random_people(1, COCO_17)
    assert known.positions is not None
    known.positions[0, 0, 0] = np.nan

    first, second = rows(
        [ExportImage("a.jpg", (9, 9), known), ExportImage("b.jpg", (9, 9), unknown)], COCO_17
    )

    assert first["depth_source"] == "measured"
    assert first["nose_x_m"] == ""
    assert float(first["nose_z_m"]) == pytest.approx(known.positions[0, 0, 2], abs=1e-3)
    assert second["depth_source"] == second["nose_z_m"] == ""


def test_hands_have_their_side_and_person() -> None:
    hand = shipped()["mediapipe_hand_21"]
    people = random_people(2, hand)
    hands = Poses(
        people.boxes_xyxy,
        people.scores,
        people.keypoints,
        sides=np.array(["left", ""]),
        person_index=np.array([0, -1]),
    )

    first, second = rows([ExportImage("a.jpg", (9, 9), hands)], hand)

    assert (first["side"], first["person_index"]) == ("left", "0")
    assert (second["side"], second["person_index"]) == ("", "")


def test_zero_persons_are_a_header() -> None:
    (file,) = csv_files([ExportImage("a.jpg", (9, 9), Poses.empty(17))], COCO_17)

    assert file.content.count(b"\r\n") == 1
    assert file.content.startswith(b"file_name,")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("nose", "nose"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("＝1", "'＝1"),
        ("'a", "''a"),
        ("a=1", "a=1"),
        ("", ""),
    ],
    ids=ascii,
)
def test_no_text_is_a_formula(text: str, written: str) -> None:
    assert plain(text) == written


def test_odd_names_survive_and_are_no_formulas() -> None:
    picture = ExportImage('=cmd|"/c calc"!A1,\n.jpg', (600, 600), random_people(1, ODD))

    (row,) = rows([picture], ODD)

    assert row["file_name"] == "'" + picture.file_name
    for name in ODD_NAMES:
        assert f"{plain(name)}_score" in row
    assert not any(cell.startswith(("=", "+", "@")) for cell in [*row, *row.values()])


@given(st.lists(st.text(), min_size=1, max_size=6, unique=True))
def test_columns_differ_whatever_the_points_are_called(names: list[str]) -> None:
    ends = ("x", "y", "score", "x_m", "y_m", "z_m")

    columns = [plain(f"{name}_{end}") for name in names for end in ends]

    assert len(set(columns)) == len(columns)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_empty(bad: float) -> None:
    people = random_people(1, COCO_17)
    people.keypoints[0, 0, 1] = bad
    people.boxes_xyxy[0, 0] = bad

    (row,) = rows([ExportImage("a.jpg", (9, 9), people)], COCO_17)

    assert row["nose_x"] == row["nose_y"] == ""
    assert np.isfinite(float(row["x1"]))


def test_a_thousand_points_are_written() -> None:
    skeleton = big_skeleton()

    assert len(rows([ExportImage("a.jpg", (9, 9), random_people(5, skeleton))], skeleton)) == 5
