"""A video on its way in: a file without a name that grows while it is read."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import Overloaded, PosegateError, VideoTooLarge


class SpoolSpace:
    """Where spools lie, and how many bytes all of them may have together. For any thread.

    Args:
        folder: where the files lie; None for the system's place for temporary files.
        max_bytes: of all of them; None for as many as the disk holds.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int | None = None) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Take room for so many bytes, or raise Overloaded."""
        with self._lock:
            if self._max_bytes is not None and self._taken + count > self._max_bytes:
                raise _no_room()
            self._taken += count

    def give_back(self, count: int) -> None:
        """Give room back."""
        with self._lock:
            self._taken -= count


class Spool:
    """Bytes are appended by one thread and read by another, which waits for those to come.

    The file is unlinked from the start: nothing stays behind, however the process ends.

    Args:
        space: where the file lies, and the room for it.
        max_bytes: more is refused.

    Raises:
        Overloaded: there is no room for a file.
    """

    def __init__(self, space: SpoolSpace, max_bytes: int) -> None:
        try:
            self._file = tempfile.TemporaryFile(dir=space.folder, buffering=0)  # noqa: SIM115 - closed in close()
        except OSError as error:
            raise _no_room() from error
        self._space = space
        self._taken = 0
        self._max_bytes = max_bytes
        self._grown = threading.Condition()
        self._size = 0
        self._complete = False
        self._failure: PosegateError | None = None
        self._closed = False
        self._users = 0  # threads that read or write just now

    @property
    def size(self) -> int:
        """Bytes received."""
        return self._size

    @property
    def complete(self) -> bool:
        """Whether all bytes are here."""
        return self._complete

    @property
    def closed(self) -> bool:
        """Whether it was given up."""
        return self._closed

    def append(self, chunk: bytes) -> None:
        """Write the next bytes.

        Raises:
            VideoTooLarge: more than are allowed.
            Overloaded: the disk is full, or the other spools have taken all the room there is.
            SpoolClosed: it was given up.
        """
        size = self._size + len(chunk)
        if size > self._max_bytes:
            raise VideoTooLarge(
                f"The video has more than {self._max_bytes} bytes, as many as are accepted: shorten it or "
                "encode it smaller.",
                metadata={"limit_bytes": str(self._max_bytes), "actual_bytes": str(size)},
            )
        with self._grown:  # what is taken after `close` would never be given back
            if self._closed:
                raise SpoolClosed
            self._space.take(len(chunk))
            self._taken += len(chunk)
        rest = memoryview(chunk)
        try:
            with self._descriptor() as descriptor:
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise _no_room() from error
            raise
        with self._grown:
            self._size = size
            self._grown.notify_all()

    def finish(self) -> None:
        """No more bytes will come."""
        with self._grown:
            self._complete = True
            self._grown.notify_all()

    def fail(self, error: PosegateError) -> None:
        """The upload failed: readers that wait for bytes get this error."""
        with self._grown:
            self._failure = self._failure or error
            self._grown.notify_all()

    def close(self) -> None:
        """Give the file up, and wake up the readers that wait for its bytes; idempotent."""
        with self._grown:
            self._closed = True
            self._failure = None  # an error that was raised knows frames that know the spool
            self._free()
            self._grown.notify_all()

    def wait(self, size: int | None) -> int:
        """Wait until there are so many bytes (None: all), or the end; how many there are.

        Raises:
            SpoolClosed: it was given up.
            PosegateError: the upload failed, with its error.
        """
        with self._grown:
            while not (
                self._closed or self._failure or self._complete or (size is not None and self._size >= size)
            ):
                self._grown.wait()
            if self._closed:
                raise SpoolClosed
            if self._failure is not None:
                raise self._failure
            return self._size

    def read_all(self, count: int, position: int) -> bytes:
        """`count` bytes at a position, fewer only at the end. Raises what `wait` raises."""
        self.wait(position + count)
        return self.read_some(count, position)

    def read_some(self, count: int, position: int) -> bytes:
        """Up to `count` bytes at a position, once one is there; b"" at the end. Raises what `wait` raises."""
        self.wait(position + 1)
        with self._descriptor() as descriptor:
            return os.pread(descriptor, count, position)

    def duplicate(self) -> int:
        """Another descriptor of the file, for a process that reads it; to be closed by the caller."""
        with self._descriptor() as descriptor:
            return os.dup(descriptor)

    @contextmanager
    def _descriptor(self) -> Iterator[int]:
        """The file, which stays open for the time of the block: a closed descriptor's number may be that of
        another file a moment later."""
        with self._grown:
            if self._closed:
                raise SpoolClosed
            self._users += 1
        try:
            yield self._file.fileno()
        finally:
            with self._grown:
                self._users -= 1
                self._free()

    def _free(self) -> None:
        if self._closed and not self._users and not self._file.closed:
            self._file.close()
            self._space.give_back(self._taken)


class SpoolClosed(Exception):
    """The spool was given up while it was read."""


class SpoolReader:
    """A spool as a file to read: what PyAV asks of one.

    Args:
        spool: what is read.
        seekable: False makes readers go from front to back, as from a pipe.

    Attributes:
        position: of the next byte.
        failure: what reading failed with; FFmpeg turns any failure into its own.
    """

    def __init__(self, spool: Spool, *, seekable: bool) -> None:
        self._spool = spool
        self._seekable = seekable
        self.position = 0
        self.failure: Exception | None = None

    def read(self, count: int) -> bytes:
        """The next bytes; waits for the first of them."""
        try:
            content = self._spool.read_some(count, self.position)
        except Exception as error:
            self.failure = error
            raise
        self.position += len(content)
        return content

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """Whether `seek` may be called."""
        return self._seekable

    def tell(self) -> int:
        """Position of the next byte."""
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; from the end only once all bytes are here."""
        if whence == os.SEEK_CUR:
            offset += self.position
        elif whence == os.SEEK_END:
            offset += self._spool.wait(None)
        if offset < 0:
            raise OSError(errno.EINVAL, "before the start")
        self.position = offset
        return offset


def _no_room() -> Overloaded:
    return Overloaded(
        "There is no room to receive the video now: try again.",
        reason="SPOOL_FULL",
        retry_after_s=30.0,
    )
