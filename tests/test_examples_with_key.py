"""The examples with an API key, run as a reader would run them."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.fakes import candidate, rows
from tests.pictures import jpeg
from tests.servicers.accounts import Accounts, accounts

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "protos" / "examples"
NODE_MODULES = EXAMPLES / "node" / "node_modules"


def command(language: str) -> list[str]:
    if language == "python":
        return [sys.executable, str(EXAMPLES / "python" / "with_key.py")]
    node = shutil.which("node")
    if node is None or not NODE_MODULES.is_dir():
        pytest.skip("Node.js or the packages of its examples are not installed: npm install in its folder")
    return [node, str(EXAMPLES / "node" / "with_key.js")]


async def run(opened: Accounts, language: str, key: str, picture: Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *command(language),
        str(picture),
        opened.service.address,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "POSEGATE_API_KEY": key, "PYTHONPATH": str(ROOT / "protos")},
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode()


@pytest.mark.parametrize("language", ["python", "node"])
async def test_a_picture_is_answered_and_a_wrong_key_is_explained(language: str, tmp_path: Path) -> None:
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(jpeg((64, 48)))
    async with accounts(tmp_path) as opened, opened.caller("acme", "free") as caller:
        opened.service.triton.answer = rows(candidate((200, 100, 440, 500), 0.9))
        code, out = await run(opened, language, caller.key, picture)
        assert out.splitlines() == ["1 people, 299 calls left this month", "tenant acme, plan free"]
        assert code == 0
        code, out = await run(opened, language, "pg_wrong", picture)
        assert out.startswith("UNAUTHENTICATED")
        assert "mistyped" in out
        assert code == 1
