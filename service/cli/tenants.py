"""`posegate tenants create|list|show|set-plan|delete`, on the database."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from service.accounts.months import first_day, month_of, next_month
from service.accounts.usage import COUNTED_RPCS
from service.cli.accounts import AsJson, Desk, at_desk, moment, refused, show, show_one
from service.store.tenants import Tenant

app = typer.Typer(
    help="Tenants: who may call, and by which plan. On the database.",
    no_args_is_help=True,
    add_completion=False,
)

Name = Annotated[str, typer.Argument(help="Name of the tenant.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name: a-z, 0-9, '.', '_' and '-'.")],
    plan: Annotated[str, typer.Option(help="Name of its plan, as in POSEGATE_PLANS.")],
    as_json: AsJson = False,
) -> None:
    """Add a tenant. `default` takes over what was kept before there were accounts."""
    tenant = at_desk(lambda desk: desk.administration.create_tenant(name, plan))
    show_one(_fields(tenant), as_json=as_json)


@app.command("list")
def list_tenants(as_json: AsJson = False) -> None:
    """List the tenants by name."""

    async def work(desk: Desk) -> Sequence[Tenant]:
        found: list[Tenant] = []
        while page := await desk.tenants.page(after=found[-1].name if found else ""):
            found += page
        return found

    show([_fields(tenant) for tenant in at_desk(work)], as_json=as_json)


@app.command("show")
def show_tenant(name: Name, as_json: AsJson = False) -> None:
    """Show a tenant, and what it used this month."""

    async def work(desk: Desk) -> dict[str, Any]:
        tenant = await desk.tenants.get(name)
        first = first_day(month_of(datetime.now(UTC)))
        used = await desk.usage.between(first, next_month(first), tenant=name)
        return {
            **_fields(tenant),
            "calls_this_month": sum(row.calls for row in used if row.rpc in COUNTED_RPCS),
            "failures_this_month": sum(row.failures for row in used),
        }

    show_one(at_desk(work), as_json=as_json)


@app.command("set-plan")
def set_plan(
    name: Name,
    plan: Annotated[str, typer.Argument(help="Name of the plan, as in POSEGATE_PLANS.")],
    as_json: AsJson = False,
) -> None:
    """Give a tenant another plan. It has its effect within POSEGATE_AUTH_REFRESH_S."""

    async def work(desk: Desk) -> Tenant:
        await desk.administration.set_plan(name, plan)
        return await desk.tenants.get(name)

    show_one(_fields(at_desk(work)), as_json=as_json)


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a tenant with its keys, skeletons and usage, after a confirmation."""
    tenant = at_desk(lambda desk: desk.tenants.get(name))
    if not yes:
        if not sys.stdin.isatty():
            raise refused("nothing was deleted: there is no terminal to ask at; give --yes")
        what = f"its {tenant.keys} keys, {tenant.skeletons} skeletons and all of its usage"
        if typer.prompt(f"This deletes {what}. Type the tenant's name to go on", err=True) != name:
            raise refused("nothing was deleted")
    at_desk(lambda desk: desk.administration.delete_tenant(name))
    show_one({"deleted": name}, as_json=as_json)


def _fields(tenant: Tenant) -> dict[str, Any]:
    return {
        "name": tenant.name,
        "plan": tenant.plan,
        "created": moment(tenant.create_time),
        "keys": tenant.keys,
        "skeletons": tenant.skeletons,
    }
