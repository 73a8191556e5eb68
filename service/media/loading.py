"""How an encoded image is decoded: in the thread that needs it, or in a process that the thread waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from service.core.geometry import ScaledImage
from service.errors import InvalidRequest
from service.media.cost import is_large
from service.media.image import ImageLimits, LeastScale, decode_scaled, examine

Load: TypeAlias = Callable[[LeastScale | None], ScaledImage]
"""Gives the upright image, reduced to no less than the scale that is needed; whole for None."""


@dataclass(frozen=True)
class Loading:
    """A `Load` for a worker thread.

    Attributes:
        load: the call.
        waits: it waits for another process, for longer than it works.
        large: it will take long.
    """

    load: Load
    waits: bool = False
    large: bool = False

    def __call__(self, least_scale: LeastScale | None) -> ScaledImage:
        """The image; errors of decoding pass through."""
        return self.load(least_scale)


Decode: TypeAlias = Callable[[bytes, ImageLimits], Loading]
"""Encoded bytes and limits to the call that decodes them."""


def in_thread(content: bytes, limits: ImageLimits) -> Loading:
    """Decoding in the calling thread, as `image.decode_scaled`."""
    try:
        structure = examine(content, limits)
    except InvalidRequest as error:
        return refused(error)
    load = partial(decode_scaled, content, limits, structure=structure)
    return Loading(load, large=is_large(content, structure))


def refused(error: Exception) -> Loading:
    """A load that raises an error, once: an error that this kept would keep the frames it came through, and
    these the image."""
    held = [error]

    def load(_: LeastScale | None) -> ScaledImage:
        raise held.pop()

    return Loading(load)
