"""Open streams and the keys that they were begun with: a stream ends soon after its key does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from service.errors import PosegateError

T = TypeVar("T")

_LOOK_S = 0.25  # seconds between two looks at the keys of open streams; they cost no query


class OpenStreams:
    """Ends streams whose key is revoked, expired or deleted with its tenant.

    Args:
        is_live: whether the key of an id is still accepted; it must not wait for anything.
        error: what a stream ends with.
    """

    def __init__(self, is_live: Callable[[str], bool], error: Callable[[], PosegateError]) -> None:
        self._is_live = is_live
        self._error = error
        self._streams: set[_Stream] = set()

    def __len__(self) -> int:
        return len(self._streams)

    async def run(self) -> None:
        """Look at the keys of all open streams again and again until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for stream in tuple(self._streams):
                if not self._is_live(stream.key_id):
                    stream.end()

    async def watched(self, key_id: str, answers: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Pass the answers of a stream on for as long as its key is live.

        Args:
            key_id: of the key that it was begun with.
            answers: of the stream; the caller closes them.

        Raises:
            PosegateError: the key is no longer live. Answers that were passed on before stay valid.
        """
        stream = _Stream(key_id)
        self._streams.add(stream)
        try:
            while not stream.ended:
                try:
                    async with asyncio.timeout(None) as stream.waiting:
                        answer = await anext(answers)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if not stream.ended:
                        raise
                    break
                finally:
                    stream.waiting = None
                yield answer
            raise self._error()
        finally:
            self._streams.discard(stream)


class _Stream:
    """One open stream.

    Attributes:
        key_id: of its key.
        ended: its key has ended.
        waiting: for the next answer; None while an answer is being sent, which must not be broken off.
    """

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.ended = False
        self.waiting: asyncio.Timeout | None = None

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            if self.waiting is not None:
                self.waiting.reschedule(asyncio.get_running_loop().time())
