"""A call that failed leaves nothing to the garbage collector: with its error goes its request."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from posegate.v1 import pose_service_pb2 as pb
from service.errors import PosegateError
from service.server import interceptors
from service.servicers import pose
from service.servicers.responses import stream_events
from service.telemetry.caller_error import caller_error
from tests.fakes import until
from tests.media.clips import clip
from tests.pictures import jpeg
from tests.running import Service, detect_request, running

DETECT = "/posegate.v1.PoseService/DetectPoses"
PICTURE = jpeg((64, 48))
CLIP = clip("matroska", "mpeg4")
EXPORT = "/posegate.v1.SkeletonService/ExportPoses"


class Bug(RuntimeError):
    """An error that the service does not know."""


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Exception]]]:
    """The errors of calls, while nothing is collected."""
    seen: list[weakref.ref[Exception]] = []

    def recorded(error: Exception) -> PosegateError:
        seen.append(weakref.ref(error))
        return caller_error(error)

    for module in (interceptors, stream_events, pose):
        monkeypatch.setattr(module, "caller_error", recorded)
    gc.collect()
    gc.disable()
    try:
        yield seen
    finally:
        gc.enable()


def _bytes(method: str, content: bytes) -> Callable[[Service], Awaitable[Any]]:
    def call(service: Service) -> Awaitable[Any]:
        channel: Any = service.channel
        made: Awaitable[Any] = channel.unary_unary(method)(content, timeout=60)
        return made

    return call


def _stream(
    *frames: pb.StreamFrame, model: str = "", again: bool = False
) -> Callable[[Service], Awaitable[Any]]:
    async def requests() -> AsyncIterator[pb.StreamPosesRequest]:
        yield pb.StreamPosesRequest(config=pb.StreamConfig(model=model))
        for frame in frames:
            yield pb.StreamPosesRequest(frame=frame)
        if again:
            yield pb.StreamPosesRequest(config=pb.StreamConfig())  # once only

    async def call(service: Service) -> None:
        async for _ in service.poses.StreamPoses(requests(), timeout=60):
            pass

    return call


def _video(
    *chunks: bytes, model: str = "", again: bool = False, fails: type[PosegateError] | None = None
) -> Callable[[Service], Awaitable[Any]]:
    async def requests() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=pb.VideoConfig(model=model))
        for chunk in chunks:
            yield pb.AnalyzeVideoRequest(chunk=chunk)
        if again:
            yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())  # once only

    async def call(service: Service) -> None:
        if fails is not None:
            service.triton.script = [fails("broken")]
        async for _ in service.poses.AnalyzeVideo(requests(), timeout=30):
            pass

    return call


async def _failing_frame(service: Service) -> None:
    service.triton.script = [PosegateError("broken")]
    await _stream(pb.StreamFrame(encoded=PICTURE))(service)


async def _drained_video(service: Service) -> None:
    async def requests() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())
        yield pb.AnalyzeVideoRequest(chunk=CLIP[:-1000])
        await asyncio.sleep(60)

    async for answer in service.poses.AnalyzeVideo(requests(), timeout=30):
        if answer.HasField("frame"):
            service.streams.end()


async def _drained_stream(service: Service) -> None:
    async def requests() -> AsyncIterator[pb.StreamPosesRequest]:
        yield pb.StreamPosesRequest(config=pb.StreamConfig())
        yield pb.StreamPosesRequest(frame=pb.StreamFrame(encoded=PICTURE))
        await asyncio.sleep(60)

    async for answer in service.poses.StreamPoses(requests(), timeout=30):
        if answer.HasField("result"):
            service.streams.end()


CALLS: dict[str, Callable[[Service], Awaitable[Any]]] = {
    "broken image": lambda service: service.detect(b"\xff\xd8 not an image"),
    "unknown model": lambda service: service.poses.DetectPoses(
        detect_request(b"\xff\xd8", model="unknown"), timeout=60
    ),
    "not a message": _bytes(DETECT, b"\xff"),
    "too many items": _bytes(EXPORT, b"\x1a\x00" * 10_001),
    "too many elements": _bytes(EXPORT, b"\x12\x00" * 1_000_001),
    "stream": _stream(model="unknown"),
    "broken frame": _stream(pb.StreamFrame(encoded=b"\xff\xd8 not an image")),
    "frame without an image": _stream(pb.StreamFrame()),
    "frame with a wrong field": _stream(pb.StreamFrame(frame_id="x" * 200, encoded=b"\xff\xd8")),
    "stream that ends with an error": _stream(pb.StreamFrame(encoded=PICTURE), again=True),
    "frame that the model fails on": _failing_frame,
    "stream of a service that stops": _drained_stream,
    "video": _video(model="unknown"),
    "no video": _video(b"not a video"),
    "empty video": _video(),
    "damaged video": _video(clip(options={"movflags": "faststart"})[:-1000]),
    "video of two configs": _video(CLIP[:1000], again=True),
    "video that the model fails on": _video(CLIP, fails=PosegateError),
    "video of a service that stops": _drained_video,
    "batch": lambda service: service.poses.BatchDetectPoses(
        pb.BatchDetectPosesRequest(requests=[detect_request(b"\xff\xd8 not an image")]), timeout=60
    ),
    "bug": _bytes("/posegate.v1.TestService/Bug", b""),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_the_error_of_a_call_is_freed_at_its_end(
    call: Callable[[Service], Awaitable[Any]], errors: list[weakref.ref[Exception]]
) -> None:
    async def bug(request: bytes, context: Any) -> bytes:
        raise Bug

    handlers = grpc.method_handlers_generic_handler(
        "posegate.v1.TestService", {"Bug": grpc.unary_unary_rpc_method_handler(bug)}
    )
    async with running(handlers=[handlers]) as service:
        with suppress(grpc.aio.AioRpcError):
            await call(service)
        assert len(errors) == 1
        await until(lambda: errors[0]() is None)
