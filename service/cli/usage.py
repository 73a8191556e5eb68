"""`posegate usage`: what tenants used in a month, from the database."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from service.accounts.months import first_day, month_of, next_month
from service.cli.accounts import AsJson, Desk, at_desk, refused, show
from service.store.usage import UsageRow

_COLUMNS = ("tenant", "day", "rpc", "calls", "pictures", "video_seconds", "failures")


app = typer.Typer(add_completion=False)


@app.command()
def usage(
    month: Annotated[str, typer.Option(help="Month such as 2026-11, UTC; without it, this one.")] = "",
    tenant: Annotated[str, typer.Option(help="Only this tenant.")] = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show calls, images, seconds of video and failures by tenant, day and RPC."""
    if as_csv and as_json:
        raise refused("--csv and --json exclude each other: give one of them")
    try:
        first = first_day(month or month_of(datetime.now(UTC)))
        end = next_month(first)
    except ValueError as error:
        raise refused(str(error)) from None

    async def work(desk: Desk) -> Sequence[UsageRow]:
        if tenant:
            await desk.tenants.get(tenant)  # a mistyped name is not one that used nothing
        return await desk.usage.between(first, end, tenant=tenant)

    rows = [_fields(row) for row in at_desk(work)]
    if as_csv:
        writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        show(rows, as_json=as_json)


def _fields(row: UsageRow) -> dict[str, Any]:
    return {
        "tenant": row.tenant,
        "day": row.day.isoformat(),
        "rpc": row.rpc,
        "calls": row.calls,
        "pictures": row.pictures,
        "video_seconds": round(row.video_ms / 1e3, 3),
        "failures": row.failures,
    }
