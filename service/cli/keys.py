"""`posegate keys create|list|revoke|rotate`, on the database."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from service.accounts.administration import NewKey
from service.cli.accounts import AsJson, at_desk, moment, show, show_one
from service.store.tenants import KeyRecord

app = typer.Typer(help="API keys of tenants. On the database.", no_args_is_help=True, add_completion=False)

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _period(text: str) -> timedelta:
    """A period such as 90d, 24h, 30m or 45s."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    if found is None:
        raise typer.BadParameter(f"'{text}' is not a period such as 90d, 24h, 30m or 45s")
    return timedelta(seconds=int(found[1]) * _UNITS_S[found[2]])


KeyId = Annotated[str, typer.Argument(help="Id of the key: the 8 characters between pg_ and the second _.")]


@app.command()
def create(
    tenant: Annotated[str, typer.Argument(help="Name of the tenant.")],
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    expires: Annotated[
        timedelta | None,
        typer.Option(parser=_period, metavar="PERIOD", help="When it ends: 90d, 24h; without it, never."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once: only its digest is kept."""
    _show_new(at_desk(lambda desk: desk.administration.create_key(tenant, label, expires)), as_json=as_json)


@app.command("list")
def list_keys(
    tenant: Annotated[str, typer.Argument(help="Name of the tenant.")], as_json: AsJson = False
) -> None:
    """List the keys of a tenant, the oldest first."""
    records = at_desk(lambda desk: desk.tenants.keys(tenant))
    show([_fields(record) for record in records], as_json=as_json)


@app.command()
def revoke(key_id: KeyId, as_json: AsJson = False) -> None:
    """End a key. It has its effect within POSEGATE_AUTH_REFRESH_S."""
    show_one(_fields(at_desk(lambda desk: desk.administration.revoke_key(_id(key_id)))), as_json=as_json)


@app.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        timedelta,
        typer.Option(parser=_period, metavar="PERIOD", help="How long the old key stays good."),
    ] = "24h",  # type: ignore[assignment]  # typer parses the default, too
    as_json: AsJson = False,
) -> None:
    """Make a key with the label and the lifetime of another one, which stays good for a while."""
    _show_new(at_desk(lambda desk: desk.administration.rotate_key(_id(key_id), overlap)), as_json=as_json)


def _id(text: str) -> str:
    """Of a whole key its id: what is at hand is often that."""
    return text.split("_")[1] if text.startswith("pg_") and text.count("_") == 2 else text


def _show_new(new: NewKey, *, as_json: bool) -> None:
    record = new.record
    fields = {
        "id": record.key_id,
        "key": new.text,
        "tenant": record.tenant,
        "label": record.label,
        "expires": moment(record.expire_time),
    }
    show_one(fields, as_json=as_json)


def _fields(record: KeyRecord) -> dict[str, Any]:
    expired = record.expire_time is not None and record.expire_time <= datetime.now(UTC)
    state = "revoked" if record.revoke_time is not None else "expired" if expired else "live"
    return {
        "id": record.key_id,
        "label": record.label,
        "state": state,
        "created": moment(record.create_time),
        "last_used": moment(record.last_use_time),
        "expires": moment(record.expire_time),
        "revoked": moment(record.revoke_time),
    }
