"""`posegate account`."""

import json
from pathlib import Path

import pytest

from posegate.v1 import pose_service_pb2 as pb
from service.cli.account import show
from service.cli.connection import Target
from tests.running import Service, detect_request
from tests.servicers.accounts import EASY, accounts
from tests.test_client import LARGE


def _rows(printed: str) -> dict[str, str]:
    return dict(
        [cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if "│" in line
    )


async def test_the_callers_plan_quota_and_limits_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with accounts(tmp_path, plans=EASY) as opened:
        await opened.desk.create_tenant("acme", "free")
        key = (await opened.desk.create_key("acme", "", None)).text
        async with opened.channel(key) as caller:
            await caller.poses.DetectPoses(detect_request(LARGE), timeout=60)
        gateway = Target(opened.service.address, api_key=key)
        await show(gateway)
        rows = _rows(capsys.readouterr().out)
        await show(gateway, as_json=True)
        document = json.loads(capsys.readouterr().out)
    assert (rows["tenant"], rows["plan"]) == ("acme", "free")
    assert [rows[f"calls of the month, {name}"] for name in ("in total", "used", "left")] == [
        "300",
        "1",
        "299",
    ]
    assert rows["next month begins"].endswith("-01T00:00:00Z")
    assert rows["max_skeletons"] == "none"
    assert {field.name for field in pb.Limits.DESCRIPTOR.fields} < set(rows)
    assert (document["tenant"], document["plan"]) == ("acme", "free")
    assert {name: document["quota"][name] for name in ("limit", "used", "remaining")} == {
        "limit": 300,
        "used": 1,
        "remaining": 299,
    }
    assert document["limits"]["max_batch_size"] == 1
    assert document["limits"]["max_video_duration"] == 8
    assert document["limits"]["max_skeletons"] == 0
    assert document["quota"]["reset_time"].endswith("-01T00:00:00Z")
    assert set(document["limits"]) == {field.name for field in pb.Limits.DESCRIPTOR.fields}
    assert document["limits"]["calls_per_second"] is None  # EASY has no rate


async def test_without_keys_nothing_is_counted(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    await show(Target(service.address))
    rows = _rows(capsys.readouterr().out)
    assert rows["tenant"] == "default"
    assert rows["calls of the month, left"] == "unlimited"
    assert "calls of the month, used" not in rows
