"""A decoder process of one video: `VideoReader` on a spool that the gateway still fills."""

from __future__ import annotations

import os
import resource
import socket
from dataclasses import asdict
from typing import Any

from service.core.cancellation import stopping_when
from service.errors import PosegateError, VideoTooCostly
from service.media.frame_sampler import Sampling
from service.media.isolation import wire
from service.media.isolation.handover import Handover
from service.media.spool import Spool, SpoolClosed
from service.media.video_reader import VideoFacts, VideoFrame, VideoLimits, VideoReader

_BURST_CPU_S = 20
"""CPU time that a video may take at once: to open it, and for a frame."""

_PACKET_CPU_S = 1.0
"""CPU time that is added for each packet; one of 16 megapixels takes a third of it."""


def serve(connection: socket.socket, message: wire.Message, file: int) -> None:
    """Open the video and give frame after frame, each when it is asked for; until the gateway is gone."""
    spool = RemoteSpool(connection, file)
    reader = VideoReader(
        spool,
        Sampling(**message["sampling"]),
        VideoLimits(**message["limits"]),
        int(message["threads"]),
        strict=bool(message["strict"]),
    )
    budget, handover = _CpuBudget(), Handover()
    with stopping_when(budget.renew):
        while True:
            request, descriptors = wire.received(connection)
            wire.close(descriptors)
            spool.ask_with(lambda: _counters(reader))
            files: list[int] = []
            try:
                if request["do"] == "open":
                    answer = {"facts": _facts(reader.open()), "decoder_bytes": reader.decoder_bytes()}
                else:
                    if "reduce_to" in request:
                        width, height = request["reduce_to"]
                        reader.reduce_to((width, height))
                    frame = reader.next_frame()
                    answer = {"end": True} if frame is None else _frame(frame)
                    if frame is not None:
                        files.append(handover.put(frame.image))
            except PosegateError as error:
                answer = {"error": type(error).__name__, "text": error.message, "metadata": error.metadata}
            except MemoryError:
                answer = {"error": VideoTooCostly.__name__}
            except wire.Gone:
                raise
            except Exception as error:
                answer = {"internal": repr(error)}
            wire.send(connection, answer | _counters(reader), files)


class RemoteSpool(Spool):
    """A spool in the gateway, as its decoder process sees it: the same file, and questions about its growth.

    Args:
        connection: to the gateway.
        file: of the spool.
    """

    def __init__(self, connection: socket.socket, file: int) -> None:
        self._connection = connection
        self._own_file = file
        self._known = 0
        self._whole = False
        self._extra = dict

    def ask_with(self, extra: Any) -> None:
        """Send what `extra` gives with every question."""
        self._extra = extra

    @property
    def size(self) -> int:
        """Bytes received, as far as is known here."""
        return self._known

    @property
    def complete(self) -> bool:
        """Whether all bytes are here, as far as is known here."""
        return self._whole

    @property
    def closed(self) -> bool:
        """False: a process whose spool is given up is ended."""
        return False

    def wait(self, size: int | None) -> int:
        """Wait until there are so many bytes (None: all), or the end; how many there are."""
        while not self._whole and (size is None or self._known < size):
            wire.send(self._connection, {"wait": size} | self._extra())
            answer, descriptors = wire.received(self._connection)
            wire.close(descriptors)
            if "size" not in answer:
                raise SpoolClosed
            self._known, self._whole = int(answer["size"]), bool(answer["complete"])
        return self._known

    def read_some(self, count: int, position: int) -> bytes:
        """Up to `count` bytes at a position, once one is there; b"" at the end."""
        self.wait(position + 1)
        return os.pread(self._own_file, min(count, max(self._known - position, 0)), position)


class _CpuBudget:
    """CPU time that grows with the packets; the kernel ends the process that has used it up."""

    def __init__(self) -> None:
        self._allowed = 0.0
        self._limit = 0
        self._renewed_at = 0.0
        self.renew()

    def renew(self) -> bool:
        """Allow more for one packet. False: nothing has to stop."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = usage.ru_utime + usage.ru_stime
        self._allowed = min(max(self._allowed, used) + _PACKET_CPU_S, used + _BURST_CPU_S)
        if not self._limit:
            self._allowed = used + _BURST_CPU_S
        limit = int(self._allowed) + 1
        if limit != self._limit:
            self._limit = limit
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        return False


def _counters(reader: VideoReader) -> dict[str, Any]:
    return {
        "frames_seen": reader.frames_seen,
        "frames_damaged": reader.frames_damaged,
        "first_time_s": reader.first_time_s,
        "last_time_s": reader.last_time_s,
        "bytes_decoded": reader.bytes_decoded,
        "gaps": reader.gaps,
    }


def _facts(facts: VideoFacts) -> dict[str, Any]:
    aspect = facts.pixel_aspect
    return asdict(facts) | {"pixel_aspect": [aspect.numerator, aspect.denominator]}


def _frame(frame: VideoFrame) -> dict[str, Any]:
    height, width = frame.image.shape[:2]
    return {
        "index": frame.index,
        "time_s": frame.time_s,
        "decode_ms": frame.decode_ms,
        "damaged": frame.damaged,
        "height": height,
        "width": width,
    }
