"""`/v1/stream`: a WebSocket for a camera; images in as they are taken, people out.

The first message is JSON with the options, then every binary message is one encoded image; the text
`{"type": "end"}` asks for the summary. Answers are JSON: `started`, a `result` for every image that was
not dropped for a newer one, `summary`, or `error` and the end.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from posegate.v1 import pose_service_pb2 as pb
from service.message_fields import seconds
from service.web import answers
from service.web.analysis import read_angle_options
from service.web.body import Held, InFlight
from service.web.door import Door
from service.web.fields import Fields
from service.web.form import Form, json_object
from service.web.gateway import Stream, caller_of
from service.web.middleware import CallerGone
from service.web.problems import Problem, from_status, invalid
from service.web.videos import error_line

_log = structlog.get_logger()

_CONFIG_S = 10.0  # for the first message
_ACCEPT_S = 5.0  # for the first answer of the gateway, before the first image is sent to it
_MAX_TEXT_BYTES = 65_536  # of a text message
_POLICY_VIOLATION, _TRY_LATER, _OVER = 1008, 1013, 1000
_POLICIES = {"latest": pb.FRAME_POLICY_LATEST, "every": pb.FRAME_POLICY_EVERY}


class StreamCalls:
    """Streams of images.

    Args:
        door: what the calls share.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    async def stream(self, socket: WebSocket) -> None:
        """One camera."""
        request_id = uuid.uuid4().hex
        socket.scope.setdefault("state", {})["request_id"] = request_id
        if not self._door.settings.host_allowed(socket.headers.get("host", "")):
            await socket.close(_POLICY_VIOLATION, "host is not allowed")
            return
        if not self._allowed(socket):
            # A page of another site could use the door in its visitor's name: CORS leaves WebSockets alone.
            await socket.close(_POLICY_VIOLATION, "origin is not allowed")
            return
        await socket.accept(headers=[(b"x-request-id", request_id.encode())])
        close = _OVER
        try:
            with self._door.sockets.one():
                await self._run(socket, request_id)
        except Problem as problem:
            close = _TRY_LATER if problem.retry_after_s is not None else _POLICY_VIOLATION
            await _tell(socket, error_line(problem, request_id))
        except (CallerGone, WebSocketDisconnect):
            return
        except Exception as error:
            _log.error("internal_error", request_id=request_id, exc_info=error)
            close = 1011
            await _tell(socket, error_line(Problem(500, "INTERNAL", "internal error"), request_id))
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(close)

    def _allowed(self, socket: WebSocket) -> bool:
        origin = socket.headers.get("origin")
        if origin is None:  # no browser
            return True
        allowed = self._door.settings.allowed_origins
        return (
            "*" in allowed or origin in allowed or urlsplit(origin).netloc == socket.headers.get("host", "")
        )

    async def _run(self, socket: WebSocket, request_id: str) -> None:
        config, key = await _config(socket)  # within its time, before a place is taken
        with self._door.cameras.one():
            await self._analyze(socket, request_id, config, key)

    async def _analyze(self, socket: WebSocket, request_id: str, config: pb.StreamConfig, key: str) -> None:
        gateway = self._door.gateway
        async with gateway.stream(gateway.pose.StreamPoses, caller_of(socket, key)) as stream:
            accepted = asyncio.Event()
            sending = asyncio.create_task(_send(socket, stream, config, self._door.in_flight, accepted))
            sending.add_done_callback(lambda task: _end_with(task, stream))
            try:
                async for answer in stream.answers():
                    accepted.set()
                    line = _line(answer, request_id)
                    if line is not None:
                        async with asyncio.timeout(self._door.settings.send_idle_s):
                            await socket.send_text(answers.dumped(line).decode())
            except TimeoutError:
                raise CallerGone from None
            except asyncio.CancelledError:
                if sending.done() and not sending.cancelled() and (error := sending.exception()):
                    raise error from None
                raise
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)


async def _tell(socket: WebSocket, line: dict[str, Any]) -> None:
    if socket.application_state is WebSocketState.CONNECTED:
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.send_text(answers.dumped(line).decode())


