"""`POST /v1/video/upload`: the people in a video, as JSON at the end or line by line."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, BinaryIO, cast

from starlette.requests import Request
from starlette.responses import Response

from posegate.v1 import pose_service_pb2 as pb
from service.web import answers
from service.web.accept import preferred
from service.web.analysis import VideoUpload, analyze, begin_upload, read_config
from service.web.door import Door
from service.web.fields import Fields
from service.web.gateway import caller_of
from service.web.problems import Problem

JSON, NDJSON, EVENTS, MP4 = "application/json", "application/x-ndjson", "text/event-stream", "video/mp4"
_ENCODERS: dict[str, Callable[[object], bytes]] = {
    NDJSON: lambda value: answers.dumped(value) + b"\n",
    EVENTS: answers.event,
}
_ANNOTATED = {"mp4": pb.ANNOTATED_VIDEO_MP4}
_MEMORY_BYTES = 4 << 20  # of a result that waits for its end; the rest is in a file
_PIECE_BYTES = 256 * 1024

Answers = AsyncGenerator["pb.AnalyzeVideoResponse | dict[str, str]", None]


class VideoCalls:
    """The people in videos.

    Args:
        door: what the calls share.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    async def upload(self, request: Request) -> Response:
        """A video in, in one form or another its frames out."""
        kind = preferred(request.headers.get("accept", ""), (JSON, NDJSON, EVENTS, MP4))
        upload = await begin_upload(request, self._door)
        try:
            config = _config(upload, kind)
            running = analyze(self._door, caller_of(request), config, upload)
        except BaseException:
            upload.resources.close()
            raise
        try:
            if kind == JSON:
                return await _at_the_end(running)
            first = await anext(running)  # an error that comes first has a status of its own
            if kind == MP4:
                first = await _first_piece(first, running)
        except BaseException:
            await running.aclose()
            raise
        if kind == MP4:
            return answers.Streamed(_pieces(first, running), MP4)
        lines = _lines(first, running, _ENCODERS[kind], request.state.request_id)
        return answers.Streamed(lines, kind)


def _config(upload: VideoUpload, kind: str) -> pb.VideoConfig:
    """How to analyse the video for an answer of this media type; Problem 400 for wrong options."""
    fields = Fields(upload.values)
    config = read_config(fields)
    config.annotated_video = fields.choice("annotated_video", _ANNOTATED, pb.ANNOTATED_VIDEO_UNSPECIFIED)
    if kind == MP4:
        config.annotated_video = pb.ANNOTATED_VIDEO_MP4
    elif kind == JSON and config.annotated_video:
        fields.add(
            "annotated_video",
            f"does not go with JSON: accept {NDJSON} or {EVENTS}, or {MP4} for it alone",
        )
    fields.check()
    return config


def line_of(answer: pb.AnalyzeVideoResponse) -> dict[str, Any]:
    """One answer of the gateway as an object with a `type`."""
    kind = answer.WhichOneof("response")
    if kind == "frame":
        return {"type": "frame", **answers.frame(answer.frame)}
    if kind == "progress":
        return {"type": "progress", **answers.progress(answer.progress)}
    if kind == "started":
        return {"type": "started", **answers.started(answer.started)}
    if kind == "annotated_chunk":
        return {"type": "annotated_chunk", "data": base64.b64encode(answer.annotated_chunk).decode()}
    return {"type": "summary", **answers.video_summary(answer.summary)}


def error_line(problem: Problem, request_id: str) -> dict[str, Any]:
    """A problem after the answer has begun."""
    document = problem.document(request_id)
    del document["type"], document["title"]
    return {
        "type": "error",
        "code": problem.reason,
        "message": problem.detail,
        **_without(document, "code", "detail"),
    }


def _without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


async def _lines(
    first: pb.AnalyzeVideoResponse | dict[str, str],
    rest: Answers,
    encode: Callable[[object], bytes],
    request_id: str,
) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        try:
            answer = first
            while True:
                if isinstance(answer, pb.AnalyzeVideoResponse):
                    yield encode(line_of(answer))
                elif answer:
                    yield encode({"type": "quota", **answer})
                answer = await anext(rest)
        except StopAsyncIteration:
            return
        except Problem as problem:
            yield encode(error_line(problem, request_id))


async def _first_piece(
    first: pb.AnalyzeVideoResponse | dict[str, str], rest: Answers
) -> pb.AnalyzeVideoResponse:
    """The first piece of the annotated video; until it is there an error can have a status of its own."""
    answer = first
    while not (
        isinstance(answer, pb.AnalyzeVideoResponse) and answer.WhichOneof("response") == "annotated_chunk"
    ):
        answer = await anext(rest)
    return answer


async def _pieces(
    first: pb.AnalyzeVideoResponse | dict[str, str], rest: Answers
) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        if isinstance(first, pb.AnalyzeVideoResponse):
            yield first.annotated_chunk
        async for answer in rest:
            if (
                isinstance(answer, pb.AnalyzeVideoResponse)
                and answer.WhichOneof("response") == "annotated_chunk"
            ):
                yield answer.annotated_chunk


async def _at_the_end(running: Answers) -> Response:
    """Everything in one document, gathered in a file where it is long."""
    file = cast("BinaryIO", tempfile.SpooledTemporaryFile(_MEMORY_BYTES))  # noqa: SIM115 - closed with the answer
    try:
        head: dict[str, Any] = {}
        summary: dict[str, Any] = {}
        headers: dict[str, str] = {}
        frames = 0
        async with aclosing(running):
            async for answer in running:
                if isinstance(answer, dict):
                    headers = answer
                elif answer.WhichOneof("response") == "started":
                    head = answers.started(answer.started)
                elif answer.WhichOneof("response") == "frame":
                    file.write((b"," if frames else b"") + answers.dumped(answers.frame(answer.frame)))
                    frames += 1
                elif answer.WhichOneof("response") == "summary":
                    summary = answers.video_summary(answer.summary)
    except BaseException:
        file.close()
        raise
    return answers.Streamed(_document(head, file, summary), JSON, headers, closed_after=file)


async def _document(
    head: dict[str, Any], file: BinaryIO, summary: dict[str, Any]
) -> AsyncGenerator[bytes, None]:
    yield answers.dumped(head)[:-1] + b',"frames":['
    file.seek(0)
    while piece := file.read(_PIECE_BYTES):
        yield piece
    yield b'],"summary":' + answers.dumped(summary) + b"}"
