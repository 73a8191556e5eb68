"""`posegate measure`, against a real service in this process."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
from typer.testing import CliRunner, Result

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.cli.angles import AngleConfig
from service.cli.connection import Target
from service.cli.failures import BadOption
from service.cli.main import app
from service.cli.measure import MeasureConfig, _request, measure
from service.cli.options import BodySide, Facing, OverlayFormat
from tests.fakes import candidate, rows
from tests.pictures import jpeg
from tests.running import Service

IMAGE = jpeg((640, 480))
TWO = rows(candidate((100, 50, 200, 350), 0.9), candidate((300, 10, 560, 470), 0.6))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def config(service: Service) -> MeasureConfig:
    service.triton.answer = TWO
    return MeasureConfig(
        gateway=Target(service.address), timeout_s=60, angles=AngleConfig(measurements=("elbow_side",))
    )


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Two images of one name."""
    paths = [tmp_path / "in" / "p.jpg", tmp_path / "in" / "x" / "p.jpg"]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(IMAGE)
    return paths


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def angles(**changes: Any) -> dict[str, Any]:
    return {"angles": AngleConfig(measurements=("elbow_side",), **changes)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"all_people": True}, {"person": pb.PersonSelection(choice=pb.PERSON_CHOICE_ALL)}),
        ({"person": 1}, {"person": pb.PersonSelection(index=1)}),
        ({"model": "whole"}, {"model": "whole"}),
        ({"model_version": "3"}, {"model_version": "3"}),
        ({"min_score": 0.5}, {"min_score": 0.5}),
        (
            {"overlay_each": True, "overlay": Path("folder")},
            {"overlay_mode": pb.ANGLE_OVERLAY_MODE_PER_MEASUREMENT},
        ),
        (angles(facing=Facing.left), {"facing": pb.FACING_IMAGE_LEFT}),
        (angles(facing=Facing.away), {"facing": pb.FACING_AWAY_FROM_CAMERA}),
        (angles(mirrored=True), {"mirrored": True}),
        (angles(camera_roll_deg=-4.5), {"camera_roll_deg": -4.5}),
        (angles(side=BodySide.left), {"side": types_pb2.SIDE_LEFT}),
        (
            angles(baseline=("elbow_side=3", "elbow_side:left=-4.5")),
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
    config: MeasureConfig, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    request = _request(replace(config, **changes))
    plain = _request(config)
    assert request != plain
    plain.MergeFrom(pb.MeasureAnglesRequest(**expected))
    assert request == plain


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"angles": AngleConfig()}, "--measure is missing"),
        (angles(baseline=("knee",)), "--baseline knee"),
        (angles(baseline=("knee=much",)), "--baseline knee=much"),
        (angles(baseline=("knee:middle=3",)), "--baseline knee:middle=3"),
        (angles(baseline=("knee:=3",)), "--baseline knee:=3"),
        (angles(baseline=("=3",)), "--baseline =3"),
        ({"overlay": Path("out.png")}, "one file for 2 images"),
        ({"overlay_each": True}, "--overlay-each needs --overlay"),
        ({"all_people": True, "person": 1}, "--person"),
    ],
)
async def test_what_has_no_meaning_is_refused_before_the_call(
    config: MeasureConfig, images: list[Path], service: Service, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadOption, match=named):
        await measure(images, replace(config, **changes))
    assert service.triton.calls == []


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("out.png", {"overlay_format": OverlayFormat.jpeg}, "is no name of a jpeg file"),
        ("none/out.png", {}, "there is no folder"),
        ("../in/p.jpg", {}, "is the image itself"),
    ],
)
async def test_an_overlay_that_cannot_be_written_is_refused_before_the_call(
    config: MeasureConfig, images: list[Path], out: Path, service: Service, name: str,
    changes: dict[str, Any], why: str,
) -> None:  # fmt: skip
    with pytest.raises(BadOption, match=why):
        await measure(images[:1], replace(config, overlay=out / name, **changes))
    assert service.triton.calls == []


