"""The door in front of a gateway that asks for keys: what plans and quotas refuse, as HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.fakes import candidate, rows
from tests.media.clips import clip
from tests.pictures import jpeg
from tests.servicers.accounts import EASY, SHIPPED, Accounts, accounts
from tests.web.running import RunningDoor, running_door

PICTURE = jpeg((64, 48))
RAW = {"content-type": "image/jpeg"}
# One that is soon used up, and one whose rate is soon reached.
PLANS = {
    **EASY,
    "small": replace(EASY["free"], name="small", calls_per_month=2),
    "slow": replace(SHIPPED["free"], name="slow", calls_per_second=0.02, burst=1),
}
LARGE = b"\0" * 20_000_000
"""As a video: more than fits into the buffers on the way, so that a refusal comes while it is sent."""


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Accounts]:
    async with accounts(tmp_path, plans=PLANS, video_spool=tmp_path) as one:
        one.service.triton.answer = rows(candidate((200, 100, 440, 500), 0.9))
        yield one


@pytest.fixture
async def door(opened: Accounts) -> AsyncIterator[RunningDoor]:
    async with running_door(opened.service.address) as one:
        yield one


async def key_of(opened: Accounts, plan: str) -> dict[str, str]:
    await opened.desk.create_tenant(plan, plan)
    return {"authorization": f"Bearer {(await opened.desk.create_key(plan, '', None)).text}"}


def told(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    return answer.status_code, answer.json()["reason"]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "API_KEY_MISSING"),
        ({"x-api-key": "pg_wrong"}, "API_KEY_INVALID"),
        ({"authorization": "Bearer pg_9sxEH2v3_kF26o4XYl8KU0KdivRtQpYozCkq1V45r8"}, "API_KEY_INVALID"),
    ],
)
async def test_without_a_key_or_with_a_wrong_one_every_call_is_401(
    door: RunningDoor, headers: dict[str, str], reason: str
) -> None:
    post = door.client.post
    answers = [
        await post("/v1/pose", content=PICTURE, headers=RAW | headers),
        await post(
            "/detect", files={"image": PICTURE}, data={"measurement": "knee_flexion"}, headers=headers
        ),
        await door.client.get("/v1/skeletons", headers=headers),
        await post("/infer/video", files={"file": ("large.mp4", LARGE)}, headers=headers),
        # Several at once: a refusal while messages are on their way is where gRPC loses a status.
        *await asyncio.gather(
            *(
                post("/v1/video/upload", files={"file": ("large.mp4", LARGE)}, headers=headers)
                for _ in "12345"
            )
        ),
    ]
    assert {told(answer) for answer in answers} == {(401, reason)}
    assert all("www-authenticate" in answer.headers for answer in answers)


async def test_what_the_plan_does_not_allow_is_403_and_a_used_up_month_429(
    opened: Accounts, door: RunningDoor
) -> None:
    key = await key_of(opened, "small")
    batch = await door.client.post(
        "/v1/pose/batch", files=[("images", PICTURE), ("images", PICTURE)], headers=key
    )
    assert told(batch) == (403, "PLAN_DOES_NOT_ALLOW")
    left = []
    for _ in range(2):
        answer = await door.client.post("/v1/pose", content=PICTURE, headers=RAW | key)
        assert answer.status_code == 200
        left.append((answer.headers["ratelimit-limit"], answer.headers["ratelimit-remaining"]))
        assert int(answer.headers["ratelimit-reset"]) > 0
    assert left == [("2", "1"), ("2", "0")]
    refused = [
        await door.client.post("/v1/pose", content=PICTURE, headers=RAW | key),
        await door.client.post("/v1/video/upload", files={"video": ("large.mp4", LARGE)}, headers=key),
    ]
    for answer in refused:
        assert told(answer) == (429, "QUOTA_EXCEEDED")
        assert answer.headers["ratelimit-remaining"] == "0"
        # Both count seconds until the month is over.
        assert abs(int(answer.headers["retry-after"]) - int(answer.headers["ratelimit-reset"])) <= 1


async def test_too_many_a_second_say_when_to_come_again(opened: Accounts, door: RunningDoor) -> None:
    key = await key_of(opened, "slow")
    answers = [await door.client.post("/v1/pose", content=PICTURE, headers=RAW | key) for _ in range(2)]
    assert answers[0].status_code == 200
    assert told(answers[1]) == (429, "RATE_LIMITED")
    assert 1 <= int(answers[1].headers["retry-after"]) <= 50


async def test_a_video_counts_once_and_says_what_is_left(opened: Accounts, door: RunningDoor) -> None:
    key = await key_of(opened, "free")
    answer = await door.client.post(
        "/v1/video/upload", files={"video": ("clip.mp4", clip(count=5))}, headers=key
    )
    assert answer.status_code == 200
    assert (answer.headers["ratelimit-limit"], answer.headers["ratelimit-remaining"]) == ("300", "299")


async def test_a_caller_sees_plan_limits_and_what_is_left(opened: Accounts, door: RunningDoor) -> None:
    key = await key_of(opened, "small")
    assert (await door.client.post("/v1/pose", content=PICTURE, headers=RAW | key)).status_code == 200
    account = (await door.client.get("/v1/account", headers=key)).json()
    assert (account["tenant"], account["plan"]) == ("small", "small")
    assert {name: account["quota"][name] for name in ("limit", "used", "remaining")} == {
        "limit": 2,
        "used": 1,
        "remaining": 1,
    }
    assert account["quota"]["reset_time"].endswith("-01T00:00:00Z")
    assert account["limits"]["max_batch_size"] == 1
    assert told(await door.client.get("/v1/account")) == (401, "API_KEY_MISSING")
