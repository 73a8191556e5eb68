"""AccountService."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from posegate.v1 import account_service_pb2 as pb
from posegate.v1 import account_service_pb2_grpc
from service.accounts.months import month_of, reset_time
from service.accounts.quotas import Standing
from service.pipeline.limits import Limits
from service.servicers.context import Context
from service.servicers.responses.limits import effective_limits
from service.telemetry.call_context import current


class AccountServicer(account_service_pb2_grpc.AccountServiceServicer):
    """RPC methods of AccountService.

    Args:
        limits: of the service.
        standing: gives the state of a tenant's quota; None where accounts are off.
    """

    def __init__(
        self, limits: Limits, standing: Callable[[str, int | None], Awaitable[Standing]] | None
    ) -> None:
        self._limits = limits
        self._standing = standing

    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.GetAccountResponse:
        """Give tenant, plan, limits and quota of the caller."""
        call = current()
        if self._standing is None or call.plan is None:
            standing = Standing(None, None, reset_time(month_of(datetime.now(UTC))))
        else:
            standing = await self._standing(call.tenant, call.plan.calls_per_month)
        quota = pb.Quota()
        quota.reset_time.FromDatetime(standing.reset_time)
        if standing.limit is not None and standing.remaining is not None:
            quota.limit, quota.remaining = standing.limit, standing.remaining
            quota.used = standing.limit - standing.remaining
        return pb.GetAccountResponse(
            tenant=call.tenant,
            plan=call.plan.name if call.plan is not None else "",
            limits=effective_limits(self._limits, call.plan),
            quota=quota,
        )
