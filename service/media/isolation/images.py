"""Images that a decoder process decodes, and those that the caller's own thread does."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import partial

import structlog

from service.core.geometry import Rgb8, ScaledImage
from service.errors import ImageTooCostly, ImageTooLarge, ImageUndecodable, InvalidRequest, Unavailable
from service.media.cost import is_large
from service.media.image import ImageLimits, LeastScale, ScaledDecoding, decode_scaled, examine
from service.media.image_bounds import Structure
from service.media.isolation import wire
from service.media.isolation.handover import taken
from service.media.isolation.processes import DecoderHost, DecoderProcess, NoAnswer
from service.media.loading import Loading, refused

_log = structlog.get_logger()

_ERRORS: dict[str, type[InvalidRequest]] = {
    kind.__name__: kind for kind in (ImageTooCostly, ImageTooLarge, ImageUndecodable)
}
_BYTES_PER_PIXEL = 24  # that a decoder may hold: coefficients, planes and copies of them
_BASE_BYTES = 192 << 20
_WALL_BY_CPU = 6  # a busy machine


@dataclass(frozen=True)
class ImageBudget:
    """What decoding one image may cost.

    Attributes:
        cpu_s: seconds of CPU time of any image.
        cpu_s_per_megapixel: seconds beside those.
    """

    cpu_s: float = 2.0
    cpu_s_per_megapixel: float = 0.25

    def wall_s(self, limits: ImageLimits) -> float:
        """Seconds that any image may take."""
        return _WALL_BY_CPU * (self.cpu_s + self.cpu_s_per_megapixel * limits.max_pixels / 1e6)


class ImageDecoder:
    """Decodes images as `image.decode` does, within a budget. For worker threads.

    A BMP, and a JPEG that is decoded row by row in one pass, cost what their pixels cost, and are decoded in
    the thread; all others are decoded in processes, of which there are as many as there are such images at
    once.

    Args:
        host: starts the processes.
        budget: of one image.
        scaled: how far images that are decoded in the thread may be reduced.
    """

    def __init__(
        self, host: DecoderHost, budget: ImageBudget | None = None, scaled: ScaledDecoding = "fine"
    ) -> None:
        self._host = host
        self._budget = budget or ImageBudget()
        self._scaled: ScaledDecoding = scaled
        self._lock = threading.Lock()
        self._idle: list[DecoderProcess] = []
        self._closed = False

    def decode(
        self, content: bytes, limits: ImageLimits, least_scale: LeastScale | None = None
    ) -> ScaledImage:
        """The upright image, as `image.decode_scaled`; whole where a process decodes it.

        Raises:
            ImageUndecodable, ImageTooLarge, ImageTooCostly: as `image.decode_scaled`; ImageTooCostly also
                where it takes more time or memory than the budget allows.
            Unavailable: no process can be started.
            Stopped: the caller of this thread's work has gone.
        """
        return self.loading(content, limits)(least_scale)

    def loading(self, content: bytes, limits: ImageLimits) -> Loading:
        """The call of `decode`, by what the head of the file announces."""
        try:
            structure = examine(content, limits)
        except InvalidRequest as error:
            return refused(error)
        large = is_large(content, structure)
        if not structure.streams:
            return Loading(partial(self._in_process, content, limits, structure), waits=True, large=large)
        load = partial(decode_scaled, content, limits, mode=self._scaled, structure=structure)
        return Loading(load, large=large)

    def _in_process(
        self, content: bytes, limits: ImageLimits, structure: Structure, _: LeastScale | None
    ) -> ScaledImage:
        file = _file(content)
        try:
            process = self._take(limits)
            answer, descriptors = process.ask(
                {
                    "size_wh": structure.size_wh,
                    "first_scan": structure.first_scan,
                    "max_bytes": limits.max_bytes,
                    "max_pixels": limits.max_pixels,
                    "cpu_s": self._budget.cpu_s,
                    "cpu_s_per_megapixel": self._budget.cpu_s_per_megapixel,
                },
                [file],
                self._budget.wall_s(limits),
            )
        except NoAnswer as error:
            end = self._host.end_of(process) if error.ended else "too late"
            _log.warning("decoder_ended", pid=process.pid, end=end, image_bytes=len(content))
            if end == "by the machine":
                raise Unavailable("The decoder was ended: try again.", retry_after_s=1.0) from error
            if end == "crashed":
                raise ImageUndecodable("The image is damaged: send a whole, valid file.") from error
            raise _too_costly() from error
        finally:
            os.close(file)
        try:
            if (kind := _ERRORS.get(answer.get("error", ""))) is not None:
                raise (
                    _too_costly()
                    if "text" not in answer
                    else kind(answer["text"], metadata=answer["metadata"])
                )
            image = _image(answer, descriptors, limits)
        finally:
            wire.close(descriptors)
            self._put_back(process)
        return ScaledImage.whole(image)

    def close(self) -> None:
        """End the processes, those at work when they are done."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def _put_back(self, process: DecoderProcess) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(process)
                return
        process.end()

    def _take(self, limits: ImageLimits) -> DecoderProcess:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.is_there():
                    return process
                process.end()
        memory_bytes = _BASE_BYTES + _BYTES_PER_PIXEL * limits.max_pixels
        try:
            return self._host.fork({"work": "images", "memory_bytes": memory_bytes})
        except NoAnswer as error:
            raise Unavailable(
                "No decoder can be started: try again, or send a baseline JPEG.", retry_after_s=1.0
            ) from error


def _file(content: bytes) -> int:
    """A file of memory with the content."""
    file = os.memfd_create("encoded", os.MFD_CLOEXEC)
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except BaseException:
        os.close(file)
        raise
    return file


def _image(answer: wire.Message, descriptors: list[int], limits: ImageLimits) -> Rgb8:
    """The image in the file that came with an answer."""
    height, width = int(answer["height"]), int(answer["width"])
    if min(height, width) < 1 or height * width > limits.max_pixels or not descriptors:
        raise ImageUndecodable("The image is damaged: send a whole, valid file.")
    image = taken(descriptors[0], height, width)
    if image is None:
        raise ImageUndecodable("The image is damaged: send a whole, valid file.")
    return image


def _too_costly() -> ImageTooCostly:
    return ImageTooCostly(
        "Decoding the image takes more time or memory than its size warrants: save it as a baseline JPEG."
    )