async def test_angles_and_reasons_are_in_a_table(
    config: MeasureConfig, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert await measure(images[:1], replace(config, all_people=True)) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{images[0]}:")
    assert "person 0" in told
    assert "person 1" in told
    assert "Elbow (side view)" in told


async def test_the_largest_is_measured_unless_another_is_asked_for(
    config: MeasureConfig, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert await measure(images[:1], config) == 0
    assert "person 1" in capsys.readouterr().out
    assert await measure(images[:1], replace(config, person=0)) == 0
    assert "person 0" in capsys.readouterr().out
    assert await measure(images[:1], replace(config, person=7)) == 0
    assert "none of the 2 people found has that number" in capsys.readouterr().out


async def test_several_images_are_lines_of_json_with_an_error_for_those_that_failed(
    config: MeasureConfig, images: list[Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = images[0].with_name("bad.jpg")
    bad.write_bytes(b"no image")
    results = out / "angles.jsonl"
    assert await measure([images[0], bad, images[1]], replace(config, results=results)) == 1
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert [line["picture"] for line in lines] == [str(images[0]), str(bad), str(images[1])]
    assert lines[1]["error"].startswith("INVALID_ARGUMENT")
    for line in (lines[0], lines[2]):
        (angle,) = line["persons"][0]["measurements"]
        assert angle["name"] == "elbow_side"
        assert {"left", "right"} < set(angle)
        assert "overlay" not in line
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"{bad}: INVALID_ARGUMENT")


@pytest.mark.parametrize("name", ["out.png", "out.JPG"])
async def test_one_overlay_can_be_a_file_in_the_format_of_its_name(
    config: MeasureConfig, images: list[Path], out: Path, name: str
) -> None:
    assert await measure(images[:1], replace(config, overlay=out / name)) == 0
    assert names(out) == [name]
    drawn = cv2.imread(str(out / name))
    assert drawn is not None
    assert drawn.shape == (480, 640, 3)
    assert (out / name).read_bytes()[:2] == (b"\x89P" if name.endswith("png") else b"\xff\xd8")


async def test_overlays_of_several_images_are_in_a_folder(
    config: MeasureConfig, images: list[Path], out: Path
) -> None:
    assert await measure(images, replace(config, overlay=out, overlay_format=OverlayFormat.jpeg)) == 0
    assert names(out) == ["p-2.jpg", "p.jpg"]


async def test_each_measurement_of_each_person_can_have_an_overlay(
    config: MeasureConfig, images: list[Path], out: Path
) -> None:
    both = AngleConfig(measurements=("elbow_side", "knee_side"))
    config = replace(config, angles=both, overlay_each=True, overlay=out)
    assert await measure(images[:1], config) == 0
    assert names(out) == ["p-elbow_side.png", "p-knee_side.png"]
    assert (out / "p-elbow_side.png").read_bytes() != (out / "p-knee_side.png").read_bytes()
    everybody = replace(config, all_people=True, overlay=out / "all")
    assert await measure(images[:1], everybody) == 0
    assert names(out / "all") == [
        f"p-{name}-{number}.png" for name in ("elbow_side", "knee_side") for number in (0, 1)
    ]


async def test_a_call_that_fails_leaves_no_file(
    config: MeasureConfig, images: list[Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = replace(config, angles=AngleConfig(measurements=("tail_wagging",)), overlay=out / "out.png")
    assert await measure(images[:1], wrong) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"{images[0]}: INVALID_ARGUMENT: ")
    assert "tail_wagging" in told
    assert names(out) == []


async def posegate(*arguments: str) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, arguments))


async def test_measurements_can_be_repeated_or_separated_by_commas(
    config: MeasureConfig, images: list[Path]
) -> None:
    ran = await posegate(
        "measure", str(images[0]), "--address", config.gateway.address, "--json", "-",
        "--measure", "elbow_side", "--measure", "knee_side,splits",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    (person,) = json.loads(ran.stdout)["persons"]
    assert [one["name"] for one in person["measurements"]] == ["elbow_side", "knee_side", "splits"]


async def test_an_image_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    ran = await posegate("measure", str(tmp_path / "none.jpg"), "--measure", "elbow_side")
    assert ran.exit_code == 1
    assert ran.stderr == f"{tmp_path}/none.jpg: No such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--measure is missing"),
        (["--measure", "elbow_side", "--baseline", "knee"], "--baseline knee: must be"),
        (["--measure", "elbow_side", "--overlay-each"], "--overlay-each needs --overlay"),
    ],
)
async def test_a_bad_option_is_one_line(images: list[Path], arguments: list[str], told: str) -> None:
    ran = await posegate("measure", str(images[0]), *arguments)
    assert ran.exit_code == 1
    assert ran.stderr.startswith(f"posegate: {told}")
    assert ran.stderr.count("\n") == 1
