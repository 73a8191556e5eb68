"""`posegate info`."""

import asyncio
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from posegate.v1 import pose_service_pb2 as pb
from service.cli.connection import Target
from service.cli.info import _limit, show
from service.cli.main import app
from tests.running import Service, running


async def test_build_models_and_every_limit_are_printed(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    await show(Target(service.address))
    told = capsys.readouterr().out
    rows = dict(
        [cell.strip() for cell in line.strip("│").split("│")] for line in told.splitlines() if "│" in line
    )
    assert rows["address"] == service.address
    assert rows["version"] == version("posegate")
    assert rows["default model"] == "yolo11n_pose"
    assert rows["models ready"] == "yolo11n_pose"
    assert {field.name for field in pb.Limits.DESCRIPTOR.fields} < set(rows)
    assert rows["max_image_bytes"] == "8,000,000"
    assert rows["max_video_duration"] == "60 s"


async def test_hosts_are_named_and_no_limit_is_unlimited(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(uri_hosts="images.example") as service:
        await show(Target(service.address))
    told = capsys.readouterr().out
    (row,) = [line for line in told.splitlines() if "allowed_uri_hosts" in line]
    assert "images.example" in row
    (row,) = [line for line in told.splitlines() if "calls_per_second" in line]
    assert "unlimited" in row


async def test_a_gateway_that_does_not_answer_is_one_line() -> None:
    ran = await asyncio.to_thread(lambda: CliRunner().invoke(app, ["info", "--address", "127.0.0.1:1"]))
    assert ran.exit_code == 1
    assert ran.stderr.startswith("posegate: UNAVAILABLE: no gateway answers at 127.0.0.1:1")
    assert ran.stderr.count("\n") == 1


def test_a_rate_is_printed_without_needless_digits() -> None:
    assert [_limit("calls_per_second", rate) for rate in (2.0, 0.5, 2000.0)] == ["2", "0.5", "2,000"]
