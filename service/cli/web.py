"""`posegate web`: the HTTP door in front of a gateway."""

from __future__ import annotations

import asyncio

import typer

from service.cli.environment import read, settings_from_environment
from service.cli.failures import on_one_line
from service.web.app import BadGatewayFile
from service.web.server import CannotListen, serve
from service.web.settings import WebSettings

app = typer.Typer(add_completion=False)


@app.command()
def command() -> None:
    """Run the HTTP door in front of the gateway at POSEGATE_WEB_GATEWAY."""
    settings_from_environment()  # how the log is written
    settings = read(WebSettings)
    with on_one_line(BadGatewayFile, CannotListen):
        asyncio.run(serve(settings))
