"""Images on their way from a decoder process to the gateway, in a file of memory."""

from __future__ import annotations

import os

import numpy as np

from service.core.geometry import Rgb8

_KEPT_BYTES = 64 << 20  # of the file: new pages for every image would cost as much as the copy


class Handover:
    """The file of one decoder process, used for one image after the other."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._size = 0

    def put(self, image: Rgb8) -> int:
        """Write an image; the file, which stays open until the next one."""
        if self._file is not None and self._size > _KEPT_BYTES:
            os.close(self._file)
            self._file, self._size = None, 0
        if self._file is None:
            self._file = os.memfd_create("image", os.MFD_CLOEXEC)
        rest = np.ascontiguousarray(image).data.cast("B")
        while rest:
            rest = rest[os.pwrite(self._file, rest, image.nbytes - len(rest)) :]
        self._size = max(self._size, image.nbytes)
        return self._file


def taken(file: int, height: int, width: int) -> Rgb8 | None:
    """A copy of the image in a file; None where the file is too short. The process could still change
    the file, or cut it short, which would end a gateway that had it mapped."""
    image = np.empty((height, width, 3), np.uint8)
    rest = image.data.cast("B")
    while rest:
        count = os.preadv(file, [rest], image.nbytes - len(rest))
        if not count:
            return None
        rest = rest[count:]
    return image
