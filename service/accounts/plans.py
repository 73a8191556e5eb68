"""Plans: what a tenant may use. A TOML file: `plans.toml` is the shipped one and explains every entry."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from service.core.plan import Plan

SHIPPED = Path(__file__).with_name("plans.toml")

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_UNLIMITED = "unlimited"
_MOST = 2**31 - 1  # what the API's int32 fields hold


class BadPlans(Exception):
    """The file of plans cannot be used; the text has a line for every mistake."""


def _limit(value: object) -> object:
    """A number, or None for "unlimited"."""
    if value == _UNLIMITED:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise ValueError(f'must be a number or "{_UNLIMITED}"')


_Count = Annotated[Annotated[int, Field(ge=0, le=_MOST)] | None, BeforeValidator(_limit)]
_Amount = Annotated[
    Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None, BeforeValidator(_limit)
]


class _Table(BaseModel):
    """One table of the file: a plan without its name."""

    model_config = ConfigDict(extra="forbid")

    calls_per_month: Annotated[Annotated[int, Field(ge=0, le=2**53)] | None, BeforeValidator(_limit)]
    max_batch_size: Annotated[Annotated[int, Field(ge=1, le=_MOST)] | None, BeforeValidator(_limit)]
    max_skeletons: _Count
    max_video_seconds: _Amount
    own_models: Annotated[bool, Field(strict=True)]
    calls_at_once: _Count
    streams_at_once: _Count
    calls_per_second: _Amount
    burst: Annotated[int, Field(strict=True, ge=1, le=_MOST)]
    batch_counts: Literal["call", "picture"] = "call"


_TABLES = TypeAdapter(dict[str, _Table])


def load_plans(file: Path | None = None) -> Mapping[str, Plan]:
    """The plans in a file, by name; None for the shipped one.

    Raises:
        BadPlans: the file cannot be read, or a plan in it is wrong; with every mistake.
    """
    path = SHIPPED if file is None else file
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadPlans(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadPlans(f"{path}: is not UTF-8 text") from error
    try:
        return parse_plans(content)
    except BadPlans as error:
        raise BadPlans("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error


def parse_plans(content: str) -> Mapping[str, Plan]:
    """The plans in a text, by name.

    Raises:
        BadPlans: with every mistake.
    """
    try:
        tables = tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadPlans(f"is not TOML: {error}") from error
    if not tables:
        raise BadPlans("there must be at least one plan, such as a table [free]")
    mistakes = [
        f"[{name}]: a plan's name must be 1 to 32 of a-z, 0-9, _ and -, a letter or digit first"
        for name in tables
        if not _NAME.fullmatch(name)
    ]
    try:
        checked = _TABLES.validate_python(tables)
    except ValidationError as error:
        raise BadPlans("\n".join(mistakes + [_mistake(found) for found in error.errors()])) from error
    if mistakes:
        raise BadPlans("\n".join(mistakes))
    return {name: Plan(name=name, **table.model_dump()) for name, table in checked.items()}


def _mistake(found: Mapping[str, object]) -> str:
    location = found["loc"]
    plan, *rest = location if isinstance(location, tuple) else ("",)
    message = str(found["msg"]).removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        message = "there is no such entry in a plan"
    entry = ".".join(str(part) for part in rest)
    return f"[{plan}] {entry}: {message}" if entry else f"[{plan}]: {message}"
