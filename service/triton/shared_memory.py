"""Slots of system shared memory that tensors are handed to Triton in."""

from __future__ import annotations

import math
import mmap
import os
import secrets
from collections.abc import Sequence
from concurrent.futures import Future
from multiprocessing import shared_memory
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Loan:
    """A slot of shared memory that is lent, or none; one thread or task uses it at a time.

    Its arrays stay valid memory after the loan, and after the region was removed; what stands in them does
    not.

    Attributes:
        rests: Triton may still use the slot after the loan: it is not to be lent again soon.
        at_work: work in threads that may still use it: it is not to be lent before they have ended.
    """

    def __init__(self, slots: SharedSlots | None = None, slot: int | None = None) -> None:
        self.slots = slots
        self.slot = slot
        self.rests = False
        self.at_work: list[Future[Any]] = []
        self._used = 0

    def array(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any] | None:
        """Uninitialised memory of the slot as an array; None where the slot has no such room."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if self.slots is None or self.slot is None or self._used + size > self.slots.slot_bytes:
            return None
        offset = self.slot + self._used
        self._used += -(-size // 64) * 64
        return self.slots.view(offset, shape, kind)

    def holds(self, tensor: NDArray[Any]) -> bool:
        """Whether an array lies in the region of this loan."""
        return self.slots is not None and self.slots.offset(tensor) is not None

    def placed(self, tensor: NDArray[Any]) -> NDArray[Any] | None:
        """The tensor itself where it is an array of this loan, else a copy of it in the slot; None where the
        slot has no room for that."""
        if self.holds(tensor) and tensor.flags.c_contiguous:
            return tensor
        copy = self.array(tensor.shape, tensor.dtype)
        if copy is not None:
            copy[...] = tensor
        return copy


class SharedSlots:
    """Equal slots in one region of shared memory. Not thread-safe: used from the event loop only.

    A region that its process did not live to remove is removed by Python's resource tracker.

    Args:
        count: how many slots.
        slot_bytes: bytes of each.

    Attributes:
        name: of the region, unique.
        size: bytes of the whole region.

    Raises:
        OSError: the host gives no shared memory of that size.
    """

    def __init__(self, count: int, slot_bytes: int) -> None:
        # Page-aligned slots: two requests never write to one page.
        self.slot_bytes = -(-slot_bytes // 4096) * 4096
        self.name = f"posegate-{os.getpid()}-{secrets.token_hex(4)}"
        self._region = shared_memory.SharedMemory(self.name, create=True, size=count * self.slot_bytes)
        self.size = self._region.size
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
            # A mapping of its own, which lives as long as the last array on it.
            self._memory = mmap.mmap(file, self.size)
        finally:
            os.close(file)
        self._address = int(np.frombuffer(self._memory, np.uint8).__array_interface__["data"][0])

    @property
    def key(self) -> str:
        """The region's name as shm_open wants it."""
        return f"/{self.name}"

    @property
    def has_free(self) -> bool:
        """Whether a slot can be lent."""
        return bool(self._free)

    def lend(self) -> Loan:
        """A free slot; none while all are lent."""
        return Loan(self, self._free.pop()) if self._free else Loan()

    def view(self, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array on the region, from an offset in bytes."""
        return np.ndarray(shape, dtype, buffer=self._memory, offset=offset)

    def offset(self, tensor: NDArray[Any]) -> int | None:
        """Where an array lies in the region, bytes; None for one that does not."""
        offset = int(tensor.__array_interface__["data"][0]) - self._address
        return offset if 0 <= offset < self.size else None

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
