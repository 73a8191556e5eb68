"""`posegate tenants`, `posegate keys` and `posegate usage`, on the database."""

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from service.accounts.keys import parse_key
from service.cli.main import app
from service.store.address import parse
from service.store.database import Database
from service.store.tenants import TenantStore
from service.store.usage import UsageRow, UsageStore


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Commands configure the logs of their process, which here is that of all tests."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(autouse=True)
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    address = f"sqlite:///{tmp_path}/posegate.db"
    monkeypatch.setenv("POSEGATE_DATABASE_URL", address)
    return address


def run(*arguments: str, code: int = 0) -> Result:
    ended = CliRunner().invoke(app, list(arguments))
    assert ended.exit_code == code, (ended.output, ended.exception)
    return ended


def told(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def test_a_tenant_goes_through_its_life() -> None:
    assert told("tenants", "list") == []
    assert told("tenants", "create", "acme", "--plan", "free")["plan"] == "free"
    assert told("tenants", "set-plan", "acme", "pro")["plan"] == "pro"
    assert [tenant["name"] for tenant in told("tenants", "list")] == ["acme"]
    shown = told("tenants", "show", "acme")
    assert (shown["keys"], shown["calls_this_month"]) == (0, 0)
    assert "acme" in run("tenants", "list").stdout
    assert "nothing was deleted" in run("tenants", "delete", "acme", code=1).stderr
    assert told("tenants", "delete", "acme", "--yes") == {"deleted": "acme"}
    assert told("tenants", "list") == []


def test_a_key_is_shown_once_and_its_digest_is_kept(url: str) -> None:
    run("tenants", "create", "acme", "--plan", "free")
    made = told("keys", "create", "acme", "--label", "ci", "--expires", "90d")
    key = parse_key(made["key"])
    assert key is not None
    assert key.key_id == made["id"]
    left = datetime.fromisoformat(made["expires"]) - datetime.now(UTC)
    assert timedelta(days=89) < left <= timedelta(days=90)
    (listed,) = told("keys", "list", "acme")
    assert (listed["label"], listed["state"], listed["last_used"]) == ("ci", "live", None)
    folder = Path(url.removeprefix("sqlite:///")).parent
    kept = b"".join(file.read_bytes() for file in folder.glob("posegate.db*"))
    assert made["key"].encode() not in kept
    assert key.digest in kept


def test_a_key_is_rotated_with_an_overlap_and_revoked() -> None:
    run("tenants", "create", "acme", "--plan", "free")
    old = told("keys", "create", "acme", "--label", "ci")
    new = told("keys", "rotate", old["key"], "--overlap", "2h")  # the whole key names it as well
    first, second = told("keys", "list", "acme")
    left = datetime.fromisoformat(first["expires"]) - datetime.now(UTC)
    assert timedelta(minutes=119) < left <= timedelta(hours=2)
    assert (second["id"], second["label"], second["expires"]) == (new["id"], "ci", None)
    assert told("keys", "revoke", old["id"])["state"] == "revoked"
    assert [key["state"] for key in told("keys", "list", "acme")] == ["revoked", "live"]
    assert "no live key" in run("keys", "rotate", old["id"], code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("tenants", "create", "Acme Inc.", "--plan", "free"), 1, "name must be"),
        (("tenants", "create", "acme", "--plan", "gold"), 1, "plan must be one of free, standard, pro"),
        (("tenants", "show", "none"), 1, "no tenant 'none'"),
        (("tenants", "set-plan", "none", "free"), 1, "no tenant 'none'"),
        (("tenants", "delete", "none", "--yes"), 1, "no tenant 'none'"),
        (("keys", "create", "none"), 1, "no tenant 'none'"),
        (("keys", "list", "none"), 1, "no tenant 'none'"),
        (("keys", "revoke", "none"), 1, "no live key 'none'"),
        (("keys", "create", "acme", "--expires", "soon"), 2, "not a period"),
        (("keys", "create", "acme", "--expires", "999999999d"), 1, "too far"),
        (("keys", "create", "acme", "--expires", "0d"), 1, "expires must be more than 0"),
        (("usage", "--month", "November"), 1, "not a month"),
        (("usage", "--tenant", "none"), 1, "no tenant 'none'"),
        (("usage", "--csv", "--json"), 1, "--csv and --json exclude each other"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(arguments: tuple[str, ...], code: int, words: str) -> None:
    run("tenants", "create", "acme", "--plan", "free")
    assert words in " ".join(run(*arguments, code=code).stderr.split())


def test_a_name_is_taken_once() -> None:
    run("tenants", "create", "acme", "--plan", "free")
    assert "There is a tenant 'acme'" in run("tenants", "create", "acme", "--plan", "free", code=1).stderr


def test_plans_of_ones_own_are_read_and_their_mistakes_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = tmp_path / "plans.toml"
    monkeypatch.setenv("POSEGATE_PLANS", str(plans))
    plans.write_text("[gold]\nburst = 0\n")
    ended = run("tenants", "create", "acme", "--plan", "gold", code=1)
    assert "[gold] burst" in ended.stderr
    assert "[gold] calls_per_month: Field required" in ended.stderr


def test_usage_of_a_month_is_printed_for_invoices(url: str) -> None:
    async def fill() -> None:
        database = Database(parse(url), connections=2, timeout_s=60)
        now = datetime(2026, 11, 28, tzinfo=UTC)
        await TenantStore(database).create("acme", "free", now)
        rows = [
            UsageRow("acme", now.date(), "AnalyzeVideo", 2, 0, 7500, 1),
            UsageRow("acme", now.date() + timedelta(days=5), "DetectPoses", 1, 1, 0, 0),
        ]
        await UsageStore(database).add("g", 1, rows, now)
        await database.close()

    asyncio.run(fill())
    printed = run("usage", "--month", "2026-11", "--csv").stdout
    assert list(csv.DictReader(io.StringIO(printed))) == [
        {
            "tenant": "acme",
            "day": "2026-11-28",
            "rpc": "AnalyzeVideo",
            "calls": "2",
            "pictures": "0",
            "video_seconds": "7.5",
            "failures": "1",
        }
    ]
    assert told("usage", "--month", "2026-12")[0]["rpc"] == "DetectPoses"
    run("tenants", "create", "other", "--plan", "free")
    assert told("usage", "--month", "2026-12", "--tenant", "other") == []


def test_the_database_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEGATE_DATABASE_URL", "mysql://secret@host/name")
    ended = run("tenants", "list", code=1)
    assert ended.stderr.startswith("posegate: POSEGATE_DATABASE_URL must begin with")
    assert "secret" not in ended.output
