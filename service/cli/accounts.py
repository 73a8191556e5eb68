"""What the commands of operators have in common: the database that the settings name, and output."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar

import structlog
import typer
from rich.console import Console
from rich.table import Table

from service.accounts.administration import Administration
from service.accounts.plans import BadPlans, load_plans
from service.cli.environment import settings_from_environment
from service.cli.failures import FAILED
from service.errors import PosegateError
from service.settings import Settings
from service.store.address import BadDatabaseUrl
from service.store.database import database_of
from service.store.tenants import TenantStore
from service.store.usage import UsageStore

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class Desk:
    """What an operator's command works with."""

    administration: Administration
    tenants: TenantStore
    usage: UsageStore


def at_desk(work: Callable[[Desk], Awaitable[T]]) -> T:
    """Run an operator's command on the database that the settings name.

    Raises:
        typer.Exit: it failed, and why was printed: 2 for wrong settings, else 1.
    """
    settings = settings_from_environment()
    structlog.configure(cache_logger_on_first_use=False)  # commands may run one after the other in a process
    try:
        return asyncio.run(_run(settings, work))
    except PosegateError as error:
        raise refused(error.message) from error
    except (BadDatabaseUrl, BadPlans) as error:
        raise refused(str(error)) from error


async def _run(settings: Settings, work: Callable[[Desk], Awaitable[T]]) -> T:
    plans = load_plans(settings.plans)
    database = database_of(settings)
    try:
        tenants = TenantStore(database)
        administration = Administration(tenants, plans, operator=_operator())
        return await work(Desk(administration, tenants, UsageStore(database)))
    finally:
        await database.close()


def refused(message: str) -> typer.Exit:
    """What ends a command, after a line on stderr."""
    print(f"posegate: {message}", file=sys.stderr)
    return typer.Exit(FAILED)


def show(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print rows of the same columns: a table, or a JSON array."""
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    table = Table(*(rows[0] if rows else ("nothing",)))
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False)
    console.print(table)


def show_one(fields: dict[str, Any], *, as_json: bool) -> None:
    """Print one object: a line a field, or JSON."""
    if as_json:
        print(json.dumps(fields, ensure_ascii=False, indent=2))
        return
    for name, value in fields.items():
        if value is not None:
            print(f"{name}: {value}")


def moment(time: datetime | None) -> str | None:
    """A time as text, UTC."""
    return None if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _operator() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return "unknown"
