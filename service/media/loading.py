"""How an encoded image is decoded: in the thread that needs it, or in a process that the thread waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from service.core.geometry import Rgb8
from service.media.image import ImageLimits, decode


@dataclass(frozen=True)
class Loading:
    """A call that gives an upright RGB image (H, W, 3); for a worker thread.

    Attributes:
        load: the call.
        waits: it waits for another process, for longer than it works.
    """

    load: Callable[[], Rgb8]
    waits: bool = False

    def __call__(self) -> Rgb8:
        """The image; errors of decoding pass through."""
        return self.load()


Decode: TypeAlias = Callable[[bytes, ImageLimits], Loading]
"""Encoded bytes and limits to the call that decodes them."""


def in_thread(content: bytes, limits: ImageLimits) -> Loading:
    """Decoding in the calling thread, as `image.decode`."""
    return Loading(partial(decode, content, limits))
