"""The examples with an API key, as a reader runs them, against a service that asks for keys."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.fakes import candidate, rows
from tests.servicers.accounts import Accounts, accounts

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "protos" / "examples"
REQUIRED = os.environ.get("POSEGATE_TEST_EXAMPLES") == "require"


def command(language: str) -> list[str]:
    if language == "python":
        return [sys.executable, str(EXAMPLES / "python" / "account.py")]
    node = shutil.which("node")
    if node is None or not (EXAMPLES / "node" / "node_modules").is_dir():
        what = "node, or npm ci --ignore-scripts --prefix protos/examples/node, is missing"
        if REQUIRED:
            pytest.fail(what)
        pytest.skip(what)
    return [str(node), str(EXAMPLES / "node" / "account.mjs")]


async def run(opened: Accounts, language: str, key: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *command(language),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "POSEGATE_API_KEY": key, "POSEGATE_ADDRESS": opened.service.address},
    )
    out, _ = await asyncio.wait_for(process.communicate(), 300)
    return process.returncode, out.decode()


@pytest.mark.parametrize("language", ["python", "node"])
async def test_an_image_is_answered_and_a_wrong_key_is_explained(language: str, tmp_path: Path) -> None:
    async with accounts(tmp_path) as opened, opened.caller("acme", "free") as caller:
        opened.service.triton.answer = rows(candidate((200, 100, 440, 500), 0.9))
        code, out = await run(opened, language, caller.key)
        assert "1 persons; calls left this month: 299" in out
        assert code == 0
        if language == "python":
            assert "tenant acme, plan free, 1 a batch" in out
        code, out = await run(opened, language, "pg_wrong")
        assert out.startswith("UNAUTHENTICATED")
        assert "mistyped" in out
        assert code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("detect", "tests/data/two_people.jpg"),
        ("video", "tests/data/two_people.mp4"),
        ("models", "list"),
        ("skeletons", "list"),
        ("info",),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
async def test_commands_send_the_key_of_the_option_or_the_variable(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    async with accounts(tmp_path) as opened, opened.caller("acme", "standard") as caller:

        async def posegate(*more: str, **variables: str) -> tuple[int | None, str]:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service", *arguments, "--address", opened.service.address, *more),
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **variables},
            )
            out, _ = await asyncio.wait_for(process.communicate(), 90)
            return process.returncode, out.decode()

        code, out = await posegate("--key", caller.key)
        assert code == 0, out
        code, out = await posegate(POSEGATE_API_KEY=caller.key)
        assert code == 0, out
        assert caller.key not in out
        code, out = await posegate()
        assert code == 1
        assert "An API key is needed" in out
