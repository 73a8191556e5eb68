"""Stream limiter: bounds concurrent videos and streams and the memory they hold; ends them when the service
stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import Overloaded, Unavailable
from service.telemetry.call_context import current

_ARRIVING = 4  # calls that have not sent their config yet, for each place


class StreamLimiter:
    """Admits streams up to a limit.

    Args:
        at_once: streams that run concurrently; more are refused.
        max_bytes: memory that all of them may hold together; one alone may hold any amount.
        check_memory: raises Overloaded while there is no memory for another one.

    Attributes:
        ending: streams that still run have to stop now.
        running: number of streams at work.
    """

    def __init__(self, at_once: int, max_bytes: int, check_memory: Callable[[], None] = lambda: None) -> None:
        self._check_memory = check_memory
        self._at_once = at_once
        self._max_bytes = max_bytes
        self._held = 0
        self._arriving = 0
        self._draining = False
        self.ending = False
        self.running = 0

    @property
    def is_full(self) -> bool:
        """Whether the next stream would be refused."""
        return self.running >= self._at_once

    def drain(self) -> None:
        """Admit no further stream."""
        self._draining = True

    def end(self) -> None:
        """Make the streams that still run stop."""
        self.drain()
        self.ending = True

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Count a call that has not sent its config yet. It holds no place, but the number of such calls is
        limited too.

        Raises:
            Overloaded: there are as many as are allowed.
        """
        if self._arriving >= _ARRIVING * self._at_once:
            raise self._too_many(self._arriving)
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold a place for a stream for the time of the block.

        Raises:
            Overloaded: there are as many as are allowed, or no memory is left.
            Unavailable: the service is stopping.
        """
        if self._draining:
            raise self.stopping()
        if self.running >= self._at_once:
            raise self._too_many(self.running)
        self._check_memory()
        self.running += 1
        current().observer.admitted()
        try:
            yield
        finally:
            self.running -= 1

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Reserve memory for the time of the block.

        Raises:
            Overloaded: with it all streams would hold more than is allowed.
        """
        if self._held and self._held + size > self._max_bytes:
            raise Overloaded(
                f"The videos at work hold as much memory as is allowed, and this one needs {size} bytes: try "
                "again, or send it smaller.",
                reason="TOO_MUCH_VIDEO_MEMORY",
                metadata={"limit_bytes": str(self._max_bytes), "actual_bytes": str(self._held + size)},
                retry_after_s=5.0,
            )
        self._held += size
        try:
            yield
        finally:
            self._held -= size

    def _too_many(self, count: int) -> Overloaded:
        return Overloaded(
            f"As many videos and streams are at work as are allowed, {count}: try again.",
            reason="TOO_MANY_STREAMS",
            metadata={"limit": str(self._at_once)},
            retry_after_s=2.0,
        )

    @staticmethod
    def stopping() -> Unavailable:
        """The error of a stream that ends because the service stops."""
        return Unavailable(
            "The service is stopping: send it again, to another instance.",
            reason="DRAINING",
            retry_after_s=1.0,
        )
