"""Size of an answer while it is being made: one that will not fit into a message is given up at once."""

from __future__ import annotations

from service.errors import AnswerTooLarge


class AnswerSize:
    """Adds up the parts of one answer. Used by one task or thread at a time.

    Args:
        limit: bytes of a message.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0

    def add(self, size: int) -> None:
        """Count a part of so many bytes.

        Raises:
            AnswerTooLarge: the parts have more bytes than fit into a message.
        """
        self._bytes += size
        if self._bytes > self._limit:
            raise AnswerTooLarge(
                f"The answer has {self._bytes} bytes or more, at most {self._limit} fit into a message: ask "
                "for less at once, or for JPEG overlays.",
                metadata={"limit_bytes": str(self._limit), "actual_bytes": str(self._bytes)},
            )