async def _config(socket: WebSocket) -> tuple[pb.StreamConfig, str]:
    """The options, and the caller's key."""
    try:
        async with asyncio.timeout(_CONFIG_S):
            message = await socket.receive()
    except TimeoutError:
        raise invalid(f"No options came within {_CONFIG_S:g} s.", reason="CONFIG_LATE") from None
    if message["type"] == "websocket.disconnect":
        raise CallerGone
    if message.get("text") is None:
        raise invalid('The first message must be the options, as {"model": ""}; images come after it.')
    body = _text_object(message["text"])
    key = body.pop("api_key", "")
    form = Form()
    for name, value in body.items():
        for one in _listed(value):
            form.add(name, str(one).lower() if isinstance(one, bool) else str(one))
    fields = Fields(form.values)
    config = pb.StreamConfig(
        model=fields.text("model"),
        model_version=fields.text("version"),
        skeleton=fields.text("template"),
        measurements=fields.measurements(),
        include_positions=fields.flag("include_positions") or False,
        track=fields.flag("track"),
        smoothing=pb.SMOOTHING_ONE_EURO if fields.flag("smoothing") else pb.SMOOTHING_UNSPECIFIED,
        frame_policy=fields.choice("frame_policy", _POLICIES, pb.FRAME_POLICY_LATEST),
        max_persons=fields.integer("max_persons", 1),
        min_score=fields.number("min_score", 0, 1),
        iou_threshold=fields.number("iou_threshold", 0, 1),
        min_keypoint_score=fields.number("min_keypoint_score", 0),
    )
    read_angle_options(fields, config)
    fields.known("api_key")
    fields.check()
    return config, str(key)


def _text_object(text: str) -> dict[str, object]:
    """The JSON object of a text message; Problem 400 for anything else, and for more than 64 KiB."""
    encoded = text.encode(errors="replace")
    if len(encoded) > _MAX_TEXT_BYTES:
        raise invalid(f"A text message has at most {_MAX_TEXT_BYTES} bytes, not {len(encoded)}.")
    return json_object(encoded)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [] if value is None else [value]


async def _images(socket: WebSocket) -> AsyncIterator[bytes]:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise CallerGone
        content = message.get("bytes")
        if content is not None:
            yield content
        elif _text_object(message["text"]).get("type") == "end":
            return
        else:
            raise invalid('A text after the first one must be {"type": "end"}; images are binary messages.')


async def _send(
    socket: WebSocket, stream: Stream, config: pb.StreamConfig, in_flight: InFlight, accepted: asyncio.Event
) -> None:
    await stream.send(pb.StreamPosesRequest(config=config))
    # A refusal may lose its status where images are on their way: see gateway.StatusLost.
    with suppress(TimeoutError):
        async with asyncio.timeout(_ACCEPT_S):
            await accepted.wait()
    number = 0
    async for content in _images(socket):
        frame = pb.StreamFrame(frame_id=str(number), encoded=content)
        with Held(in_flight) as held:
            held.add(len(content))
            await stream.send(pb.StreamPosesRequest(frame=frame))
        number += 1
    await stream.close()
    with suppress(WebSocketDisconnect, RuntimeError):  # only to see the caller leave
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
        raise CallerGone


def _end_with(sending: asyncio.Task[None], stream: Stream) -> None:
    if not sending.cancelled() and sending.exception() is not None:
        stream.cancel()


def _line(answer: pb.StreamPosesResponse, request_id: str) -> dict[str, Any] | None:
    kind = answer.WhichOneof("response")
    if kind == "started":
        started = answer.started
        return {
            "type": "started",
            "model": started.model,
            "model_version": started.model_version,
            "skeleton": started.skeleton,
            "n_kpts": started.n_kpts,
        }
    if kind == "result":
        result = answer.result
        line: dict[str, Any] = {"type": "result", "frame": int(result.frame_id or 0)}
        if result.HasField("error"):
            line["error"] = from_status(result.error).document(request_id)
            return line
        return {
            **line,
            "persons": answers.persons(result.persons),
            "angles": answers.frame_angles(result.angles),
            "image": answers.size(result.image_size),
            "dropped": result.dropped_frames,
            "total_ms": round(result.timings.total_ms, 2),
        }
    if kind == "summary":
        summary = answer.summary
        return {
            "type": "summary",
            "frames_received": summary.frames_received,
            "frames_answered": summary.frames_answered,
            "frames_dropped": summary.frames_dropped,
            "frames_failed": summary.frames_failed,
            "persons_tracked": summary.persons_tracked,
            "wall_time": seconds(summary.wall_time),
            "measurements": answers.summaries(summary.measurements),
        }
    return None
