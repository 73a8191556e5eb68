"""A video on its way through the door: the body goes to the gateway piece by piece, the answers come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.errors import Violation
from service.web.body import Held, PartEnd, PartHead, chunks, parts, too_slow
from service.web.detect import FACINGS, SIDES
from service.web.door import Door
from service.web.fields import Fields, merged
from service.web.form import query_values, unsupported
from service.web.gateway import Caller, StatusLost, Stream
from service.web.problems import Problem, invalid

FILE_FIELDS = ("video", "file")
NAMES = {
    "skeleton": "template",
    "model_version": "version",
    "measurements": "measurement",
    "angle_options.": "",
    "config.": "",
}
"""Fields of the contract by their names in HTTP."""

_MAX_VALUE_BYTES = 65_536
_MAX_FIELDS_BYTES = 256 * 1024
_MESSAGE_BYTES = 256 * 1024


@dataclass(frozen=True)
class VideoUpload:
    """A body up to where its video begins.

    Attributes:
        values: options that came before the video.
        content: the bytes of the video, still on their way.
        resources: the video's place and the count of its fields' bytes; `analyze` closes it, and who does not
            come that far must.
    """

    values: dict[str, list[str]]
    content: AsyncIterator[bytes]
    resources: ExitStack


async def begin_upload(request: Request, door: Door) -> VideoUpload:
    """Take a place for a video, read the options of the body, and stop where its video begins.

    Raises:
        Problem: 400 or 415 for a body that cannot be read or holds no video, 408 for fields that take too
            long, 429 where there is no place.
    """
    with ExitStack() as resources:
        resources.enter_context(door.videos.one())
        held = resources.enter_context(Held(door.in_flight))
        limit_s = door.settings.body_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                values, content = await _until_video(request, door, held)
        except TimeoutError:
            raise too_slow(limit_s) from None
        return VideoUpload(values, content, resources.pop_all())


async def _until_video(
    request: Request, door: Door, held: Held
) -> tuple[dict[str, list[str]], AsyncIterator[bytes]]:
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    query = query_values(request.query_params)
    body = chunks(request, door.video_limits)
    if kind.startswith("video/") or kind in ("application/octet-stream", ""):
        return query, body
    if kind != "multipart/form-data":
        raise unsupported(kind, "multipart/form-data with the file in `video`, or the bare file as video/mp4")
    values: dict[str, list[str]] = {}
    events = parts(body, content_type)
    name, value, total = "", b"", 0
    async for event in events:
        if isinstance(event, PartHead):
            if event.name in FILE_FIELDS:
                return merged(query, values), _content(events)
            name, value = event.name, b""
            total += len(name)
        elif isinstance(event, PartEnd):
            try:
                values.setdefault(name, []).append(value.decode())
            except UnicodeDecodeError:
                raise invalid(
                    f"The field {name[:100]} is not UTF-8 text.", [Violation(name[:100], "is not UTF-8 text")]
                ) from None
        else:
            held.add(len(event))
            value += event
            total += len(event)
            if len(value) > _MAX_VALUE_BYTES:
                raise invalid(
                    f"The field {name[:100]} has more than {_MAX_VALUE_BYTES} bytes; a video is expected in "
                    f"{' or '.join(FILE_FIELDS)}.",
                    [Violation(name[:100], f"has more than {_MAX_VALUE_BYTES} bytes")],
                )
        if total > _MAX_FIELDS_BYTES:
            description = f"have more than {_MAX_FIELDS_BYTES} bytes together"
            raise invalid(f"The fields before the video {description}.", [Violation("body", description)])
    raise invalid(
        "No video came: send it as the field `video` or `file`.", [Violation("video", "is missing")]
    )


async def _content(events: AsyncIterator[Any]) -> AsyncGenerator[bytes, None]:
    """The bytes of the part that has begun. Nothing may come after it: the analysis is at work already."""
    inside = True
    async for event in events:
        if isinstance(event, PartEnd):
            inside = False
        elif isinstance(event, PartHead):
            raise invalid(
                f"The field {event.name[:100]} comes after the video: put all fields in front of it, or into "
                "the query of the address.",
                [Violation(event.name[:100], "comes after the video")],
            )
        elif inside:
            yield event


def read_config(fields: Fields) -> pb.VideoConfig:
    """How to analyse a video; what is wrong is noted in the fields."""
    config = pb.VideoConfig(
        model=fields.text("model"),
        model_version=fields.text("version"),
        skeleton=fields.text("template"),
        measurements=fields.measurements(),
        include_positions=fields.flag("include_positions") or False,
        track=fields.flag("track"),
        smoothing=pb.SMOOTHING_ONE_EURO if fields.flag("smoothing") else pb.SMOOTHING_UNSPECIFIED,
        max_persons=fields.integer("max_persons", 1),
        min_score=fields.number("min_score", 0, 1),
        iou_threshold=fields.number("iou_threshold", 0, 1),
        min_keypoint_score=fields.number("min_keypoint_score", 0),
    )
    every, fps = fields.integer("every_nth_frame", 1), fields.number("target_fps", 0, 240)
    if every is not None and fps is not None:
        fields.add("target_fps", "cannot go with every_nth_frame: give one of them")
    elif every is not None:
        config.every_nth_frame = every
    elif fps is not None:
        config.target_fps = fps
    for name in ("start", "end"):
        at_s = fields.number(name, 0, 1e9)
        if at_s is not None:
            getattr(config, name).FromNanoseconds(round(at_s * 1e9))
    read_angle_options(fields, config)
    return config


def read_angle_options(fields: Fields, config: pb.VideoConfig | pb.StreamConfig) -> None:
    """How angles are taken on frames."""
    rpc_request = pb.AngleOptions(
        side=fields.choice("side", SIDES, types_pb2.SIDE_UNSPECIFIED),
        facing=fields.choice("facing", FACINGS, pb.FACING_UNSPECIFIED),
        mirrored=fields.flag("mirrored") or False,
        camera_roll_deg=fields.number("camera_roll", -180, 180) or 0.0,
    )
    if rpc_request.ByteSize():
        config.angle_options.CopyFrom(rpc_request)


async def analyze(
    door: Door, caller: Caller, config: pb.VideoConfig, upload: VideoUpload
) -> AsyncGenerator[pb.AnalyzeVideoResponse | dict[str, str], None]:
    """The answers to a video while it is being uploaded; last the caller's quota, a dict.

    A gateway that takes the video slowly slows the upload: one message at most is held here.

    Raises:
        Problem: of the gateway, or of the body.
        CallerGone: the caller left; the call to the gateway is cancelled.
    """
    with upload.resources:
        async with door.gateway.stream(door.gateway.pose.AnalyzeVideo, caller) as stream:
            uploading = asyncio.create_task(_upload(stream, config, upload.content))
            # A body that breaks ends the call, and with it the wait for the next answer.
            uploading.add_done_callback(lambda task: _end_with(task, stream))
            begun = False
            try:
                async for answer in stream.answers():
                    begun = True
                    yield answer
                yield await stream.quota()
                await uploading  # the rest of the body is read, or its caller would not read the answer
            except asyncio.CancelledError:
                if uploading.done() and not uploading.cancelled() and (error := uploading.exception()):
                    raise error from None
                raise
            except StatusLost as lost:
                if begun:
                    raise
                refusal = await door.gateway.refusal_of(
                    door.gateway.pose.AnalyzeVideo, caller, pb.AnalyzeVideoRequest(config=config)
                )
                raise (refusal or lost).renamed(NAMES) from lost
            except Problem as problem:
                raise problem.renamed(NAMES) from problem
            finally:
                uploading.cancel()
                await asyncio.gather(uploading, return_exceptions=True)


def _end_with(uploading: asyncio.Task[None], stream: Stream) -> None:
    if not uploading.cancelled() and uploading.exception() is not None:
        stream.cancel()


async def _upload(stream: Stream, config: pb.VideoConfig, content: AsyncIterator[bytes]) -> None:
    wanted = await stream.send(pb.AnalyzeVideoRequest(config=config))
    async for piece in content:
        for start in range(0, len(piece), _MESSAGE_BYTES):
            if wanted:
                wanted = await stream.send(
                    pb.AnalyzeVideoRequest(chunk=piece[start : start + _MESSAGE_BYTES])
                )
    await stream.close()
