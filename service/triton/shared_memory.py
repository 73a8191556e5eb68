"""Slots of system shared memory that tensors are handed to Triton in."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import shared_memory

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Loan:
    """A slot that is lent.

    Attributes:
        slot: to give back.
        offsets: of each tensor in the region, bytes.
        room: offset of the room for the answer; None without one.
    """

    slot: int
    offsets: list[int]
    room: int | None


class SharedSlots:
    """Equal slots in one region of shared memory. Not thread-safe: used from the event loop only.

    A region that its process did not live to remove is removed by Python's resource tracker.

    Args:
        count: how many slots.
        slot_bytes: bytes of each.

    Raises:
        OSError: the host gives no shared memory of that size.
    """

    def __init__(self, count: int, slot_bytes: int) -> None:
        # Page-aligned slots: two requests never write to one page.
        self.slot_bytes = -(-slot_bytes // 4096) * 4096
        self.name = f"posegate-{os.getpid()}-{secrets.token_hex(4)}"
        self._region = shared_memory.SharedMemory(self.name, create=True, size=count * self.slot_bytes)
        # Last in, first out: a quiet service touches few pages.
        self._free = [index * self.slot_bytes for index in reversed(range(count))]
        self._open = True
        try:
            self._reserve()
        except OSError:
            self.close()
            raise

    def _reserve(self) -> None:
        """Take the memory now: without this a full /dev/shm (64 MB in a plain container) is noticed only
        when a page is first written, and then as SIGBUS, which ends the process."""
        file = os.open(f"/dev/shm{self.key}", os.O_RDWR)  # noqa: S108 - made just now, with a random name
        try:
            os.posix_fallocate(file, 0, self.size)
        finally:
            os.close(file)

    @property
    def is_closed(self) -> bool:
        """Whether the region was removed."""
        return not self._open

    @property
    def key(self) -> str:
        """The region's name as shm_open wants it."""
        return f"/{self.name}"

    @property
    def size(self) -> int:
        """Bytes of the whole region."""
        return self._region.size

    def lend(self, tensors: Sequence[NDArray[np.generic]], *, room: int = 0) -> Loan | None:
        """Copy tensors into a free slot, one after the other.

        Args:
            tensors: to be copied.
            room: bytes behind them that an answer may be written to; left out where the slot is too small.

        Returns:
            The loan; None when no slot is free or the tensors do not fit in one.
        """
        starts, end = [], 0
        for tensor in tensors:
            starts.append(end)
            end += -(-tensor.nbytes // 64) * 64
        if end > self.slot_bytes or not self._free:
            return None
        slot = self._free.pop()
        offsets = [slot + start for start in starts]
        for tensor, offset in zip(tensors, offsets, strict=True):
            view: NDArray[np.generic] = np.ndarray(
                tensor.shape, tensor.dtype, buffer=self._region.buf, offset=offset
            )
            view[...] = tensor
        return Loan(slot, offsets, slot + end if room and end + room <= self.slot_bytes else None)

    def read(self, offset: int, shape: Sequence[int], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
        """A copy of a tensor that was written to the region."""
        view: NDArray[np.generic] = np.ndarray(shape, dtype, buffer=self._region.buf, offset=offset)
        return view.copy()

    def give_back(self, slot: int) -> None:
        """The slot may be written again: Triton has read it."""
        if self._open:
            self._free.append(slot)

    def close(self) -> None:
        """Remove the region; done once more, it does nothing."""
        self._open = False
        self._free.clear()
        self._region.close()
        try:
            self._region.unlink()
        except FileNotFoundError:
            return
