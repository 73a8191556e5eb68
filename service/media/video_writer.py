"""Images to an H.264 MP4 that can be sent while it is made.

A fragmented MP4: every second of video is a fragment of its own, so nothing has to be gone back to, and
the file is playable when it is complete. The encoder is the one in PyAV's FFmpeg.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

from service.core.geometry import Rgb8

_CLOCK_HZ = 90_000
_FRAGMENT_S = 1.0
_LEAST_PX, _MOST_PX = 16, 4096  # of a side; the upper one is what common H.264 decoders take
_QUALITY = {
    # Constant quality; "zerolatency" holds no frames back, which is also what keeps memory small.
    "libx264": {"preset": "superfast", "tune": "zerolatency", "crf": "23"},
    "libopenh264": {"rc_mode": "quality"},
    "h264_nvenc": {"preset": "p4", "tune": "ll", "cq": "23"},
}


class NoEncoder(Exception):
    """This FFmpeg does not have the encoder."""


class Mp4Writer:
    """Encodes images as they come.

    Args:
        size_wh: of the images. Made even, and larger ones scaled down, as H.264 needs it.
        fps: frames per second on average, for the encoder's planning only.
        encoder: FFmpeg's name of an H.264 encoder.
        threads: that encode.

    Raises:
        NoEncoder: there is none of that name, or it does not work here.
    """

    def __init__(self, size_wh: tuple[int, int], fps: float, *, encoder: str, threads: int) -> None:
        self._size_wh = size_wh
        self._coded_wh = _coded(size_wh)
        self._sink = _Sink()
        self._last = -1
        self._container = av.open(
            self._sink,
            mode="w",
            format="mp4",
            options={"movflags": "frag_keyframe+empty_moov+default_base_moof"},
        )
        try:
            stream = self._container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1001))
            if not isinstance(stream, VideoStream):
                raise NoEncoder(encoder)
            stream.width, stream.height = self._coded_wh
            stream.pix_fmt = "yuv420p"
            stream.time_base = Fraction(1, _CLOCK_HZ)
            context = stream.codec_context
            context.time_base = Fraction(1, _CLOCK_HZ)
            context.gop_size = max(1, round(fps * _FRAGMENT_S))
            context.thread_count = threads
            context.options = dict(_QUALITY.get(encoder, {}))
            context.color_range = 1  # "tv", said so that players need not guess
            context.open()
        except BaseException as error:
            self._container.close()
            if isinstance(error, (av.FFmpegError, ValueError)):
                raise NoEncoder(encoder) from error
            raise
        self._stream = stream

    def add(self, image: Rgb8, time_s: float) -> bytes:
        """Encode an image.

        Args:
            image: (H, W, 3) RGB of the size agreed on.
            time_s: when it is shown; must rise.

        Returns:
            What can be sent now; often nothing.
        """
        frame = av.VideoFrame.from_ndarray(self._fit(image), format="rgb24")
        self._last = max(self._last + 1, round(time_s * _CLOCK_HZ))
        frame.pts, frame.time_base = self._last, Fraction(1, _CLOCK_HZ)
        self._container.mux(self._stream.encode(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        """The end of the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._sink.take()

    def close(self) -> None:
        """Give up without an end; idempotent, also after `finish`."""
        self._container.close()

    def _fit(self, image: Rgb8) -> Rgb8:
        width, height = self._coded_wh
        if (image.shape[1], image.shape[0]) == (width, height):
            return np.ascontiguousarray(image)
        if max(self._size_wh) > _MOST_PX:
            return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
        padded = np.zeros((height, width, 3), np.uint8)
        padded[: image.shape[0], : image.shape[1]] = image
        return padded


def _coded(size_wh: tuple[int, int]) -> tuple[int, int]:
    """The size that is encoded: even, neither tiny nor huge."""
    scale = min(1.0, _MOST_PX / max(size_wh))
    width, height = (max(_LEAST_PX, round(side * scale)) for side in size_wh)
    return width + width % 2, height + height % 2


class _Sink:
    """A file to write to that can only be read from front to back."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, content: Any) -> int:
        self._parts.append(bytes(content))
        return len(content)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
