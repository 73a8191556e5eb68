"""`posegate` as a user starts it: exit codes, and what is told where."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.main import app
from tests.fakes import candidate, rows
from tests.pictures import jpeg
from tests.running import Service

ROOT = Path(__file__).parents[2]


async def posegate(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=ROOT, env={**os.environ, **environment},
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_detect_exits_with_one_if_any_picture_failed(service: Service, tmp_path: Path) -> None:
    service.triton.answer = rows(candidate((0, 0, 9, 9), 0.9))
    good, bad, results = tmp_path / "good.jpg", tmp_path / "bad.jpg", tmp_path / "out.jsonl"
    good.write_bytes(jpeg((64, 48)))
    bad.write_bytes(b"no picture")
    code, out, err = await posegate(
        "detect", str(good), str(bad), "--json", str(results), POSEGATE_ADDRESS=service.address
    )
    assert (code, out) == (1, "")
    assert [line.partition(":")[0] for line in err.splitlines()] == [str(bad)]
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert [len(line.get("persons", ())) for line in lines] == [1, 0]


async def test_detect_exits_with_zero_if_all_went_well(service: Service, tmp_path: Path) -> None:
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(jpeg((64, 48)))
    code, out, err = await posegate("detect", str(picture), "--address", service.address)
    assert (code, err) == (0, "")
    assert out.startswith(f"{picture}: 0 people")


async def test_health_exits_with_zero_only_when_serving(service: Service) -> None:
    assert await posegate("health", "--address", service.address) == (0, "SERVING\n", "")
    code, out, err = await posegate("health", "--address", "127.0.0.1:1")
    assert code == 1
    assert "UNAVAILABLE" in out + err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["serve", "up"])
def test_settings_that_cannot_work_are_told_by_the_names_of_their_variables(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSEGATE_MAX_PERSONS", "many")
    monkeypatch.setenv("POSEGATE_LISTEN", "127.0.0.1:99999")
    ended = CliRunner().invoke(app, [command])
    assert ended.exit_code == 2
    told = ended.stderr.splitlines()
    assert [line.partition(":")[0] for line in told] == ["POSEGATE_LISTEN", "POSEGATE_MAX_PERSONS"]
    assert "a port from 0 to 65535" in told[0]
    assert "'many'" in told[1]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["detect", "--help"], ["serve", "--help"]], ids=str)
def test_every_command_explains_itself(arguments: list[str]) -> None:
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == (0 if arguments else 2)
    assert "Usage:" in ended.output
