"""How many videos and live streams are at work, and their end when the service stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Overloaded, Unavailable
from service.observer import current


class Streams:
    """Counts streams in and out.

    Args:
        at_once: more are refused.

    Attributes:
        ending: whoever still runs has to stop now.
        running: how many there are.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._draining = False
        self.ending = False
        self.running = 0

    def drain(self) -> None:
        """Let nobody in any more."""
        self._draining = True

    def end(self) -> None:
        """Make those who still run stop."""
        self.drain()
        self.ending = True

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a stream in for the time of the block.

        Raises:
            Overloaded: there are as many as are allowed.
            Unavailable: the service is stopping.
        """
        if self._draining:
            raise self.stopping()
        if self.running >= self._at_once:
            raise Overloaded(
                f"{self.running} videos and streams are at work, as many as are allowed: try again.",
                reason="TOO_MANY_STREAMS",
                metadata={"limit": str(self._at_once)},
                retry_after_s=2.0,
            )
        self.running += 1
        current().observer.admitted()
        try:
            yield
        finally:
            self.running -= 1

    @staticmethod
    def stopping() -> Unavailable:
        """What a stream ends with that has to stop."""
        return Unavailable(
            "The service is stopping: send it again, to another instance.",
            reason="DRAINING",
            retry_after_s=1.0,
        )
