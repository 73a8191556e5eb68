"""Settings from the environment, for the commands that run the gateway."""

from __future__ import annotations

import sys

import typer
from pydantic import ValidationError

from service.settings import Settings
from service.telemetry.logging import configure

_BAD_SETTINGS = 2


def settings_from_environment() -> Settings:
    """The settings, with logging configured by them.

    Raises:
        typer.Exit: code 2, after a line on stderr for each variable that has no valid value.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(["POSEGATE", *(str(part) for part in problem["loc"])]).upper()
            print(f"{name}: {problem['msg']} (got {problem['input']!r})", file=sys.stderr)
        raise typer.Exit(_BAD_SETTINGS) from None
    configure(settings)
    return settings
