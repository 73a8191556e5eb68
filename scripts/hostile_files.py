"""Small files that ask for much: their structure costs far more than their pixels."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.video.stream import VideoStream


def with_scans(count: int, size_wh: tuple[int, int] = (64, 64)) -> bytes:
    """A progressive JPEG of one grey whose last scan is repeated until it has so many."""
    image: Any = np.full((size_wh[1], size_wh[0], 3), 128, np.uint8)
    content = bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1])
    scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + scan * (count - content.count(b"\xff\xda")) + content[-2:]


def tiff(tags: Mapping[int, tuple[int, int]], order: str = "<", *, big: bool = False) -> bytes:
    """The head of a TIFF of 64×64 px; number of values and the value or its place, by tag."""
    fields = {256: (1, 64), 257: (1, 64), 258: (1, 8), 262: (1, 1), 277: (1, 1), **tags}
    mark, code, size = (43, "Q", "Q") if big else (42, "I", "I")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", mark)
    head += struct.pack(order + "HHQ", 8, 0, 16) if big else struct.pack(order + "I", 8)
    head += struct.pack(order + ("Q" if big else "H"), len(fields))
    for tag, (count, value) in sorted(fields.items()):
        head += struct.pack(order + "HH" + code, tag, 4, count)
        head += struct.pack(order + "I4x" if big and count == 1 else order + size, value)
    return head + bytes(64)


def giant_tile() -> bytes:
    """A TIFF of 64×64 px in one tile of 30,000×30,000."""
    return tiff({322: (1, 30_000), 323: (1, 30_000)})


def tracks(container: str, count: int, frame: bytes, codec: str = "mjpeg") -> bytes:
    """A video of three frames of 64×64 px, the same one, in each of its tracks."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        streams = [output.add_stream(codec, rate=25) for _ in range(count)]
        for stream in streams:
            assert isinstance(stream, VideoStream)  # noqa: S101 - the codec is one of video
            stream.width = stream.height = 64
            stream.pix_fmt = "yuvj420p"
        for number in range(3):
            for stream in streams:
                packet = av.Packet(frame)
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                packet.pts = packet.dts = number
                packet.is_keyframe = True
                output.mux(packet)
    return file.getvalue()
