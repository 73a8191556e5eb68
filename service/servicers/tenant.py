"""Whose call it is, and what its plan allows."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

from service.accounts.account import Account, current_account
from service.errors import PlanDoesNotAllow

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic in its stubs only


def account_of(context: Context) -> Account:
    """The account that calls."""
    return current_account()


def tenant_of(context: Context) -> str:
    """The tenant who calls; the same one for all where there are no accounts."""
    return current_account().tenant


def allow(account: Account, limit_name: str, limit: float | None, actual: float) -> None:
    """Hold what was asked for against one limit of the plan.

    Args:
        account: who asks.
        limit_name: as in the file of plans.
        limit: None for no limit.
        actual: what was asked for.

    Raises:
        PlanDoesNotAllow: it is more.
    """
    if limit is not None and actual > limit:
        raise PlanDoesNotAllow.of(account.plan_name, limit_name, limit=limit, actual=actual)
