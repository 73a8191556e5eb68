"""Settings from the environment, for the commands that run the gateway or the HTTP door."""

from __future__ import annotations

import sys
from typing import TypeVar

import typer
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from service.settings import Settings
from service.telemetry.logging import configure

_BAD_SETTINGS = 2

AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def settings_from_environment() -> Settings:
    """The settings, with logging configured by them.

    Raises:
        typer.Exit: code 2, after a line on stderr for each variable that has no valid value.
    """
    settings = read(Settings)
    configure(settings)
    return settings


def read(kind: type[AnySettings]) -> AnySettings:
    """Settings of a kind.

    Raises:
        typer.Exit: code 2, after a line on stderr for each variable that has no valid value.
    """
    prefix = kind.model_config.get("env_prefix", "")
    try:
        return kind()
    except ValidationError as error:
        for problem in error.errors():
            name = prefix + "_".join(str(part) for part in problem["loc"]).upper()
            message = problem["msg"].removeprefix("Value error, ")
            print(f"{name}: {message} (got {problem['input']!r})", file=sys.stderr)
        raise typer.Exit(_BAD_SETTINGS) from None
