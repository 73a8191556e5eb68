"""Open streams end with the key that they were begun with; what was answered before stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from posegate.v1 import pose_service_pb2 as pb
from service.store.schema import account_revision, api_keys
from service.store.usage import UsageStore
from tests.media.clips import clip
from tests.pictures import jpeg
from tests.running import Failure, failure_of
from tests.servicers.accounts import Accounts, Caller, accounts

PICTURE = jpeg((64, 48))


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Accounts]:
    async with accounts(tmp_path, video_spool=tmp_path, auth_refresh_s=0.1) as one:
        yield one


async def revoke(opened: Accounts, key_id: str) -> None:
    await opened.desk.revoke_key(key_id)


async def expire(opened: Accounts, key_id: str) -> None:
    """Its time comes while the stream is open."""
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    async with opened.database.write() as connection:
        latest = account_revision.c.latest + 1
        await connection.execute(update(account_revision).values(latest=latest))
        revision = (await connection.execute(account_revision.select())).one().latest
        statement = update(api_keys).where(api_keys.c.key_id == key_id)
        await connection.execute(statement.values(expire_time=soon, revision=revision))


async def delete(opened: Accounts, key_id: str) -> None:
    await opened.desk.delete_tenant("acme")


ENDS = pytest.mark.parametrize("end", [revoke, expire, delete])


def key_id(caller: Caller) -> str:
    return caller.key.split("_")[1]


async def end_of(call: Any) -> tuple[list[Any], Failure]:
    """The answers of a call, and how it failed."""
    answers = []
    try:
        async with asyncio.timeout(120):
            async for answer in call:
                answers.append(answer)  # noqa: PERF401 - those before the failure count
    except grpc.aio.AioRpcError as error:
        return answers, failure_of(error)
    raise AssertionError("the call succeeded")


@ENDS
async def test_a_live_stream_ends_with_its_key_and_others_go_on(opened: Accounts, end: Any) -> None:
    over = asyncio.Event()

    async def frames() -> AsyncIterator[pb.StreamPosesRequest]:
        yield pb.StreamPosesRequest(config=pb.StreamConfig())
        while not over.is_set():
            yield pb.StreamPosesRequest(frame=pb.StreamFrame(encoded=PICTURE))
            await asyncio.sleep(0.02)

    async with opened.caller("acme") as caller, opened.caller("other") as other:
        call, others = caller.poses.StreamPoses(frames()), other.poses.StreamPoses(frames())
        for answers in (aiter(call), aiter(others)):
            while not (await anext(answers)).HasField("result"):
                pass
        await end(opened, key_id(caller))
        _, seen = await end_of(call)
        assert (seen.code, seen.reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID")
        async for answer in others:
            if answer.HasField("result"):
                over.set()
        assert await others.code() is grpc.StatusCode.OK
        assert not opened.service.streams.running


@ENDS
async def test_a_video_that_is_being_uploaded_ends_with_its_key(opened: Accounts, end: Any) -> None:
    content = clip(count=25)

    async def half() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())
        yield pb.AnalyzeVideoRequest(chunk=content[: len(content) // 2])
        await end(opened, key_id(caller))
        await asyncio.sleep(60)

    async with opened.caller("acme") as caller:
        _, seen = await end_of(caller.poses.AnalyzeVideo(half()))
        assert (seen.code, seen.reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID")
        assert not opened.service.streams.running


async def test_the_frames_before_the_end_are_given_and_the_video_counts(opened: Accounts) -> None:
    infer = opened.service.triton.infer
    frames = 0

    async def stops(*args: Any, **kwargs: Any) -> Any:
        nonlocal frames
        frames += 1
        if frames == 10:
            await revoke(opened, key_id(caller))
            await asyncio.sleep(60)
        return await infer(*args, **kwargs)

    async def upload() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())
        yield pb.AnalyzeVideoRequest(chunk=clip(count=25))

    async with opened.caller("acme") as caller:
        opened.service.triton.infer = stops  # type: ignore[method-assign]
        call = caller.poses.AnalyzeVideo(upload())
        answers, seen = await end_of(call)
        given = sum(answer.HasField("frame") for answer in answers)
        assert (seen.code, seen.reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID")
        assert 0 < given < 10
        today = datetime.now(UTC).date()
        around = today - timedelta(days=1), today + timedelta(days=2)
        async with asyncio.timeout(120):
            while not (rows := await UsageStore(opened.database).between(*around)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert [(row.calls, row.failures) for row in rows] == [(1, 1)]


async def test_every_stream_that_its_key_ended_has_its_line_in_the_log(opened: Accounts) -> None:
    async def frames() -> AsyncIterator[pb.StreamPosesRequest]:
        yield pb.StreamPosesRequest(config=pb.StreamConfig())
        while True:
            yield pb.StreamPosesRequest(frame=pb.StreamFrame(encoded=PICTURE))
            await asyncio.sleep(0.02)

    with capture_logs() as lines:
        async with opened.caller("acme") as caller:
            calls = [caller.poses.StreamPoses(frames()) for _ in range(3)]
            for call in calls:
                answers = aiter(call)
                while not (await anext(answers)).HasField("result"):
                    pass
            await revoke(opened, key_id(caller))
            await asyncio.gather(*map(end_of, calls))
    ended = [line for line in lines if line["event"] == "call" and line["code"] == "UNAUTHENTICATED"]
    assert len(ended) == 3
    assert all(line["frames"] and "refusals" not in line for line in ended)
