"""The door on a real socket in this process, and a gateway that answers what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import uvicorn
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import pose_service_pb2_grpc, types_pb2
from service.web.app import build_app, connected
from service.web.server import config, listen
from service.web.settings import WebSettings


@dataclass(eq=False)
class RunningDoor:
    """A running door.

    Attributes:
        url: where it listens.
        host: of the address.
        port: of the address.
        client: that calls it.
        server: to look into.
    """

    url: str
    host: str
    port: int
    client: httpx.AsyncClient
    server: uvicorn.Server


@asynccontextmanager
async def running_door(gateway: str, **changes: Any) -> AsyncIterator[RunningDoor]:
    """A door in front of the gateway at that address, for the time of the block."""
    settings = WebSettings(listen="127.0.0.1:0", gateway=gateway, drain_grace_s=5, **changes)
    async with connected(settings) as channel:
        server = uvicorn.Server(config(settings, build_app(settings, channel)))
        listener = listen(settings)
        host, port = listener.getsockname()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        url = f"http://{host}:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            try:
                yield RunningDoor(url, host, port, client, server)
            finally:
                server.should_exit = True
                await serving
                listener.close()


async def until(said: Callable[[], bool]) -> None:
    """Wait until it is so; a loaded machine is no bug."""
    async with asyncio.timeout(120):
        while not said():  # noqa: ASYNC110 - what is waited for is not a test's to signal
            await asyncio.sleep(0.01)


PERSON = types_pb2.Person(
    box=types_pb2.Box(x1=1.5, y1=2.5, x2=30.25, y2=60),
    score=0.9,
    keypoints=[types_pb2.Keypoint(x=10 + n, y=20 + n, score=0.5) for n in range(17)],
)


@dataclass(eq=False)
class FakeGateway(pose_service_pb2_grpc.PoseServiceServicer):
    """A gateway that notes what it is asked.

    Attributes:
        address: where it listens.
        requests: in the order in which they came; videos as configs.
        metadata: of the last call.
        error: with which every call ends; None: none.
        trailing: metadata of every answer.
        hold: while it is cleared, calls wait; videos wait after each message.
        cancelled: set once a call was cancelled by its caller.
        video_bytes: received of videos.
        frames: of every video.
        break_after: frames of a video after which it ends with `error`; None: at the start.
        started: calls that have begun.
    """

    address: str = ""
    requests: list[Any] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    error: tuple[grpc.StatusCode, str, Sequence[Message]] | None = None
    trailing: tuple[tuple[str, str], ...] = ()
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    video_bytes: int = 0
    frames: int = 3
    break_after: int | None = None
    started: int = 0

    async def _answer(self, request: Any, context: Any, answer: Any) -> Any:
        self.started += 1
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        ended = self._watched(context)
        await self.hold.wait()
        ended.set()
        if self.error is not None:
            await self._fail(context)
        context.set_trailing_metadata(self.trailing)
        return answer

    def _watched(self, context: Any) -> asyncio.Event:
        """An event for the call to set before it ends by itself: a call that ends without was cancelled."""
        ended = asyncio.Event()

        def note(_: object) -> None:
            if not ended.is_set():
                self.cancelled.set()

        context.add_done_callback(note)
        return ended

    async def _fail(self, context: Any) -> None:
        assert self.error is not None
        code, message, details = self.error
        status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        trailing = (*self.trailing, ("grpc-status-details-bin", status.SerializeToString()))
        await context.abort(code, message, trailing if details else self.trailing)

    async def DetectPoses(self, request: pb.DetectPosesRequest, context: Any) -> Any:
        answer = pb.DetectPosesResponse(
            persons=[PERSON],
            image_size=types_pb2.ImageSize(width=64, height=128),
            model="a_model",
            model_version="1",
            skeleton="coco_17",
        )
        return await self._answer(request, context, answer)

    async def BatchDetectPoses(self, request: pb.BatchDetectPosesRequest, context: Any) -> Any:
        result = pb.BatchDetectPosesResult(response=pb.DetectPosesResponse(persons=[PERSON]))
        answer = pb.BatchDetectPosesResponse(responses=[result] * len(request.requests))
        return await self._answer(request, context, answer)

    async def MeasureAngles(self, request: pb.MeasureAnglesRequest, context: Any) -> Any:
        return await self._answer(
            request, context, pb.MeasureAnglesResponse(image_size=types_pb2.ImageSize(width=64, height=128))
        )

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> Any:
        models = [
            pb.Model(name="b_model", skeleton="coco_wholebody_133", ready=False, positions=True),
            pb.Model(name="c_model", skeleton="another", ready=True, positions=True),
            pb.Model(name="d_model", skeleton="coco_wholebody_133", ready=True, positions=True),
        ]
        return await self._answer(request, context, pb.ListModelsResponse(models=models))

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> Any:
        return await self._answer(request, context, pb.GetServerInfoResponse(version="1"))

    async def StreamPoses(self, requests: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the real servicers are there for this")
        yield

    async def AnalyzeVideo(self, requests: Any, context: Any) -> Any:
        self.started += 1
        self.metadata = dict(context.invocation_metadata())
        ended = self._watched(context)
        async for request in requests:
            if request.WhichOneof("request") == "config":
                self.requests.append(request.config)
                if self.error is not None and self.break_after is None:
                    ended.set()
                    await self._fail(context)
            self.video_bytes += len(request.chunk)
            await self.hold.wait()
        info = pb.VideoInfo(container="mp4", frame_count=self.frames)
        yield pb.AnalyzeVideoResponse(started=pb.VideoStarted(video=info, model="m", n_kpts=133))
        for number in range(self.frames):
            if number == self.break_after:
                ended.set()
                await self._fail(context)
            frame = pb.FrameResult(
                frame_index=number,
                time=duration_pb2.Duration(seconds=number // 10, nanos=number % 10 * 100_000_000),
                persons=[PERSON],
                values=[float(number)] * (133 * 3) + [float("nan")] * (133 * 3),
            )
            yield pb.AnalyzeVideoResponse(frame=frame)
            yield pb.AnalyzeVideoResponse(annotated_chunk=b"mp4 %d " % number)
        context.set_trailing_metadata(self.trailing)
        ended.set()
        yield pb.AnalyzeVideoResponse(
            summary=pb.VideoSummary(fps=30, frame_width=4, frame_height=2, total_frames=9, n_kpts=133)
        )


def refusal(
    code: grpc.StatusCode,
    reason: str,
    message: str = "no",
    *,
    violations: Sequence[tuple[str, str]] = (),
    retry_ms: int | None = None,
    **metadata: str,
) -> tuple[grpc.StatusCode, str, Sequence[Message]]:
    """An error as the gateway gives it."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=reason, domain="posegate", metadata=metadata)
    ]
    if violations:
        bad = error_details_pb2.BadRequest()
        for name, description in violations:
            bad.field_violations.add(field=name, description=description)
        details.append(bad)
    if retry_ms is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(retry_ms)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return code, message, details


@asynccontextmanager
async def running_fake() -> AsyncIterator[FakeGateway]:
    """A fake gateway for the time of the block."""
    fake = FakeGateway()
    fake.hold.set()
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1 << 28)])
    pose_service_pb2_grpc.add_PoseServiceServicer_to_server(fake, server)
    health = health_aio.HealthServicer()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    fake.address = f"127.0.0.1:{port}"
    try:
        yield fake
    finally:
        await server.stop(0)


def multipart(*parts: tuple[str, str | None, bytes], boundary: bytes = b"frontier") -> tuple[str, bytes]:
    """A form made by hand: content-type and body. A part is name, file name or None, content."""
    body = b""
    for name, file_name, content in parts:
        disposition = f'form-data; name="{name}"' + (f'; filename="{file_name}"' if file_name else "")
        body += b"--%s\r\ncontent-disposition: %s\r\n\r\n%s\r\n" % (boundary, disposition.encode(), content)
    return f"multipart/form-data; boundary={boundary.decode()}", body + b"--%s--\r\n" % boundary
