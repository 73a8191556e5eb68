"""Messages of the contract as JSON. Pixels are rounded to 0.001, scores to 0.00001, metres to 0.0001."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, BinaryIO

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.message_fields import seconds

_DEPTHS = {
    types_pb2.DEPTH_SOURCE_NONE: "none",
    types_pb2.DEPTH_SOURCE_MEASURED: "measured",
    types_pb2.DEPTH_SOURCE_LIFTED: "lifted",
}
_SIDES = {types_pb2.SIDE_LEFT: "left", types_pb2.SIDE_RIGHT: "right"}
_STATUSES = {
    pb.ANGLE_STATUS_OK: "OK",
    pb.ANGLE_STATUS_DEGRADED: "DEGRADED",
    pb.ANGLE_STATUS_UNAVAILABLE: "UNAVAILABLE",
}


def dumped(value: object) -> bytes:
    """JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def json_response(value: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(dumped(value), status_code=status, headers=headers, media_type="application/json")


class Streamed(Response):
    """An answer that is sent as it is made. Unlike Starlette's it leaves the request's body to others.

    Args:
        content: pieces of the body; a generator, which is closed in any case.
        media_type: of the body.
        headers: further ones.
        closed_after: a file that the content reads.
    """

    def __init__(
        self,
        content: AsyncGenerator[bytes, None],
        media_type: str,
        headers: dict[str, str] | None = None,
        *,
        closed_after: BinaryIO | None = None,
    ) -> None:
        super().__init__(
            None, headers={"cache-control": "no-store", **(headers or {})}, media_type=media_type
        )
        del self.headers["content-length"]
        self._content = content
        self._file = closed_after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            async with aclosing(self._content) as pieces:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._content.aclose()
            if self._file is not None:
                self._file.close()


def event(value: object) -> bytes:
    """One Server-Sent Event."""
    return b"data: " + dumped(value) + b"\n\n"


def size(message: types_pb2.ImageSize) -> dict[str, int]:
    """Width and height, px."""
    return {"width": message.width, "height": message.height}


def data_uri(overlay: types_pb2.Overlay) -> str:
    """A image as a data URI."""
    return f"data:{overlay.media_type};base64,{base64.b64encode(overlay.content).decode()}"


def persons(messages: Iterable[types_pb2.Person]) -> list[dict[str, Any]]:
    """People, in the order of the answer."""
    return [_person(message) for message in messages]


def _person(message: types_pb2.Person) -> dict[str, Any]:
    box = message.box
    person: dict[str, Any] = {
        "box": [round(value, 3) for value in (box.x1, box.y1, box.x2, box.y2)],
        "score": round(message.score, 5),
        "keypoints": _keypoints(message.keypoints),
    }
    if message.positions:
        person["positions"] = [[_metres(p.x), _metres(p.y), _metres(p.z)] for p in message.positions]
        person["depth_source"] = _DEPTHS.get(message.depth_source, "none")
        if message.depth_assumption:
            person["depth_assumption"] = message.depth_assumption
    if message.HasField("track_id"):
        person["track_id"] = message.track_id
    if message.side in _SIDES:
        person["side"] = _SIDES[message.side]
    if message.HasField("person_index"):
        person["person_index"] = message.person_index
    if message.smoothed_keypoints:
        person["smoothed_keypoints"] = _keypoints(message.smoothed_keypoints)
    return person


def _keypoints(messages: Iterable[types_pb2.Keypoint]) -> list[list[float]]:
    return [[round(point.x, 3), round(point.y, 3), round(point.score, 5)] for point in messages]


def _metres(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def detected(answer: pb.DetectPosesResponse) -> dict[str, Any]:
    """The people in one image."""
    result: dict[str, Any] = {
        "persons": persons(answer.persons),
        "image": size(answer.image_size),
        "model": answer.model,
        "model_version": answer.model_version,
        "skeleton": answer.skeleton,
        "timings": {
            field.name: round(value, 3) for field, value in answer.timings.ListFields() if value is not None
        },
    }
    if answer.HasField("overlay"):
        result["overlay"] = data_uri(answer.overlay)
    return result


def angle_value(message: pb.AngleValue) -> dict[str, Any]:
    """One side of one measurement, of a frame of a video or a stream."""
    value: dict[str, Any] = {
        "degrees": degrees(message),
        "std_error": std_error(message),
        "status": status(message),
        "reasons": list(message.reasons),
    }
    if message.HasField("smoothed_degrees"):
        value["smoothed_degrees"] = round(message.smoothed_degrees, 2)
    return value


def degrees(message: pb.AngleValue, digits: int = 2) -> float | None:
    """Degrees, or None where there is no value."""
    return round(message.degrees, digits) + 0.0 if message.HasField("degrees") else None


def std_error(message: pb.AngleValue) -> float | None:
    """Standard error in degrees, or None."""
    return round(message.std_error_deg, 2) if message.HasField("std_error_deg") else None


def status(message: pb.AngleValue) -> str:
    """OK, DEGRADED or UNAVAILABLE."""
    return _STATUSES.get(message.status, "UNAVAILABLE")


def frame_angles(messages: Iterable[pb.FrameAngle]) -> list[dict[str, Any]]:
    """Angles of the people on one frame."""
    angles = []
    for message in messages:
        angle: dict[str, Any] = {"name": message.name, "person_index": message.person_index}
        if message.HasField("track_id"):
            angle["track_id"] = message.track_id
        for side in ("left", "right"):
            if message.HasField(side):
                angle[side] = angle_value(getattr(message, side))
        angles.append(angle)
    return angles


def started(message: pb.VideoStarted) -> dict[str, Any]:
    """What a video is, and what answers."""
    video = message.video
    return {
        "video": {
            "container": video.container,
            "codec": video.codec,
            **size(video.frame_size),
            "rotation_deg": video.rotation_deg,
            "fps": video.fps if video.HasField("fps") else None,
            "duration": seconds(video.duration) if video.HasField("duration") else None,
            "frame_count": video.frame_count if video.HasField("frame_count") else None,
        },
        "model": message.model,
        "model_version": message.model_version,
        "skeleton": message.skeleton,
        "n_kpts": message.n_kpts,
    }


def frame(message: pb.FrameResult) -> dict[str, Any]:
    """What was found on one frame."""
    found: dict[str, Any] = {
        "frame_index": message.frame_index,
        "time": seconds(message.time),
        "persons": persons(message.persons),
    }
    if message.angles:
        found["angles"] = frame_angles(message.angles)
    return found


def progress(message: pb.VideoProgress) -> dict[str, Any]:
    """How far a video is."""
    return {
        "frame": message.frame,
        "total": message.total if message.HasField("total") else None,
        "pct": round(message.percent, 2),
        "fps": round(message.fps, 2),
        "elapsed": seconds(message.elapsed),
        "eta": seconds(message.eta) if message.HasField("eta") else None,
        "bytes_received": message.bytes_received,
    }


def video_summary(message: pb.VideoSummary) -> dict[str, Any]:
    """The whole video."""
    return {
        "fps": round(message.fps, 6),
        "frame_width": message.frame_width,
        "frame_height": message.frame_height,
        "total_frames": message.total_frames,
        "n_kpts": message.n_kpts,
        "frames_analyzed": message.frames_analyzed,
        "frames_with_persons": message.frames_with_persons,
        "persons_tracked": message.persons_tracked,
        "wall_time": seconds(message.wall_time),
        "measurements": summaries(message.measurements),
    }


def summaries(messages: Iterable[pb.MeasurementSummary]) -> list[dict[str, Any]]:
    """Measurements over the whole of a video or a stream."""
    return [_summary(message) for message in messages]


def _summary(message: pb.MeasurementSummary) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "name": message.name,
        "title": message.title,
        "bodyPart": message.body_part.capitalize(),
        "track_id": message.track_id if message.HasField("track_id") else None,
    }
    for side in ("left", "right"):
        if message.HasField(side):
            summary[side] = _side_summary(getattr(message, side))
    if message.HasField("symmetry"):
        summary["symmetry"] = {
            "difference_deg": round(message.symmetry.difference_deg, 2),
            "difference_percent": round(message.symmetry.difference_percent, 2),
        }
    return summary


def _side_summary(message: pb.SideSummary) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for name in ("min_deg", "max_deg", "range_of_motion_deg"):
        summary[name] = round(getattr(message, name), 2) if message.HasField(name) else None
    for name in ("min_time", "max_time"):
        summary[name] = seconds(getattr(message, name)) if message.HasField(name) else None  # type: ignore[arg-type]
    summary["frames_measured"] = message.frames_measured
    summary["frames_degraded"] = message.frames_degraded
    summary["repetitions"] = [
        {
            "start": seconds(one.start),
            "end": seconds(one.end),
            "peak": seconds(one.peak),
            "peak_deg": round(one.peak_deg, 2),
            "range_of_motion_deg": round(one.range_of_motion_deg, 2),
        }
        for one in message.repetitions
    ]
    return summary
