"""`posegate serve`: the gateway against a Triton that runs elsewhere."""

from __future__ import annotations

import asyncio

import typer

from service.accounts.plans import BadPlans
from service.cli.environment import settings_from_environment
from service.cli.failures import on_one_line
from service.server.app import CannotListen, build_gateway
from service.server.lifecycle import latest_exit_s, serve
from service.server.tls import BadCertificate
from service.store.address import BadDatabaseUrl
from service.telemetry.stderr import logged_stderr
from service.telemetry.tracing import BadTracing

app = typer.Typer(add_completion=False)


@app.command()
def command() -> None:
    """Run the gateway against the Triton at POSEGATE_TRITON_URL."""
    with logged_stderr():
        settings = settings_from_environment()
        with on_one_line(BadCertificate, BadDatabaseUrl, BadPlans, BadTracing, CannotListen):
            asyncio.run(
                serve(
                    build_gateway(settings),
                    exit_after_s=latest_exit_s(settings.drain_delay_s, settings.drain_grace_s),
                )
            )
