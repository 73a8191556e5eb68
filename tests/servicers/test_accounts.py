"""Calls with keys: isolation, plans, quotas and what callers are told, over real gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from posegate.v1 import account_service_pb2 as ab
from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import skeleton_service_pb2 as sb
from posegate.v1 import types_pb2
from service.accounts.keys import new_key
from service.accounts.months import first_day, month_of, next_month
from service.client import refusal_of
from service.pipeline.scheduler import InferenceScheduler, Slot
from service.server.accounts import presented_key
from service.store.usage import UsageStore
from service.telemetry.call_context import current
from tests.fakes import MODEL, candidate, rows
from tests.media.clips import clip
from tests.pictures import jpeg
from tests.running import Failure, detect_request, failure, failure_of
from tests.server.http2 import half_caller
from tests.servicers.accounts import EASY, SHIPPED, Accounts, Caller, accounts

PICTURE = jpeg((64, 48))
DETECT = detect_request(PICTURE)
CANVAS = sb.Canvas(size=types_pb2.ImageSize(width=8, height=8))
MINE = sb.Skeleton(name="mine", keypoints=[sb.SkeletonKeypoint(name="nose")])


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Accounts]:
    async with accounts(tmp_path, video_spool=tmp_path) as one:
        one.service.triton.answer = rows(candidate((200, 100, 440, 500), 0.9))
        yield one


def video(content: bytes, **config: Any) -> AsyncIterator[pb.AnalyzeVideoRequest]:
    async def send() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=pb.VideoConfig(**config))
        yield pb.AnalyzeVideoRequest(chunk=content)

    return send()


def frames(count: int, *, step_s: float = 0.0, **config: Any) -> AsyncIterator[pb.StreamPosesRequest]:
    async def send() -> AsyncIterator[pb.StreamPosesRequest]:
        yield pb.StreamPosesRequest(config=pb.StreamConfig(**config))
        for number in range(count):
            frame = pb.StreamFrame(frame_id=str(number), encoded=PICTURE)
            if step_s:
                frame.capture_time.FromMicroseconds(round(number * step_s * 1e6))
            yield pb.StreamPosesRequest(frame=frame)

    return send()


async def taken(answers: Any) -> tuple[list[Any], Failure | None]:
    """The answers of a stream, and how it failed."""
    found = []
    try:
        async for answer in answers:
            found.append(answer)  # noqa: PERF401 - those before a failure count
    except grpc.aio.AioRpcError as error:
        return found, failure_of(error)
    return found, None


EVERY_RPC: dict[str, Callable[[Caller], Awaitable[Any]]] = {
    "DetectPoses": lambda who: who.poses.DetectPoses(DETECT),
    "BatchDetectPoses": lambda who: who.poses.BatchDetectPoses(pb.BatchDetectPosesRequest(requests=[DETECT])),
    "MeasureAngles": lambda who: who.poses.MeasureAngles(pb.MeasureAnglesRequest()),
    "AnalyzeVideo": lambda who: who.poses.AnalyzeVideo(video(b"x")).read(),
    "StreamPoses": lambda who: who.poses.StreamPoses(frames(1)).read(),
    "ListModels": lambda who: who.poses.ListModels(pb.ListModelsRequest()),
    "GetServerInfo": lambda who: who.poses.GetServerInfo(pb.GetServerInfoRequest()),
    "ListSkeletons": lambda who: who.skeletons.ListSkeletons(sb.ListSkeletonsRequest()),
    "GetSkeleton": lambda who: who.skeletons.GetSkeleton(sb.GetSkeletonRequest(name="coco_17")),
    "CreateSkeleton": lambda who: who.skeletons.CreateSkeleton(sb.CreateSkeletonRequest(skeleton=MINE)),
    "UpdateSkeleton": lambda who: who.skeletons.UpdateSkeleton(sb.UpdateSkeletonRequest(skeleton=MINE)),
    "DeleteSkeleton": lambda who: who.skeletons.DeleteSkeleton(sb.DeleteSkeletonRequest(name="mine")),
    "RenderPoses": lambda who: who.skeletons.RenderPoses(
        sb.RenderPosesRequest(canvas=CANVAS, skeleton="coco_17")
    ),
    "ExportPoses": lambda who: who.skeletons.ExportPoses(sb.ExportPosesRequest()),
    "GetAccount": lambda who: who.account.GetAccount(ab.GetAccountRequest()),
}


def test_no_rpc_is_left_out() -> None:
    services = (
        pb.DESCRIPTOR.services_by_name["PoseService"],
        sb.DESCRIPTOR.services_by_name["SkeletonService"],
        ab.DESCRIPTOR.services_by_name["AccountService"],
    )
    assert set(EVERY_RPC) == {method.name for service in services for method in service.methods}


@pytest.mark.parametrize("rpc", EVERY_RPC)
async def test_no_rpc_answers_without_a_key_or_with_a_wrong_one(opened: Accounts, rpc: str) -> None:
    for key, reason in (("", "API_KEY_MISSING"), ("pg_wrong", "API_KEY_INVALID")):
        async with opened.channel(key) as stranger:
            seen = await failure(EVERY_RPC[rpc](stranger))
            assert (seen.code, seen.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
            assert seen.request_id == seen.trailing["x-request-id"]
            # Of an upload, grpc.aio loses them where the status comes at the same time.
            if rpc not in ("AnalyzeVideo", "StreamPoses"):
                assert seen.initial["x-request-id"] == seen.request_id


async def test_a_stranger_is_refused_before_a_byte_of_the_request_is_read(opened: Accounts) -> None:
    async with half_caller(opened.service.address) as stranger:
        stranger.begin("/posegate.v1.PoseService/DetectPoses")
        async with asyncio.timeout(60):
            await stranger.ended.wait()
    assert b"An API key is needed" in stranger.trailers
    large = detect_request(bytes(20_000_000))
    for _ in range(5):  # while the caller still sends
        async with opened.channel(new_key().text) as other:
            seen = await failure(other.poses.DetectPoses(large))
            assert (seen.code, seen.reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID")


async def test_what_is_wrong_with_the_first_request_of_a_new_key_is_told_as_with_any(
    opened: Accounts,
) -> None:
    await opened.desk.create_tenant("acme", "pro")
    method = "/posegate.v1.PoseService/BatchDetectPoses"
    for sent in ([b"\xff"], [b"\x0a\0" * 2000], []):
        key = (await opened.desk.create_key("acme", "", None)).text
        batch: Any = opened.service.channel.stream_unary(method)
        sending_key = (("x-api-key", key),)
        new, known = [await failure(batch(iter(sent), metadata=sending_key)) for _ in range(2)]
        assert new.code is known.code is grpc.StatusCode.INVALID_ARGUMENT
        assert (new.reason, new.message) == (known.reason, known.message)


async def test_of_a_flood_of_wrong_keys_one_line_a_second_is_logged(opened: Accounts) -> None:
    async with opened.channel("pg_wrong") as stranger, opened.caller("acme") as other:
        with capture_logs() as logs:
            began = time.monotonic()
            for _ in range(8):
                await failure(EVERY_RPC["GetServerInfo"](stranger))
                await EVERY_RPC["GetServerInfo"](other)
            await asyncio.sleep(1.1)  # whenever the last line was, the next one is due
            await failure(EVERY_RPC["GetServerInfo"](stranger))
    calls = [line for line in logs if line["event"] == "call"]
    refused = [line for line in calls if line["code"] == "UNAUTHENTICATED"]
    assert sum(line.get("refusals", 1) for line in refused) == 9
    assert len(refused) <= 1 + (time.monotonic() - began)
    assert len(calls) - len(refused) == 8


async def test_health_needs_no_key(opened: Accounts) -> None:
    stub: Any = health_pb2_grpc.HealthStub(opened.service.channel)
    assert await stub.Check(health_pb2.HealthCheckRequest(), timeout=30)


@pytest.mark.parametrize(
    ("metadata", "key"),
    [
        ((), None),
        ((("authorization", "Bearer abc"),), "abc"),
        ((("authorization", "bearer  abc "),), "abc"),
        ((("authorization", "Basic abc"), ("x-api-key", "def")), "def"),
        ((("x-api-key", "def"), ("authorization", "Bearer abc")), "abc"),
        ((("x-api-key", "one"), ("x-api-key", "two")), "one"),
        ((("authorization-bin", b"Bearer abc"), ("x-api-key", b"abc")), None),
        ((("authorization", "Bearer"),), None),
        ((("authorization", "Bearer "), ("x-api-key", "def")), "def"),
    ],
)
def test_a_key_is_read_from_either_header(
    metadata: Sequence[tuple[str, str | bytes]], key: str | None
) -> None:
    assert presented_key(metadata) == key


async def test_what_belongs_to_another_tenant_is_not_found_by_any_rpc(opened: Accounts) -> None:
    own = replace(MODEL, name="acme_pose", tenant="acme")
    opened.service.triton.served = [MODEL, own]
    await opened.service.catalog.refresh()
    person = types_pb2.Person(keypoints=[types_pb2.Keypoint(x=1, y=1, score=1)])
    async with opened.caller("acme") as owner, opened.caller("other") as other:
        made = await owner.skeletons.CreateSkeleton(sb.CreateSkeletonRequest(skeleton=MINE))
        assert (await owner.poses.DetectPoses(detect_request(PICTURE, model="acme_pose"))).persons
        assert (await owner.poses.DetectPoses(detect_request(PICTURE, skeleton="mine"))).persons
        changed = sb.Skeleton(name="mine", keypoints=MINE.keypoints, etag=made.skeleton.etag)
        attempts: list[Awaitable[Any]] = [
            other.skeletons.GetSkeleton(sb.GetSkeletonRequest(name="mine")),
            other.skeletons.UpdateSkeleton(sb.UpdateSkeletonRequest(skeleton=changed)),
            other.skeletons.DeleteSkeleton(sb.DeleteSkeletonRequest(name="mine", etag=made.skeleton.etag)),
            other.skeletons.RenderPoses(sb.RenderPosesRequest(canvas=CANVAS, skeleton="mine")),
            other.skeletons.ExportPoses(
                sb.ExportPosesRequest(
                    skeleton="mine",
                    format=sb.EXPORT_FORMAT_CSV,
                    items=[
                        sb.ExportItem(
                            file_name="a.jpg",
                            image_size=types_pb2.ImageSize(width=8, height=8),
                            persons=[person],
                        )
                    ],
                )
            ),
            other.poses.MeasureAngles(
                pb.MeasureAnglesRequest(
                    image=types_pb2.Image(content=PICTURE), measurements=["splits"], model="acme_pose"
                )
            ),
        ]
        for name in ("skeleton", "model"):
            value = "mine" if name == "skeleton" else "acme_pose"
            attempts += [
                other.poses.DetectPoses(detect_request(PICTURE, **{name: value})),
                other.poses.AnalyzeVideo(video(clip(count=2), **{name: value})).read(),
                other.poses.StreamPoses(frames(1, step_s=0, **{name: value})).read(),
            ]
        for attempt in attempts:
            seen = await failure(attempt)
            assert seen.code is grpc.StatusCode.NOT_FOUND, seen
            assert "acme_pose" not in seen.message.replace("'acme_pose'", "", 1)
        batch = pb.BatchDetectPosesRequest(requests=[detect_request(PICTURE, skeleton="mine")])
        answer = await other.poses.BatchDetectPoses(batch)
        assert answer.responses[0].error.code == grpc.StatusCode.NOT_FOUND.value[0]
        listed = await other.skeletons.ListSkeletons(sb.ListSkeletonsRequest(page_size=100))
        assert all(skeleton.shipped for skeleton in listed.skeletons)
        models = await other.poses.ListModels(pb.ListModelsRequest())
        assert [model.name for model in models.models] == [MODEL.name]
        info = await other.poses.GetServerInfo(pb.GetServerInfoRequest())
        assert list(info.models_ready) == [MODEL.name]
        assert (await other.skeletons.CreateSkeleton(sb.CreateSkeletonRequest(skeleton=MINE))).skeleton.name
        kept = await owner.skeletons.GetSkeleton(sb.GetSkeletonRequest(name="mine"))
        assert kept.skeleton.etag == made.skeleton.etag


async def test_a_free_tenant_is_told_what_its_plan_does_not_allow(opened: Accounts) -> None:
    opened.service.triton.served = [MODEL, replace(MODEL, name="acme_pose", tenant="acme")]
    await opened.service.catalog.refresh()
    async with opened.caller("acme", "free") as caller:
        batch = pb.BatchDetectPosesRequest(requests=[DETECT, DETECT])
        refused: dict[str, tuple[Callable[[], Awaitable[Any]], str, str]] = {
            "max_batch_size": (lambda: caller.poses.BatchDetectPoses(batch), "1", "2"),
            "max_skeletons": (
                lambda: caller.skeletons.CreateSkeleton(sb.CreateSkeletonRequest(skeleton=MINE)),
                "0",
                "1",
            ),
            "own_models": (
                lambda: caller.poses.DetectPoses(detect_request(PICTURE, model="acme_pose")),
                "0",
                "1",
            ),
        }
        for name, (call, limit, actual) in refused.items():
            seen = await failure(call())
            assert (seen.code, seen.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PLAN_DOES_NOT_ALLOW")
            assert seen.metadata == {"plan": "free", "limit": limit, "actual": actual, "limit_name": name}
        assert await caller.poses.DetectPoses(detect_request(PICTURE, skeleton="coco_17"))
        account = await caller.account.GetAccount(ab.GetAccountRequest())
        assert account.quota.used == 1  # what was refused counts nothing


async def test_a_video_that_says_its_length_is_refused_at_once(tmp_path: Path) -> None:
    plans = {"free": replace(EASY["free"], max_video_seconds=1.0)}
    async with (
        accounts(tmp_path, plans=plans, video_spool=tmp_path) as opened,
        opened.caller("acme", "free") as caller,
    ):
        answers, seen = await taken(caller.poses.AnalyzeVideo(video(clip(count=50))))
        assert answers == []
        assert seen is not None
        assert (seen.code, seen.reason) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "PLAN_DOES_NOT_ALLOW",
        )
        assert seen.metadata["limit"] == "1"
        assert float(seen.metadata["actual"]) == pytest.approx(2.0, abs=0.1)
        part = pb.VideoConfig()
        part.end.FromMilliseconds(800)
        answers, seen = await taken(caller.poses.AnalyzeVideo(video(clip(count=50), end=part.end)))
        assert seen is None
        assert answers[-1].HasField("summary")
        account = await caller.account.GetAccount(ab.GetAccountRequest())
        assert account.quota.used == 1  # the one that was refused gave no frame


async def test_a_video_that_does_not_say_its_length_ends_at_that_of_the_plan(tmp_path: Path) -> None:
    plans = {"free": replace(EASY["free"], max_video_seconds=1.0)}
    content = clip("mpegts", count=50)
    async with (
        accounts(tmp_path, plans=plans, video_spool=tmp_path) as opened,
        opened.caller("acme", "free") as caller,
    ):
        answers, seen = await taken(caller.poses.AnalyzeVideo(video(content)))
        assert seen is not None
        assert (seen.code, seen.reason) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "PLAN_DOES_NOT_ALLOW",
        )
        found = [answer.frame.time.ToMilliseconds() for answer in answers if answer.HasField("frame")]
        assert 900 <= max(found) <= 1000
        account = await caller.account.GetAccount(ab.GetAccountRequest())
        assert account.quota.used == 1  # it gave frames


async def test_a_live_stream_ends_at_the_length_of_the_plan_by_its_capture_times(tmp_path: Path) -> None:
    plans = {"free": replace(EASY["free"], max_video_seconds=100.0)}
    async with (
        accounts(tmp_path, plans=plans, video_spool=tmp_path) as opened,
        opened.caller("acme", "free") as caller,
    ):
        answers, seen = await taken(caller.poses.StreamPoses(frames(10, step_s=30.0)))
        assert seen is not None
        assert seen.reason == "PLAN_DOES_NOT_ALLOW"
        assert [answer.result.frame_id for answer in answers if answer.HasField("result")] == list("0123")


async def test_a_live_stream_ends_at_the_length_of_the_plan_on_the_clock_with_what_was_found(
    tmp_path: Path,
) -> None:
    async def slow() -> AsyncIterator[pb.StreamPosesRequest]:
        async for request in frames(1):
            yield request
        await asyncio.sleep(120)

    found = 0
    for length_s in (2.0, 30.0):  # the next one where a loaded machine took all of it for the first image
        folder = tmp_path / str(length_s)
        folder.mkdir()
        plans = {"free": replace(EASY["free"], max_video_seconds=length_s)}
        async with (
            accounts(folder, plans=plans, video_spool=folder) as opened,
            opened.caller("acme", "free") as caller,
        ):
            began = time.monotonic()
            answers, seen = await taken(caller.poses.StreamPoses(slow()))
        assert seen is not None
        assert seen.reason == "PLAN_DOES_NOT_ALLOW"
        assert time.monotonic() - began < 100  # of 120 s that it would last
        found = sum(answer.HasField("result") for answer in answers)
        if found:
            break
    assert found == 1


async def test_the_limits_of_the_caller_are_told(opened: Accounts) -> None:
    async with opened.caller("acme", "free") as free, opened.caller("other", "pro") as pro:
        account = await free.account.GetAccount(ab.GetAccountRequest())
        assert (account.tenant, account.plan) == ("acme", "free")
        assert (account.quota.limit, account.quota.used, account.quota.remaining) == (300, 0, 300)
        first = first_day(month_of(datetime.now(UTC)))
        assert account.quota.reset_time.ToDatetime().date() == next_month(first)
        limits = (await free.poses.GetServerInfo(pb.GetServerInfoRequest())).limits
        assert limits == account.limits
        assert (limits.max_batch_size, limits.max_skeletons, limits.max_in_flight, limits.max_streams) == (
            1,
            0,
            2,
            1,
        )
        assert (limits.max_video_duration.seconds, limits.max_stream_duration.seconds) == (8, 8)
        assert not limits.own_models
        account = await pro.account.GetAccount(ab.GetAccountRequest())
        assert not account.quota.HasField("limit")
        assert account.limits.max_batch_size == 4  # the service's own
        assert account.limits.own_models


async def test_every_counted_answer_tells_what_is_left_and_the_others_do_not(opened: Accounts) -> None:
    async with opened.caller("acme", "free") as caller:
        call = caller.poses.DetectPoses(DETECT)
        await call
        trailing: dict[str, Any] = dict(await call.trailing_metadata())
        assert (trailing["ratelimit-limit"], trailing["ratelimit-remaining"]) == ("300", "299")
        left_s = (
            datetime.combine(next_month(first_day(month_of(datetime.now(UTC)))), datetime.min.time(), UTC)
            - datetime.now(UTC)
        ).total_seconds()
        assert int(trailing["ratelimit-reset"]) == pytest.approx(left_s, abs=5)
        other = caller.poses.ListModels(pb.ListModelsRequest())
        await other
        assert "ratelimit-limit" not in dict(await other.trailing_metadata())
        stream = caller.poses.AnalyzeVideo(video(clip(count=3)))
        await taken(stream)
        assert dict(await stream.trailing_metadata())["ratelimit-remaining"] == "298"


async def test_a_used_up_quota_says_when_to_come_back_and_rules_out_retries(tmp_path: Path) -> None:
    plans = {"free": replace(EASY["free"], calls_per_month=2)}
    async with accounts(tmp_path, plans=plans) as opened, opened.caller("acme", "free") as caller:
        wrong = await failure(caller.poses.DetectPoses(detect_request(b"no picture")))
        assert wrong.code is grpc.StatusCode.INVALID_ARGUMENT
        batch = await caller.poses.BatchDetectPoses(
            pb.BatchDetectPosesRequest(requests=[detect_request(b"no picture")])
        )
        assert batch.responses[0].HasField("error")
        for _ in range(2):
            await caller.poses.DetectPoses(DETECT)
        seen = await failure(caller.poses.DetectPoses(DETECT))
        assert (seen.code, seen.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        assert list(seen.quota) == ["tenant:acme"]
        assert seen.retry_s is None
        assert seen.trailing["grpc-retry-pushback-ms"] == "-1"
        assert (seen.trailing["ratelimit-limit"], seen.trailing["ratelimit-remaining"]) == ("2", "0")
        assert int(seen.trailing["ratelimit-reset"]) > 0
        reset = datetime.fromisoformat(seen.metadata["reset_time"])
        assert timedelta(0) < reset - datetime.now(UTC) <= timedelta(days=31)
        assert (await caller.poses.ListModels(pb.ListModelsRequest())).models  # that counts nothing


async def test_a_batch_counts_once_or_by_picture_as_the_plan_says(tmp_path: Path) -> None:
    once = replace(EASY["standard"], calls_per_month=10)
    plans = {"once": once, "each": replace(once, name="each", batch_counts="picture")}
    batch = pb.BatchDetectPosesRequest(requests=[DETECT, DETECT, detect_request(b"no picture")])
    async with accounts(tmp_path, plans=plans) as opened:
        for plan, used in (("once", 1), ("each", 2)):
            async with opened.caller(plan, plan) as caller:
                await caller.poses.BatchDetectPoses(batch)
                account = await caller.account.GetAccount(ab.GetAccountRequest())
                assert account.quota.used == used


async def test_an_answer_that_cannot_be_sent_counts_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8)
    image = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 40])[1].tobytes()
    request = sb.RenderPosesRequest(image=types_pb2.Image(content=image), skeleton="coco_17")
    request.overlay.format = types_pb2.OVERLAY_FORMAT_PNG
    async with (
        accounts(tmp_path, max_message_bytes=1 << 20) as opened,
        opened.caller("acme", "free") as caller,
    ):
        seen = await failure(caller.skeletons.RenderPoses(request))
        assert seen.reason == "ANSWER_TOO_LARGE"
        account = await caller.account.GetAccount(ab.GetAccountRequest())
        assert account.quota.used == 0


async def test_too_many_a_second_and_at_once_are_told_with_a_hint(tmp_path: Path) -> None:
    async with accounts(tmp_path, plans=SHIPPED) as opened, opened.caller("acme", "free") as caller:
        calls = [failure_or_none(caller.poses.ListModels(pb.ListModelsRequest())) for _ in range(6)]
        seen = [one for one in [await call for call in calls] if one is not None]
        assert len(seen) <= 1
        for one in seen:
            assert (one.code, one.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
            assert one.retry_s is not None
            assert int(one.trailing["grpc-retry-pushback-ms"]) == pytest.approx(one.retry_s * 1000, abs=1)


async def failure_or_none(call: Awaitable[Any]) -> Failure | None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return failure_of(error)
    return None


async def test_calls_at_once_are_the_tenants_own(tmp_path: Path) -> None:
    async with accounts(tmp_path) as opened:
        triton, refused = opened.service.triton, asyncio.Event()
        infer = triton.infer

        async def once_refused(*args: Any, **kwargs: Any) -> Any:
            await refused.wait()
            return await infer(*args, **kwargs)

        triton.infer = once_refused  # type: ignore[method-assign]
        async with opened.caller("acme", "free") as acme, opened.caller("other", "free") as other:
            calls = [asyncio.create_task(failure_or_none(acme.poses.DetectPoses(DETECT))) for _ in range(6)]
            others = asyncio.create_task(failure_or_none(other.poses.DetectPoses(DETECT)))
            async with asyncio.timeout(60):
                while sum(one.done() for one in calls) < 4:
                    await asyncio.wait(
                        [one for one in calls if not one.done()], return_when="FIRST_COMPLETED"
                    )
            refused.set()
            assert await others is None
            seen = [one for one in await asyncio.gather(*calls) if one is not None]
            assert {(one.code, one.reason) for one in seen} == {
                (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_IN_FLIGHT")
            }
            assert len(seen) == 4
            assert seen[0].metadata["plan"] == "free"
            assert seen[0].retry_s


async def test_a_tenant_at_its_limits_leaves_the_others_latency_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with accounts(tmp_path, tenant_inferences_beside=2) as opened:
        triton = opened.service.triton
        one_at_a_time, infer, take = asyncio.Lock(), triton.infer, InferenceScheduler.take
        done = at_model = waited_for = 0
        before: list[int] = []

        async def serially(*args: Any, **kwargs: Any) -> Any:
            nonlocal done, at_model
            if current().party == "other":
                before.append(waited_for + at_model)
            at_model += 1
            async with one_at_a_time:
                await asyncio.sleep(0.01)
                done += 1
                at_model -= 1
                return await infer(*args, **kwargs)

        async def taken_after(*args: Any, **kwargs: Any) -> Slot:
            nonlocal waited_for
            seen = done
            slot = await take(*args, **kwargs)
            if current().party == "other":
                waited_for = done - seen
            return slot

        triton.infer = serially  # type: ignore[method-assign]
        monkeypatch.setattr(InferenceScheduler, "take", taken_after)
        # However slow the machine is: the other tenant calls all the time.
        monkeypatch.setattr("service.pipeline.scheduler._QUIET_S", 3600.0)
        async with opened.caller("acme", "standard") as busy, opened.caller("other", "free") as other:
            await other.poses.DetectPoses(DETECT)
            over = False

            async def hammer() -> None:
                while not over:
                    await failure_or_none(busy.poses.DetectPoses(DETECT))

            hammers = [asyncio.create_task(hammer()) for _ in range(8)]
            await asyncio.sleep(0.2)
            for _ in range(20):
                await other.poses.DetectPoses(DETECT)
            over = True
            await asyncio.gather(*hammers)
        # Of eight calls of the busy tenant at work, two at most are ahead at the model.
        assert len(before) == 21
        assert sorted(before)[len(before) // 2] <= 2
        assert done > 25  # the busy one was at work all the time


async def test_usage_is_kept_by_tenant_day_and_rpc(opened: Accounts) -> None:
    async with opened.caller("acme", "standard") as caller:
        await caller.poses.DetectPoses(DETECT)
        await failure(caller.poses.DetectPoses(detect_request(b"no picture")))
        batch = pb.BatchDetectPosesRequest(requests=[DETECT, DETECT, detect_request(b"no picture")])
        await caller.poses.BatchDetectPoses(batch)
        await taken(caller.poses.AnalyzeVideo(video(clip(count=25))))
        await taken(caller.poses.StreamPoses(frames(4, step_s=0.5)))
        today = datetime.now(UTC).date()
        around = today - timedelta(days=1), today + timedelta(days=2)
        expected = {
            "DetectPoses": (1, 1, 0, 1),
            "BatchDetectPoses": (1, 2, 0, 0),
            "AnalyzeVideo": (1, 0, 1000, 0),
            "StreamPoses": (1, 0, 1500, 0),
        }
        found: dict[str, tuple[int, ...]] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(120):
                while found != expected:  # it is written every tenth of a second
                    rows_ = await UsageStore(opened.database).between(*around)
                    found = {row.rpc: (row.calls, row.pictures, row.video_ms, row.failures) for row in rows_}
                    await asyncio.sleep(0.05)
        assert found == expected


async def test_the_key_of_a_deleted_tenant_makes_nothing_any_more(tmp_path: Path) -> None:
    async with accounts(tmp_path) as opened, opened.caller("acme") as caller:
        await caller.skeletons.ListSkeletons(sb.ListSkeletonsRequest())  # the key is known now
        await opened.desk.delete_tenant("acme")
        seen = await failure(caller.skeletons.CreateSkeleton(sb.CreateSkeletonRequest(skeleton=MINE)))
        assert seen.code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_refused_upload_that_lost_its_status_is_asked_for_again(tmp_path: Path) -> None:
    plans = {"free": replace(EASY["free"], calls_per_month=1)}
    async with accounts(tmp_path, plans=plans) as opened, opened.caller("acme", "free") as caller:
        config = pb.AnalyzeVideoRequest(config=pb.VideoConfig())
        method = caller.poses.AnalyzeVideo
        assert await refusal_of(method, config, timeout_s=60) is None
        assert await refusal_of(method, config, timeout_s=60) is None  # to ask counts no call
        unknown = pb.AnalyzeVideoRequest(config=pb.VideoConfig(model="missing"))
        seen = await refusal_of(method, unknown, timeout_s=60)
        assert seen is not None
        assert seen.code() is grpc.StatusCode.NOT_FOUND
        await caller.poses.DetectPoses(DETECT)
        seen = await refusal_of(method, config, timeout_s=60)
        assert seen is not None
        told = failure_of(seen)
        assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
