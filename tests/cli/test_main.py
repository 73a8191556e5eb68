"""`posegate` as a user starts it: exit codes, and what is told where."""

import asyncio
import importlib
import inspect
import json
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from service.cli.connection import GatewayCommand, target
from service.cli.main import COMMANDS, app
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
    out, err = await asyncio.wait_for(process.communicate(), 300)
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
    assert "Value error" not in ended.stderr


def every_command() -> Iterator[tuple[str, Any]]:
    """Commands by their names on the command line, groups taken apart."""
    for name, module, _ in COMMANDS:
        command = typer.main.get_command(importlib.import_module(module).app)
        parts = getattr(command, "commands", None)
        yield from [(name, command)] if parts is None else ((f"{name} {part}", parts[part]) for part in parts)


EVERY = dict(every_command())


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], *([*name.split(), "--help"] for name in EVERY)], ids=str
)
def test_every_command_explains_itself(arguments: list[str]) -> None:
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == (0 if arguments else 2)
    assert "Usage:" in ended.output


def test_the_commands_are_these() -> None:
    assert list(EVERY) == [
        "up", "serve", "web", "detect", "measure", "video", "evaluate", "export",
        "skeletons list", "skeletons show", "skeletons create", "skeletons update", "skeletons delete",
        "models list", "models add", "models fetch", "models fill", "models build", "models verify",
        "tenants create", "tenants list", "tenants show", "tenants set-plan", "tenants delete",
        "keys create", "keys list", "keys revoke", "keys rotate", "usage",
        "account", "health", "info",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "module", "line"), COMMANDS)
def test_the_line_of_help_is_the_beginning_of_the_commands_own(name: str, module: str, line: str) -> None:
    command = EVERY.get(name)
    if command is not None:
        assert command.help.startswith(line)
    assert CliRunner().invoke(app, ["--help"]).output.count(f"│ {name} ") == 1


@pytest.mark.parametrize("name", [name for name, one in EVERY.items() if isinstance(one, GatewayCommand)])
def test_every_command_that_calls_a_gateway_has_the_connection_options(name: str) -> None:
    options = {option.name for option in EVERY[name].params}
    assert set(inspect.signature(target).parameters) <= options
    assert "key" in options  # the API key; that of the certificate is `tls_key`


def test_one_name_is_one_option_in_every_command() -> None:
    helps: dict[str, set[tuple[str, str]]] = {}
    for called, command in EVERY.items():
        # These print an object: their --json is a switch, and names no file for results.
        objects = ("tenants", "keys", "usage", "account")
        printing = {"--json"} if called.partition(" ")[0] in objects else set()
        for option in command.params:
            for name in option.opts:
                if name.startswith("--") and name not in printing:
                    helps.setdefault(name, set()).add((str(option.bare_type()), option.help))
    several = {name for name, found in helps.items() if len({kind for kind, _ in found}) > 1}
    assert not several
    for shared in (
        "--model", "--model-version", "--measure", "--side", "--facing", "--camera-roll", "--overlay",
        "--min-score", "--json", "--timeout", "--address",
    ):  # fmt: skip
        assert len(helps[shared]) == 1, shared


@pytest.mark.parametrize("options", [["--version"], ["--version", "detect"]])
def test_the_version_is_printed(options: list[str]) -> None:
    ended = CliRunner().invoke(app, options)
    assert (ended.exit_code, ended.output) == (0, f"posegate {version('posegate')}\n")


def test_an_unknown_command_is_refused_with_the_nearest_name() -> None:
    ended = CliRunner().invoke(app, ["detekt"])
    assert ended.exit_code == 2
    assert "detect" in ended.stderr


async def test_help_imports_no_command() -> None:
    code = (
        "import sys, service.cli.main as m\n"
        "try: m.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'google.protobuf', 'numpy', 'cv2', 'pydantic', 'cryptography', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 300)
    assert b"Usage:" in out
    assert err.decode().strip() == "[]"
