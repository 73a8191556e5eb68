"""Messages of the streaming RPCs after the config: chunks of a video, frames of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

import numpy as np

from posegate.v1 import pose_service_pb2 as pb
from service.core.geometry import ScaledImage
from service.errors import DeadlineExceeded, ImageUndecodable, InvalidRequest, Violation
from service.media.image import ImageLimits, check_pixels
from service.media.loading import Decode, Load, in_thread, refused
from service.pipeline.stream import StreamFrame
from service.servicers.requests.validation import Violations
from service.servicers.requests.video_config import read_duration_ns

Request = TypeVar("Request", pb.AnalyzeVideoRequest, pb.StreamPosesRequest)

_MAX_FRAME_ID = 128
_MAX_CAPTURE_S = 10_000_000_000  # 316 years: any clock, but not any number


async def first_message(requests: AsyncIterator[Request], content: str, patience_s: float) -> Request:
    """The message with the config.

    Args:
        requests: the messages of the call.
        content: what comes after it, for the error.
        patience_s: time that the caller has for it.

    Raises:
        InvalidRequest: another message came, or none.
        DeadlineExceeded: it did not come in time.
    """
    try:
        async with asyncio.timeout(patience_s):
            first = await anext(requests)
    except StopAsyncIteration:
        raise _wrong_order("The first message must be the config: nothing was sent.") from None
    except TimeoutError:
        raise DeadlineExceeded(f"No config came within {patience_s:g} s.", reason="CONFIG_LATE") from None
    if first.WhichOneof("request") != "config":
        raise _wrong_order(f"The first message must be the config, and the {content} come after it.")
    return first


async def video_chunks(requests: AsyncIterator[pb.AnalyzeVideoRequest]) -> AsyncGenerator[bytes, None]:
    """The bytes of the video; raises InvalidRequest for any other message."""
    async for request in requests:
        kind = request.WhichOneof("request")
        if kind == "config":
            raise _wrong_order("The config may be sent once only: send chunks after it.")
        if kind is None:
            raise _wrong_order("A message must hold a chunk.")
        if request.chunk:
            yield request.chunk


async def stream_frames(
    requests: AsyncIterator[pb.StreamPosesRequest], limits: ImageLimits, decode: Decode = in_thread
) -> AsyncGenerator[StreamFrame, None]:
    """The frames of the stream; raises InvalidRequest for any other message. A frame with wrong fields fails
    when it is loaded, so that the error is its own result."""
    capture_times = _CaptureTimes()
    async for request in requests:
        kind = request.WhichOneof("request")
        if kind == "config":
            raise _wrong_order("The config may be sent once only: send frames after it.")
        if kind is None:
            raise _wrong_order("A message must hold a frame.")
        frame = request.frame
        violations = Violations("frame.")
        if len(frame.frame_id) > _MAX_FRAME_ID:
            violations.add(
                "frame_id", f"must have at most {_MAX_FRAME_ID} characters, not {len(frame.frame_id)}"
            )
        capture_ns = capture_times.read(violations, frame)
        try:
            violations.raise_any()
        except InvalidRequest as error:
            yield StreamFrame(frame.frame_id[:_MAX_FRAME_ID], refused(error), capture_ns)
        else:
            load = _loader(frame, limits, decode)
            yield StreamFrame(frame.frame_id, load, capture_ns, request.ByteSize())


class _CaptureTimes:
    """Reads capture times: either all frames of a stream have one or none has, and they never fall."""

    def __init__(self) -> None:
        self._given: bool | None = None
        self._last_ns = 0

    def read(self, violations: Violations, frame: pb.StreamFrame) -> int | None:
        """Nanoseconds; None for the time of arrival, or for a frame that is refused."""
        given = frame.HasField("capture_time")
        self._given = given if self._given is None else self._given
        if given is not self._given:
            violations.add("capture_time", "must be set in all frames of a stream, or in none")
        if not given or not self._given:
            return None
        capture_ns = read_duration_ns(violations, "capture_time", frame.capture_time)
        if capture_ns > _MAX_CAPTURE_S * 1_000_000_000:
            violations.add("capture_time", f"must be at most {_MAX_CAPTURE_S} s")
        elif capture_ns < self._last_ns:
            violations.add(
                "capture_time", f"must not be before that of an earlier frame, {self._last_ns / 1e9:g} s"
            )
        if violations:
            return None
        self._last_ns = capture_ns
        return capture_ns


def _loader(frame: pb.StreamFrame, limits: ImageLimits, decode: Decode) -> Load:
    """The call that gives the upright image of a frame. For a worker thread."""
    if frame.WhichOneof("picture") == "encoded":
        return decode(frame.encoded, limits)
    return lambda _: _load_raw(frame, limits)


def _load_raw(frame: pb.StreamFrame, limits: ImageLimits) -> ScaledImage:
    if frame.WhichOneof("picture") is None:
        raise ImageUndecodable("The frame holds no image: set `encoded` or `raw`.")
    width, height, rgb = frame.raw.size.width, frame.raw.size.height, frame.raw.rgb
    if width < 1 or height < 1:
        raise ImageUndecodable("The raw image needs its size: width and height of 1 or more.")
    check_pixels((width, height), limits)
    if len(rgb) != width * height * 3:
        raise ImageUndecodable(
            f"A raw image of {width}×{height} px has {width * height * 3} bytes of RGB, not {len(rgb)}."
        )
    return ScaledImage.whole(np.frombuffer(rgb, np.uint8).reshape(height, width, 3))


def _wrong_order(message: str) -> InvalidRequest:
    return InvalidRequest(message, violations=[Violation("request", message)])
