"""`posegate measure`, against a real service in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
from typer.testing import CliRunner

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.cli.connection import Target
from service.cli.main import app
from service.cli.measure import BadWish, Wish, _request, measure
from tests.fakes import candidate, rows
from tests.pictures import jpeg
from tests.running import Service

PICTURE = jpeg((640, 480))
TWO = rows(candidate((100, 50, 200, 350), 0.9), candidate((300, 10, 560, 470), 0.6))


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def wish(service: Service) -> Wish:
    service.triton.answer = TWO
    return Wish(
        gateway=Target(service.address),
        measurements="elbow_side",
        side="both",
        model="",
        everybody=False,
        overlay=None,
        timeout_s=10,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"everybody": True}, {"person": pb.PersonSelection(choice=pb.PERSON_CHOICE_ALL)}),
        ({"person": 1}, {"person": pb.PersonSelection(index=1)}),
        ({"facing": "left"}, {"facing": pb.FACING_IMAGE_LEFT}),
        ({"facing": "away"}, {"facing": pb.FACING_AWAY_FROM_CAMERA}),
        ({"mirrored": True}, {"mirrored": True}),
        ({"camera_roll_deg": -4.5}, {"camera_roll_deg": -4.5}),
        ({"min_score": 0.5}, {"min_score": 0.5}),
        ({"side": "left"}, {"side": types_pb2.SIDE_LEFT}),
        (
            {"baseline": ("elbow_side=3", "elbow_side:left=-4.5")},
            {
                "baseline": [
                    pb.BaselineAngle(name="elbow_side", side=types_pb2.SIDE_BOTH, degrees=3),
                    pb.BaselineAngle(name="elbow_side", side=types_pb2.SIDE_LEFT, degrees=-4.5),
                ]
            },
        ),
    ],
)
def test_every_option_reaches_the_request(
    wish: Wish, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    request = _request(b"picture", replace(wish, **changes))
    plain = _request(b"picture", wish)
    assert request != plain
    plain.MergeFrom(pb.MeasureAnglesRequest(**expected))
    assert request == plain


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"baseline": ("knee",)}, "--baseline knee"),
        ({"baseline": ("knee=much",)}, "--baseline knee=much"),
        ({"baseline": ("knee:middle=3",)}, "--baseline knee:middle=3"),
        ({"baseline": ("=3",)}, "--baseline =3"),
        ({"overlay": Path("out.gif")}, "out.gif"),
        ({"everybody": True, "person": 1}, "--person"),
    ],
)
async def test_what_cannot_be_meant_is_refused_before_the_call(
    wish: Wish, service: Service, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadWish, match=named):
        await measure(Path("p.jpg"), PICTURE, replace(wish, **changes))
    assert service.triton.calls == []


async def test_angles_and_reasons_are_in_a_table(wish: Wish, capsys: pytest.CaptureFixture[str]) -> None:
    assert await measure(Path("p.jpg"), PICTURE, replace(wish, everybody=True))
    told = capsys.readouterr().out
    assert "person 0" in told
    assert "person 1" in told
    assert "Elbow (Side)" in told


async def test_the_largest_is_measured_unless_another_is_asked_for(
    wish: Wish, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await measure(Path("p.jpg"), PICTURE, wish)
    assert "person 1" in capsys.readouterr().out
    assert await measure(Path("p.jpg"), PICTURE, replace(wish, person=0))
    assert "person 0" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["out.png", "out.JPG"])
async def test_the_overlay_is_written_in_the_format_of_its_name(
    wish: Wish, tmp_path: Path, name: str
) -> None:
    assert await measure(Path("p.jpg"), PICTURE, replace(wish, overlay=tmp_path / name))
    assert names(tmp_path) == [name]
    drawn = cv2.imread(str(tmp_path / name))
    assert drawn is not None
    assert drawn.shape == (480, 640, 3)
    assert (tmp_path / name).read_bytes()[:2] == (b"\x89P" if name.endswith("png") else b"\xff\xd8")


async def test_a_call_that_fails_leaves_no_file(
    wish: Wish, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = replace(wish, measurements="tail_wagging", overlay=tmp_path / "out.png")
    assert not await measure(Path("p.jpg"), PICTURE, wrong)
    told = capsys.readouterr().err
    assert told.startswith("p.jpg: INVALID_ARGUMENT: ")
    assert "tail_wagging" in told
    assert names(tmp_path) == []


def test_a_picture_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["measure", str(tmp_path / "none.jpg"), "--measurement", "elbow_side"])
    assert ran.exit_code == 1
    assert ran.stderr == f"posegate: {tmp_path}/none.jpg: No such file or directory\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--baseline", "knee"], "--baseline knee: must be"),
        (["--overlay", "out.tiff"], "--overlay out.tiff: must end in"),
    ],
)
def test_a_bad_option_is_told_in_one_line(tmp_path: Path, options: list[str], told: str) -> None:
    picture = tmp_path / "p.jpg"
    picture.write_bytes(PICTURE)
    ran = CliRunner().invoke(app, ["measure", str(picture), "--measurement", "elbow_side", *options])
    assert ran.exit_code == 1
    assert ran.stderr.startswith(f"posegate: {told}")
    assert ran.stderr.count("\n") == 1
