"""`posegate export`."""

import asyncio
import csv
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from pycocotools.coco import COCO
from typer.testing import CliRunner, Result

from posegate.v1 import pose_service_pb2 as pb
from service.cli.main import app
from service.client import connect
from tests.running import running
from tests.servicers.two_persons import TwoPersons, grey, pose_stub


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with running(TwoPersons(), default_model="body") as service:
        yield service.address


async def result(address: str, picture: str, **fields: Any) -> dict[str, Any]:
    """A line of `posegate detect --json`."""
    async with connect(address) as channel:
        answer = await pose_stub(channel).DetectPoses(pb.DetectPosesRequest(image=grey(), **fields))
    message = MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {"picture": picture, **message}


def write(path: Path, *lines: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return str(path)


async def posegate(*arguments: str, text: str | None = None) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, arguments, input=text))


async def test_coco_files_are_written(address: str, tmp_path: Path) -> None:
    lines = [await result(address, f"pictures/{name}.jpg") for name in (139, 285)]
    file, folder = write(tmp_path / "people.jsonl", *lines), tmp_path / "new" / "folder"

    said = await posegate("export", file, str(folder), "--address", address)

    assert said.exit_code == 0, said.output
    assert "2 images, 4 people, coco_17" in said.output
    assert sorted(path.name for path in folder.iterdir()) == ["annotations.json", "results.json"]
    known = COCO(str(folder / "annotations.json"))
    assert sorted(known.getImgIds()) == [139, 285]
    assert len(known.loadRes(str(folder / "results.json")).getAnnIds()) == 4


async def test_yolo_files_lie_where_ultralytics_looks(address: str, tmp_path: Path) -> None:
    file = write(
        tmp_path / "people.jsonl", await result(address, "a/x.jpg"), await result(address, "b/x.png")
    )

    said = await posegate("export", file, str(tmp_path / "set"), "--format", "yolo", "--address", address)

    assert said.exit_code == 0, said.output
    found = sorted(str(path.relative_to(tmp_path / "set")) for path in (tmp_path / "set").rglob("*.*"))
    assert found == ["data.yaml", "labels/x-2.txt", "labels/x.txt"]
    assert "b/x.png is exported as x-2.png" in said.output


async def test_hands_from_stdin_as_csv(address: str, tmp_path: Path) -> None:
    hands = await result(address, "a.jpg", model="whole", skeleton="mediapipe_hand_21")

    said = await posegate(
        "export", "-", str(tmp_path), "--format", "csv", "--address", address, text=json.dumps(hands)
    )

    assert said.exit_code == 0, said.output
    with (tmp_path / "poses.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [(row["side"], row["person_index"]) for row in rows] == [
        ("left", "0"),
        ("right", "0"),
        ("right", "1"),
    ]


async def test_pictures_that_failed_are_left_out_and_counted(address: str, tmp_path: Path) -> None:
    failed = {"picture": "broken.jpg", "error": "INVALID_ARGUMENT: not a picture"}
    file = write(tmp_path / "people.jsonl", failed, await result(address, "a.jpg"))

    said = await posegate("export", file, str(tmp_path), "--address", address)

    assert said.exit_code == 0, said.output
    assert "left out: 1 image" in said.output


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no results"),
        ('{"picture": "a.jpg", "error": "x"}', "holds no results"),
        ("not json", "line 1: not a result"),
        ("\n[1]", "line 2: not a result"),
        ('{"persons": []}', "line 1: not a result"),
        ('{"picture": 3}', "`picture` is not text"),
        ('{"picture": "a.jpg", "persons": 7}', "line 1: not a result"),
        ('{"picture": "a.jpg"}', "--skeleton"),
        (
            '{"picture": "a.jpg", "skeleton": "coco_17"}\n{"picture": "b.jpg", "skeleton": "animal_24"}',
            "several skeletons: animal_24, coco_17",
        ),
        ("[" * 100_000, "line 1: not a result"),
        ("\x00\xff", "line 1: not a result"),
    ],
    ids=range(11),
)
async def test_what_is_no_result_is_told_with_its_line(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "people.jsonl"
    file.write_bytes(content.encode("latin-1"))

    said = await posegate("export", str(file), str(tmp_path), "--address", "127.0.0.1:1")

    assert said.exit_code == 1
    assert told in said.output
    assert isinstance(said.exception, SystemExit)


async def test_what_the_gateway_refuses_is_told(address: str, tmp_path: Path) -> None:
    file = write(tmp_path / "people.jsonl", await result(address, "a.jpg"))

    said = await posegate("export", file, str(tmp_path), "--skeleton", "cat_9", "--address", address)

    assert said.exit_code == 1
    assert "NOT_FOUND" in said.output


async def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    said = await posegate("export", str(tmp_path / "none.jsonl"), str(tmp_path))

    assert said.exit_code == 1
    assert "No such file" in said.output


async def test_the_score_of_visible_keypoints_can_be_chosen(address: str, tmp_path: Path) -> None:
    file = write(tmp_path / "people.jsonl", await result(address, "a.jpg"))
    flags = {}
    for score in ("0", "1.5"):
        folder = tmp_path / score
        said = await posegate("export", file, str(folder), "--visible-score", score, "--address", address)
        assert said.exit_code == 0
        annotation = json.loads((folder / "annotations.json").read_text())["annotations"][0]
        flags[score] = set(annotation["keypoints"][2::3]) - {0}
    assert flags == {"0": {2}, "1.5": {1}}
