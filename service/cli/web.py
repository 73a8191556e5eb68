"""`posegate web`: the HTTP door in front of a gateway."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

import typer

from service.cli.environment import read, settings_from_environment
from service.cli.failures import CommandError, on_one_line
from service.web.settings import WebSettings

_PACKAGES = ("starlette", "uvicorn", "httptools", "python_multipart", "websockets")  # of the extra `web`

app = typer.Typer(add_completion=False)


@app.command()
def command() -> None:
    """Run the HTTP door in front of the gateway at POSEGATE_WEB_GATEWAY."""
    settings_from_environment()  # how the log is written
    settings = read(WebSettings)
    with on_one_line():
        _require_packages()
    from service.web.app import BadGatewayFile
    from service.web.server import CannotListen, serve

    with on_one_line(BadGatewayFile, CannotListen):
        asyncio.run(serve(settings))


def _require_packages() -> None:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise CommandError(
            f"the HTTP door needs {', '.join(missing)}: install the extra `web`, "
            "as in pip install 'posegate[web]'"
        )
