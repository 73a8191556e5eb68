"""AccountService."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from posegate.v1 import account_service_pb2 as pb
from posegate.v1 import account_service_pb2_grpc
from posegate.v1.pose_service_pb2 import Limits
from service.accounts.account import Account
from service.accounts.months import month_of, reset_time
from service.accounts.quotas import Standing
from service.servicers.responses.limits import for_account
from service.servicers.tenant import Context, account_of


class AccountServicer(account_service_pb2_grpc.AccountServiceServicer):
    """Tells callers of their account.

    Args:
        limits: gives the service's own limits.
        standing: of an account's quota; None where accounts are off.
    """

    def __init__(
        self, limits: Callable[[], Limits], standing: Callable[[Account], Awaitable[Standing]] | None
    ) -> None:
        self._limits = limits
        self._standing = standing

    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.GetAccountResponse:
        """Tenant, plan, limits and quota."""
        account = account_of(context)
        if self._standing is None:
            standing = Standing(None, None, reset_time(month_of(datetime.now(UTC))))
        else:
            standing = await self._standing(account)
        quota = pb.Quota()
        quota.reset_time.FromDatetime(standing.reset_time)
        if standing.limit is not None and standing.remaining is not None:
            quota.limit, quota.remaining = standing.limit, standing.remaining
            quota.used = standing.limit - standing.remaining
        return pb.GetAccountResponse(
            tenant=account.tenant,
            plan=account.plan_name,
            limits=for_account(self._limits(), account),
            quota=quota,
        )
