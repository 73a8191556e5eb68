"""Requests of unary calls on their way in: bounded in number and time, and shed when memory is full.

gRPC reads the request of a unary handler before anything of the gateway runs. Handlers are therefore served
as handlers of a stream of one request, which look the same on the wire and are called before it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from service.errors import DeadlineExceeded, InvalidRequest, Overloaded, PosegateError
from service.server.memory import MemoryGuard

_SOON_S = 0.25  # a request that is sent at once is here before
_RETRY_AFTER_S = 0.25


class Arrivals:
    """Requests on their way in.

    Args:
        max_requests: at once.
        max_s: a request that takes longer is refused.
        memory: refuses more while it is full.
    """

    def __init__(self, max_requests: int, max_s: float, memory: MemoryGuard) -> None:
        self._max_requests = max_requests
        self._max_s = max_s
        self._memory = memory
        self._arriving: dict[asyncio.Timeout, float] = {}
        self._shed: set[asyncio.Timeout] = set()
        memory.when_full(self._make_room)

    async def receive(self, requests: AsyncIterator[Any]) -> Any:
        """The one request of a call, or the error that refuses it, as a result like the error of a request
        that cannot be read."""
        try:
            return await self._receive(requests)
        except PosegateError as error:
            return error

    async def _receive(self, requests: AsyncIterator[Any]) -> Any:
        self._memory.check()
        if len(self._arriving) >= self._max_requests:
            raise Overloaded(
                f"As many requests are on their way as are allowed, {len(self._arriving)}: try again.",
                reason="TOO_MANY_IN_FLIGHT",
                metadata={"limit": str(self._max_requests)},
                retry_after_s=_RETRY_AFTER_S,
            )
        scope = asyncio.timeout(self._max_s)
        self._arriving[scope] = asyncio.get_running_loop().time()
        try:
            async with scope, aclosing(cast("AsyncGenerator[Any]", aiter(requests))) as messages:
                return await anext(messages)
        except StopAsyncIteration:
            raise InvalidRequest("The call has no request: send one.", reason="MESSAGE_UNREADABLE") from None
        except TimeoutError:
            if scope in self._shed:
                self._memory.check()
            raise DeadlineExceeded(
                f"The request was not here within {self._max_s:g} s: send it faster, or make it smaller.",
                reason="REQUEST_TOO_SLOW",
                metadata={"limit_seconds": f"{self._max_s:g}"},
            ) from None
        finally:
            del self._arriving[scope]
            self._shed.discard(scope)

    def _make_room(self) -> None:
        """End the requests that have been arriving for more than a moment: what is here of them is held."""
        now = asyncio.get_running_loop().time()
        for scope, since in self._arriving.items():
            if now - since > _SOON_S and scope not in self._shed and not scope.expired():
                self._shed.add(scope)
                scope.reschedule(now)
