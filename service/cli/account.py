"""`posegate account`: what the caller's API key may do, and what is left of the month."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC
from typing import Any

import typer

from posegate.v1 import account_service_pb2 as ab
from posegate.v1.account_service_pb2_grpc import AccountServiceStub
from service.cli.accounts import AsJson
from service.cli.connection import GatewayCommand, Target, gateway_of
from service.cli.info import limits_of, print_rows
from service.message_fields import plain_fields

app = typer.Typer(add_completion=False)

_TIMEOUT_S = 10.0


@app.command(cls=GatewayCommand)
def command(context: typer.Context, as_json: AsJson = False) -> None:
    """Print what your API key may do, and what is left of the month."""
    asyncio.run(show(gateway_of(context), as_json=as_json))


async def show(gateway: Target, *, as_json: bool = False) -> None:
    """Print what GetAccount says.

    Raises:
        grpc.aio.AioRpcError: the call failed.
    """
    async with gateway.connect() as channel:
        account = await AccountServiceStub(channel).GetAccount(ab.GetAccountRequest(), timeout=_TIMEOUT_S)
    if as_json:
        print(json.dumps(_document(account)))
        return
    quota = account.quota
    month = {
        "calls of the month, in total": f"{quota.limit:,}" if quota.HasField("limit") else "unlimited",
        "calls of the month, left": f"{quota.remaining:,}" if quota.HasField("remaining") else "unlimited",
    }
    if quota.HasField("used"):
        month["calls of the month, used"] = f"{quota.used:,}"
    print_rows(
        {
            "tenant": account.tenant,
            "plan": account.plan or "none: the service asks for no keys",
            **month,
            "next month begins": quota.reset_time.ToDatetime(UTC).isoformat().replace("+00:00", "Z"),
            **limits_of(account.limits),
        }
    )


def _document(account: ab.GetAccountResponse) -> dict[str, Any]:
    """The answer with proto's names, durations in seconds; null where there is no such limit."""
    return {
        "tenant": account.tenant,
        "plan": account.plan,
        "limits": plain_fields(account.limits),
        "quota": plain_fields(account.quota),
    }
