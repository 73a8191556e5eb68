"""Videos that decoder processes decode: the gateway's side, with the interface of `VideoReader`."""

from __future__ import annotations

import os
from dataclasses import asdict
from fractions import Fraction

import structlog

from service.errors import (
    DataLoss,
    PosegateError,
    Unavailable,
    VideoTooCostly,
    VideoTooLarge,
    VideoTooLong,
    VideoUndecodable,
)
from service.media.frame_sampler import Sampling
from service.media.isolation import wire
from service.media.isolation.handover import taken
from service.media.isolation.processes import DecoderHost, DecoderProcess, NoAnswer
from service.media.spool import Spool, SpoolClosed
from service.media.video_reader import VideoFacts, VideoFrame, VideoLimits

_log = structlog.get_logger()

_ERRORS: dict[str, type[PosegateError]] = {
    kind.__name__: kind for kind in (DataLoss, VideoTooCostly, VideoTooLarge, VideoTooLong, VideoUndecodable)
}
_BASE_BYTES = 384 << 20
_BYTES_PER_PIXEL = 60  # of one frame: 20 frames of 10 bits and the picture in RGB
_SILENCE_S = 120.0  # six times the CPU time that a video may take at once


class IsolatedVideoReader:
    """As `VideoReader`, which runs in a process of its own: see there for arguments, attributes and errors.

    Closing the spool ends the process within a moment, whatever it does.

    Raises (from `open` and `next_frame`), beside what `VideoReader` raises:
        VideoTooCostly: more time or memory than the video's frames warrant.
        Unavailable: no process can be started.
    """

    def __init__(
        self,
        host: DecoderHost,
        spool: Spool,
        sampling: Sampling,
        limits: VideoLimits,
        threads: int = 1,
        *,
        strict: bool = False,
    ) -> None:
        self._host = host
        self._spool = spool
        self._limits = limits
        self._config = {
            "work": "video",
            "memory_bytes": _BASE_BYTES + threads * _BYTES_PER_PIXEL * limits.max_pixels,
            "sampling": asdict(sampling),
            "limits": asdict(limits),
            "threads": threads,
            "strict": strict,
        }
        self._process: DecoderProcess | None = None
        self._decoder_bytes = 0
        self._next: wire.Message = {"do": "next"}
        self.frames_seen = 0
        self.frames_damaged = 0
        self.first_time_s: float | None = None
        self.last_time_s = 0.0
        self.bytes_decoded = 0
        self.gaps = 0

    def open(self) -> VideoFacts:
        """Read the container's head and decode one frame; waits for as much of the file as that needs."""
        file = self._spool.duplicate()
        try:
            self._process = self._host.fork(self._config, [file])
        except NoAnswer as error:
            raise Unavailable("No decoder can be started: try again.", retry_after_s=1.0) from error
        finally:
            os.close(file)
        answer, descriptors = self._ask({"do": "open"})
        wire.close(descriptors)
        self._decoder_bytes = int(answer["decoder_bytes"])
        facts = answer["facts"]
        width, height = facts["size_wh"]
        return VideoFacts(
            **{**facts, "size_wh": (width, height), "pixel_aspect": Fraction(*facts["pixel_aspect"])}
        )

    def reduce_to(self, size_wh: tuple[int, int]) -> None:
        """As `VideoReader.reduce_to`; the process does it, so that less has to be handed over."""
        self._next = {"do": "next", "reduce_to": list(size_wh)}

    def next_frame(self) -> VideoFrame | None:
        """The next selected frame; None after the last."""
        answer, descriptors = self._ask(self._next)
        try:
            if "end" in answer:
                return None
            height, width = int(answer["height"]), int(answer["width"])
            fits = min(height, width) > 0 and height * width <= self._limits.max_pixels
            image = taken(descriptors[0], height, width) if fits and descriptors else None
        finally:
            wire.close(descriptors)
        if image is None:
            raise self._too_costly()
        return VideoFrame(
            int(answer["index"]),
            float(answer["time_s"]),
            image,
            float(answer["decode_ms"]),
            bool(answer["damaged"]),
            self.frames_damaged,
            self.gaps,
        )

    def decoder_bytes(self) -> int:
        """As `VideoReader.decoder_bytes`."""
        return self._decoder_bytes

    def close(self) -> None:
        """End the process; idempotent."""
        if self._process is not None:
            self._process.end()

    def _ask(self, message: wire.Message) -> tuple[wire.Message, list[int]]:
        """Have the process do something, and tell it meanwhile how far the spool is."""
        assert self._process is not None  # noqa: S101 - open() comes first
        while True:
            try:
                answer, descriptors = self._process.ask(
                    message, [], _SILENCE_S, left=lambda: self._spool.closed
                )
            except NoAnswer as error:
                if self._spool.closed:
                    raise SpoolClosed from error
                end = self._host.end_of(self._process) if error.ended else "too late"
                _log.warning("decoder_ended", pid=self._process.pid, end=end, work="video")
                if end == "by the machine":
                    raise Unavailable("The decoder was ended: try again.", retry_after_s=1.0) from error
                if end == "crashed":
                    raise VideoUndecodable("The video is damaged: send a whole, valid file.") from error
                raise self._too_costly() from error
            self._count(answer)
            if "wait" not in answer:
                break
            wire.close(descriptors)
            try:
                size = self._spool.wait(answer["wait"])
            except BaseException:
                self.close()
                raise
            message = {"size": size, "complete": self._spool.complete}
        if "error" in answer:
            wire.close(descriptors)
            self.close()
            kind = _ERRORS.get(answer["error"])
            if kind is None or "text" not in answer:
                raise self._too_costly()
            raise kind(answer["text"], metadata=answer["metadata"])
        return answer, descriptors

    def _count(self, answer: wire.Message) -> None:
        self.frames_seen = int(answer["frames_seen"])
        self.frames_damaged = int(answer["frames_damaged"])
        first = answer["first_time_s"]
        self.first_time_s = None if first is None else float(first)
        self.last_time_s = float(answer["last_time_s"])
        self.bytes_decoded = int(answer["bytes_decoded"])
        self.gaps = int(answer["gaps"])

    def _too_costly(self) -> VideoTooCostly:
        return VideoTooCostly(
            "Decoding the video takes more time or memory than its frames warrant: encode it anew, as H.264.",
            metadata={"frames": str(self.frames_seen)},
        )
