"""The account that a call belongs to."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from service.accounts.plans import Plan


@dataclass(frozen=True, slots=True)
class Account:
    """Who calls.

    Attributes:
        tenant: its name.
        plan_name: of its plan; empty where accounts are off.
        plan: what it may use; None where accounts are off: no limits but the service's own.
        key_id: public part of the key; empty where accounts are off.
    """

    tenant: str
    plan_name: str = ""
    plan: Plan | None = None
    key_id: str = ""


ANYONE = Account("default")
"""The one account that there is where accounts are off."""

_current: ContextVar[Account] = ContextVar("account", default=ANYONE)


def enter(account: Account) -> None:
    """Make it the one that `current_account()` finds, in this task and in those that it starts."""
    _current.set(account)


def current_account() -> Account:
    """The account of the call at hand."""
    return _current.get()
