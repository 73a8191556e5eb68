"""The use case: a call with an API key to an account that may make it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import structlog

from service.accounts.keyring import Keyring
from service.accounts.keys import ApiKey, parse_key
from service.accounts.peers import WrongKeys
from service.accounts.places import Places
from service.accounts.quotas import Charge, Quotas
from service.accounts.rates import Pace, TokenBuckets
from service.accounts.usage import UsageRecorder
from service.core.plan import Plan
from service.errors import NotFound, RateLimited, Unauthenticated, Unavailable, counted
from service.store.tenants import KeyState

_log = structlog.get_logger()

_INVALID = "The API key is not valid: check it, or ask for a new one."
_DELAY_S = 0.05  # of a refusal after many, at least
_REFUSALS_A_SECOND = 100.0  # of those: each takes half a millisecond from the calls that are answered
_DELAYED = 1000  # such refusals at once; more wait for _DELAY_S only, as memory has an end
_SWEEP_S = 10.0
_LOGGED_WRONG = 20  # wrong keys that are logged between two sweeps; the rest is counted


@dataclass(frozen=True, slots=True)
class Account:
    """Who calls.

    Attributes:
        tenant: its name.
        plan: what it may use.
        key_id: public part of its key.
    """

    tenant: str
    plan: Plan
    key_id: str


def key_ended() -> Unauthenticated:
    """What a caller reads whose key is not accepted, for whatever reason."""
    return Unauthenticated(_INVALID)


class AccountGate:
    """Accepts calls by key, and holds them to their plan.

    Args:
        keyring: the live keys.
        plans: by name.
        quotas: spends monthly quotas.
        usage: counts for invoices.
        write_s: seconds between two writes of usage.
    """

    def __init__(
        self,
        keyring: Keyring,
        plans: Mapping[str, Plan],
        quotas: Quotas,
        usage: UsageRecorder,
        *,
        write_s: float,
    ) -> None:
        self._keyring = keyring
        self.plans = plans
        self._quotas = quotas
        self._write_s = write_s
        self._rates = TokenBuckets()
        self._places = Places()
        self._wrong_keys = WrongKeys()
        self._refusals = Pace(_REFUSALS_A_SECOND, _DELAYED)
        self._wrong = 0
        self.usage = usage

    async def run(self) -> None:
        """Keep up with the database, and give back what is idle, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keyring.run())
            group.create_task(self._sweep())
            group.create_task(self._write_usage())

    async def close(self) -> None:
        """Give units back and write usage: no call is at work any more."""
        await self._quotas.close()
        await self._write_once()

    async def authenticate(self, presented: str | None, peer: str) -> Account:
        """The account that a key belongs to.

        Args:
            presented: what the caller sent as a key; None where it sent none.
            peer: its address, as gRPC has it.

        Raises:
            Unauthenticated: there is no key, or not a valid one.
            Overloaded: the key is not known, and too many others are being looked up.
            Unavailable: the key is not known, and the database is away; or the plan is not known.
        """
        if not presented:
            raise Unauthenticated(
                "An API key is needed: send it as 'authorization: Bearer KEY' or 'x-api-key: KEY'.",
                reason="API_KEY_MISSING",
            )
        state = self._keyring.find(presented) or await self._find_new(presented, peer)
        self.usage.used(state.key_id)
        return self._account(state)

    def knows(self, presented: str | None) -> bool:
        """Whether a key would be accepted without a question to the database."""
        return presented is not None and self._keyring.find(presented) is not None

    def is_live(self, key_id: str) -> bool:
        """Whether a key that was accepted would be accepted now; it costs no query."""
        return self._keyring.is_live(key_id)

    def admitted(self, account: Account, *, streaming: bool) -> AbstractContextManager[None]:
        """A place for a call of the account, until the end of the block. Only a call that has one counts
        towards the rate.

        Raises:
            RateLimited: the plan allows no more a second, or at once.
            PlanDoesNotAllow: the plan allows none.
        """
        plan = account.plan
        place = self._places.taken(account.tenant, plan, streaming=streaming)
        if plan.calls_per_second is not None:
            wait_s = self._rates.take(account.tenant, per_second=plan.calls_per_second, burst=plan.burst)
            if wait_s:
                with place:  # it is free again
                    raise RateLimited(
                        f"The plan '{plan.name}' allows {counted(plan.calls_per_second, 'call', 'calls')} "
                        f"a second after a first {plan.burst}: try again in {wait_s:.3f} s.",
                        metadata={
                            "plan": plan.name,
                            "limit": f"{plan.calls_per_second:g}",
                            "limit_name": "calls_per_second",
                            "burst": str(plan.burst),
                        },
                        retry_after_s=wait_s,
                    )
        return place

    async def reserve(self, account: Account, *, pictures: int | None = None) -> Charge:
        """Units of the monthly quota for one call.

        Args:
            account: of the caller.
            pictures: in a batch; None for any other call.

        Raises:
            MonthlyQuotaExceeded: too few are left.
            Unauthenticated: the tenant was deleted.
            Unavailable: none are held here, and the database is away.
        """
        plan = account.plan
        by_picture = pictures is not None and plan.batch_counts == "picture"
        units = max(1, pictures or 1) if by_picture else 1
        try:
            return await self._quotas.reserve(account.tenant, plan.calls_per_month, units)
        except NotFound as error:  # deleted since the keys were refreshed
            raise key_ended() from error

    def _account(self, state: KeyState) -> Account:
        plan = self.plans.get(state.plan)
        if plan is None:
            _log.error("plan_unknown", tenant=state.tenant, plan=state.plan)
            raise Unavailable(
                "The plan of this account is not known to the service: its operator has to set another one.",
                reason="PLAN_UNKNOWN",
                metadata={"plan": state.plan},
                retry_after_s=2.0,
            )
        return Account(state.tenant, plan, state.key_id)

    async def _find_new(self, presented: str, peer: str) -> KeyState:
        """The key where it was made since the database was asked last; else it is refused."""
        slowly = self._wrong_keys.too_many(peer)
        key = parse_key(presented)
        if key is not None:  # also from an address that sends wrong keys: it may be a proxy's
            state = await self._keyring.find_new(key)
            if state is not None:
                return state
        raise await self._refusal(key, peer, slowly=slowly)

    async def _refusal(self, key: ApiKey | None, peer: str, *, slowly: bool) -> Unauthenticated:
        self._wrong += 1
        self._wrong_keys.add(peer)
        if self._wrong <= _LOGGED_WRONG:
            why = "malformed" if key is None else self._keyring.why_not(key)
            _log.info("key_refused", key_id="" if key is None else key.key_id, why=why)
        if slowly:
            await asyncio.sleep(self._refusals.wait_s(_DELAY_S))
        if key is None:
            return Unauthenticated(
                "The API key is mistyped or cut off: it begins with pg_ and has 45 characters."
            )
        return key_ended()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._rates.forget_full()
            if self._wrong > _LOGGED_WRONG:
                _log.warning("keys_refused", count=self._wrong)
            self._wrong = 0
            try:
                await self._quotas.give_back_idle()
            except Exception as error:  # the loop goes on: the units stay here until the next round
                _log.error("lease_not_given_back", why=repr(error))

    async def _write_usage(self) -> None:
        while True:
            await asyncio.sleep(self._write_s)
            await self._write_once()

    async def _write_once(self) -> None:
        try:
            await self.usage.write()
        except Exception as error:  # the batch stays in memory, and is written again
            _log.error("usage_not_written", why=repr(error))
