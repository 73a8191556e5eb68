"""However an analysis ends: nothing goes on, nothing is kept, and the place is free only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from posegate.v1 import pose_service_pb2 as pb
from service.errors import PosegateError
from tests.fakes import candidate, rows, until
from tests.media.clips import clip
from tests.pictures import jpeg
from tests.running import Service, failure_of, running
from tests.servicers.test_analyze_video import analyze, spools

WHO = candidate((200, 100, 440, 500), 0.9)
MP4 = pb.ANNOTATED_VIDEO_MP4


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(video_spool=tmp_path) as one:
        one.triton.answer = rows(WHO)
        yield one


async def paused(content: bytes, **config: object) -> AsyncIterator[pb.AnalyzeVideoRequest]:
    """An upload that stops in the middle and stays open."""
    yield pb.AnalyzeVideoRequest(config=pb.VideoConfig(**config))  # type: ignore[arg-type]
    yield pb.AnalyzeVideoRequest(chunk=content[: len(content) * 2 // 3])
    await asyncio.sleep(120)


async def ended(call: AsyncIterable[object]) -> grpc.aio.AioRpcError:
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call succeeded")


@pytest.mark.parametrize("annotated", [pb.ANNOTATED_VIDEO_UNSPECIFIED, MP4])
@pytest.mark.parametrize("outcome", ["ok", "damaged", "no video", "model error", "left", "drained"])
async def test_however_a_call_ends_its_place_and_its_spool_are_free(
    service: Service, tmp_path: Path, outcome: str, annotated: pb.AnnotatedVideo
) -> None:
    content = clip("matroska", "mpeg4")
    if outcome == "ok":
        assert (await analyze(service, content, annotated_video=annotated)).summary is not None
    elif outcome == "damaged":
        whole = clip("mp4", options={"movflags": "faststart"})
        found = await analyze(service, whole[: len(whole) * 2 // 3], annotated_video=annotated)
        assert found.failed is not None
        assert found.failed.code is grpc.StatusCode.DATA_LOSS
    elif outcome == "no video":
        assert (await analyze(service, b"nothing", annotated_video=annotated)).failed is not None
    elif outcome == "model error":
        service.triton.script = [PosegateError("broken")]
        assert (await analyze(service, content, annotated_video=annotated)).failed is not None
    else:
        call = service.poses.AnalyzeVideo(paused(content, annotated_video=annotated), timeout=90)
        async for answer in call:
            if answer.HasField("frame"):
                break
        if outcome == "left":
            call.cancel()
        else:
            service.streams.end()
            async with asyncio.timeout(40):  # of 60 s that the upload may be idle
                assert (await ended(call)).code() is grpc.StatusCode.UNAVAILABLE
    await until(lambda: service.streams.running == 0)
    assert spools(tmp_path) == []


async def test_a_model_error_is_told_at_once_however_slow_the_upload_is(service: Service) -> None:
    service.triton.script = [PosegateError("broken")]
    requests = paused(clip("matroska", "mpeg4"), annotated_video=MP4)
    async with asyncio.timeout(40):  # of 60 s that the upload may be idle
        assert (await analyze(service, requests)).failed is not None


async def test_waiting_for_a_turn_is_not_counted_against_a_frame(tmp_path: Path) -> None:
    async with running(max_inferences=1, video_spool=tmp_path, request_timeout_s=2.0) as service:
        service.triton.gate.clear()
        other = asyncio.create_task(service.detect(jpeg((64, 48))))  # it has the one place at the model
        await service.triton.entered.wait()
        analyzing = asyncio.create_task(analyze(service, clip(count=12)))
        await until(lambda: service.streams.running == 1)
        await asyncio.sleep(2.5)
        service.triton.gate.set()
        found = await analyzing
        await other
    assert found.failed is None
    assert len(found.frames) == 12


async def test_a_model_that_takes_too_long_for_a_frame_ends_the_video(tmp_path: Path) -> None:
    async with running(video_spool=tmp_path, request_timeout_s=0.2) as service:
        service.triton.seconds = 5.0
        found = await analyze(service, clip(count=3))
    assert found.failed is not None
    assert found.failed.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_videos_that_need_much_memory_wait_for_one_another(tmp_path: Path) -> None:
    # H.264 may refer to 16 frames: a small file can make the decoder hold them all.
    content = clip(size_wh=(640, 480), codec_options={"x264-params": "ref=16"})
    async with running(max_video_memory_bytes=1 << 20, video_spool=tmp_path) as service:
        service.triton.answer = rows(WHO)
        first = service.poses.AnalyzeVideo(paused(clip("matroska", "mpeg4")), timeout=30)
        async for answer in first:
            if answer.HasField("started"):
                break
        refused = await analyze(service, content)
        first.cancel()
        await until(lambda: service.streams.running == 0)
        alone = await analyze(service, content)
    assert refused.failed is not None
    assert refused.failed.reason == "TOO_MUCH_VIDEO_MEMORY"
    assert refused.failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.failed.retry_s is not None
    assert alone.summary is not None


async def test_an_upload_that_takes_for_ever_is_given_up(tmp_path: Path) -> None:
    async def drops() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())
        for byte in clip():
            yield pb.AnalyzeVideoRequest(chunk=bytes([byte]))
            await asyncio.sleep(0.05)

    async with running(video_spool=tmp_path, max_upload_s=0.5) as service:
        found = await analyze(service, drops())
    assert found.failed is not None
    assert (found.failed.code, found.failed.reason) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "UPLOAD_TOO_SLOW",
    )


async def test_callers_without_a_config_are_bounded(tmp_path: Path) -> None:
    async with running(video_spool=tmp_path, max_streams=1) as service:

        async def nothing() -> AsyncIterator[pb.AnalyzeVideoRequest]:
            await asyncio.sleep(60)
            yield pb.AnalyzeVideoRequest()

        calls = [service.poses.AnalyzeVideo(nothing(), timeout=30) for _ in range(6)]
        await until(lambda: sum(call.done() for call in calls) == 2)
        assert service.streams.running == 0
        assert (await analyze(service, clip())).failed is not None
        for call in calls:
            call.cancel()
        await until(lambda: service.streams._arriving == 0)
        assert (await analyze(service, clip())).summary is not None


@pytest.mark.parametrize("first", [True, False])
async def test_bytes_that_are_no_message_are_refused_in_a_stream_too(service: Service, first: bool) -> None:
    async def requests() -> AsyncIterator[bytes]:
        if not first:
            yield pb.AnalyzeVideoRequest(config=pb.VideoConfig()).SerializeToString()
        yield b"\xff\xff\xff"

    call: Any = service.channel.stream_stream("/posegate.v1.PoseService/AnalyzeVideo")
    failed = failure_of(await ended(call(requests(), timeout=60)))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_UNREADABLE")
