"""Every live key, in memory: a call with a key costs no query, and a wrong key costs as much as the others.

What changed is asked for every few seconds. A key that does not fit what is in memory may be a new one: it
waits for the next question, which all such keys share and which is asked a few times a second at most.
Whether its id exists makes no difference to that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from service.accounts.keys import ApiKey, id_in, matches
from service.errors import Overloaded, Unavailable
from service.store.tenants import KeyChanges, KeyState

_log = structlog.get_logger()

_LEAST_GAP_S = 0.2
_WAITING = 1000  # keys that wait for a question at once; more are sent away to try again
_BUSY_S = 1.0  # until then


class KeySource(Protocol):
    """Where keys are kept; see `service.store.tenants.TenantStore`."""

    async def changes(self, since: int | None) -> KeyChanges | None:
        """What changed since a revision; None where nothing did."""


class Keyring:
    """Live keys by id.

    Args:
        source: where they are kept.
        refresh_s: seconds between two questions for what changed.
        now: seconds of Unix time.
    """

    def __init__(self, source: KeySource, *, refresh_s: float, now: Callable[[], float] = time.time) -> None:
        self._source = source
        self._refresh_s = refresh_s
        self._now = now
        self._keys: dict[str, KeyState] = {}
        self._names: dict[str, str] = {}  # one string for each name and plan, however many keys have it
        self._revision: int | None = None
        self._asked_at = -_LEAST_GAP_S
        self._next: asyncio.Task[None] | None = None
        self._asking = asyncio.Lock()
        self._waiting = 0

    async def run(self) -> None:
        """Keep up with the database until cancelled; it may be away for any time."""
        while True:
            try:
                await self._ask()
            except Unavailable as error:
                _log.warning("keys_not_refreshed", why=error.reason)
            except Exception as error:  # a loop that ended would keep revoked keys valid
                _log.error("keys_not_refreshed", why=repr(error))
            await asyncio.sleep(self._refresh_s)

    def find(self, text: str) -> KeyState | None:
        """The live key that a text is, as far as is known; the text may be anything."""
        state = self._keys.get(id_in(text))
        if not matches(text, None if state is None else state.digest) or state is None:
            return None
        return None if self._expired(state) else state

    def is_live(self, key_id: str) -> bool:
        """Whether there is a live key of that id, as far as is known."""
        state = self._keys.get(key_id)
        return state is not None and not self._expired(state)

    async def find_new(self, key: ApiKey) -> KeyState | None:
        """The live key that this one is, after the database was asked.

        Raises:
            Overloaded: too many keys wait for the database. Whether this one is good is not known.
            Unavailable: the database is away.
        """
        if self._waiting >= _WAITING:
            raise Overloaded(
                "Too many unknown API keys are being looked up at once: try again.", retry_after_s=_BUSY_S
            )
        self._waiting += 1
        try:
            if self._next is None:
                self._next = asyncio.create_task(self._soon())
                self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.shield(self._next)
        finally:
            self._waiting -= 1
        return self.find(key.text)

    def why_not(self, key: ApiKey) -> str:
        """Why a key is not accepted: for the log, not for the caller."""
        state = self._keys.get(key.key_id)
        if state is None:
            return "unknown or revoked"
        return "expired" if matches(key.text, state.digest) else "wrong secret"

    def __len__(self) -> int:
        return len(self._keys)

    def _expired(self, state: KeyState) -> bool:
        return state.expires is not None and state.expires <= self._now()

    async def _soon(self) -> None:
        await asyncio.sleep(max(0.0, self._asked_at + _LEAST_GAP_S - time.monotonic()))
        self._next = None  # later callers may know of changes that this query does not see
        await self._ask()

    async def _ask(self) -> None:
        async with self._asking:
            self._asked_at = time.monotonic()
            changes = await self._source.changes(self._revision)
            if changes is None:
                return
            if changes.complete:
                self._keys.clear()
                self._names.clear()
            for state in changes.keys:
                if state.revoked:
                    self._keys.pop(state.key_id, None)
                else:
                    self._keys[state.key_id] = self._compact(state)
            self._revision = changes.revision

    def _compact(self, state: KeyState) -> KeyState:
        tenant = self._names.setdefault(state.tenant, state.tenant)
        plan = self._names.setdefault(state.plan, state.plan)
        return KeyState(state.key_id, tenant, plan, state.digest, state.expires, state.revoked)
