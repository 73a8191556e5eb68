"""How an encoded image is decoded: in the thread that needs it, or in a process that the thread waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from service.core.geometry import ScaledImage
from service.media.image import ImageLimits, LeastScale, decode_scaled

Load: TypeAlias = Callable[[LeastScale | None], ScaledImage]
"""Gives the upright image, reduced to no less than the scale that is needed; whole for None."""


@dataclass(frozen=True)
class Loading:
    """A `Load` for a worker thread.

    Attributes:
        load: the call.
        waits: it waits for another process, for longer than it works.
    """

    load: Load
    waits: bool = False

    def __call__(self, least_scale: LeastScale | None) -> ScaledImage:
        """The image; errors of decoding pass through."""
        return self.load(least_scale)


Decode: TypeAlias = Callable[[bytes, ImageLimits], Loading]
"""Encoded bytes and limits to the call that decodes them."""


def in_thread(content: bytes, limits: ImageLimits) -> Loading:
    """Decoding in the calling thread, as `image.decode_scaled`."""
    return Loading(partial(decode_scaled, content, limits))
