"""`posegate up`: the bundled Triton and the gateway, started, watched and stopped as one.

With `--web` the HTTP door too, a process of its own as everywhere.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

import service
from service.accounts.plans import BadPlans
from service.cli.door import CannotStartDoor, door
from service.cli.environment import read, settings_from_environment
from service.cli.failures import on_one_line
from service.server.app import CannotListen, build_gateway
from service.server.lifecycle import latest_exit_s, serve_until, stop_on_signals
from service.server.tls import BadCertificate
from service.settings import Settings
from service.store.address import BadDatabaseUrl
from service.telemetry.stderr import logged_stderr
from service.telemetry.tracing import BadTracing
from service.triton.launch import Launch, Ports, TritonProcessError
from service.triton.process import TritonProcess
from service.web.settings import WebSettings

app = typer.Typer(add_completion=False)

_OTHERS_S = 45.0  # that the door and Triton may take to stop

_SHIPPED = Path(service.__file__).resolve().parents[1] / "model_repository" / "backends"


@app.command()
def command(
    web: Annotated[
        bool, typer.Option("--web", help="Run the HTTP door too, at POSEGATE_WEB_LISTEN.")
    ] = False,
) -> None:
    """Run the bundled Triton and the gateway, and watch both."""
    with logged_stderr():
        settings = settings_from_environment()
        web_listen = read(WebSettings).listen if web else ""
        with on_one_line(
            BadCertificate,
            BadDatabaseUrl,
            BadPlans,
            BadTracing,
            CannotListen,
            CannotStartDoor,
            TritonProcessError,
        ):
            asyncio.run(up(settings, web_listen=web_listen, exit_after_s=_latest_exit_s(settings)))
    if sys.stderr.isatty():
        print("posegate: stopped; `posegate up` starts it again", file=sys.stderr)


def _latest_exit_s(settings: Settings) -> float:
    """Door, gateway and Triton stop one after the other. The kernel ends Triton with this process."""
    return _OTHERS_S + latest_exit_s(settings.drain_delay_s, settings.drain_grace_s)


async def up(settings: Settings, *, web_listen: str = "", exit_after_s: float | None = None) -> None:
    """Run all until SIGTERM or SIGINT: Triton starts first and stops last.

    Args:
        settings: of the gateway and the bundled Triton.
        web_listen: where the HTTP door will listen; empty: without the door.
        exit_after_s: as for `stop_on_signals`.

    Raises:
        CannotListen: one of the addresses cannot be bound; found out before Triton starts.
        CannotStartDoor: the HTTP door ended by itself; its own words are in the log.
        TritonProcessError: Triton does not start.
    """
    launch = _launch(settings)
    for address in (settings.listen, settings.health_listen, settings.metrics_listen, web_listen):
        check_address(address)
    stop = stop_on_signals(exit_after_s)
    triton = TritonProcess(launch)
    if not await _start(triton, stop):
        return
    watcher = asyncio.create_task(triton.watch())
    try:
        async with (
            build_gateway(settings.model_copy(update={"triton_url": triton.grpc_url})),
            door(settings, stop) if web_listen else nullcontext(),
        ):
            await serve_until(stop)
    finally:
        watcher.cancel()
        await triton.stop()


def check_address(address: str) -> None:
    """Bind a host:port for a moment; Unix sockets, port 0 and empty addresses are not checked.

    Raises:
        CannotListen: it is in use, or no address of this host.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or port == "0" or address.startswith("unix:"):
        return
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        infos = socket.getaddrinfo(host.strip("[]") or None, int(port), type=socket.SOCK_STREAM)
        found = next((info for info in infos if info[0] == family), infos[0])
        with socket.socket(found[0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[4])
            probe.listen()
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {address}: {error.strerror or error}. Stop what listens there,"
            " or choose another address"
        ) from error


async def _start(triton: TritonProcess, stop: asyncio.Event) -> bool:
    """Whether it started; a signal in the meantime ends the start."""
    starting = asyncio.create_task(triton.start())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if starting.done():
        starting.result()
        return True
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    return False


def _launch(settings: Settings) -> Launch:
    port = 0
    if "triton_url" in settings.model_fields_set:
        host, _, digits = settings.triton_url.rpartition(":")
        if host not in ("127.0.0.1", "localhost") or not digits.isdecimal():
            raise TritonProcessError(
                f"POSEGATE_TRITON_URL is {settings.triton_url}, but the bundled Triton runs on this host: "
                "give 127.0.0.1:PORT, or use `posegate serve` for a Triton elsewhere"
            )
        port = int(digits)
    beside = settings.model_repository.resolve().parent / "backends"
    return Launch(
        runtime=settings.home / "triton",
        model_repository=settings.model_repository,
        backends=find_backends((beside, Path("model_repository/backends").resolve(), _SHIPPED)),
        cache=settings.home / "cache",
        ports=Ports(grpc=port),
        log_file=settings.home / "triton.log",
    )


def find_backends(folders: Iterable[Path]) -> Path:
    """The first folder that holds Triton's Python-based backends: beside the model repository, then the
    shipped ones.

    Raises:
        TritonProcessError: none does; the text names them.
    """
    folders = tuple(dict.fromkeys(folders))
    for folder in folders:
        if any(folder.glob("*/model.py")):
            return folder
    searched = ", ".join(map(str, folders))
    raise TritonProcessError(
        f"there are no backends (BACKEND/model.py) in {searched}: run posegate in its folder,"
        " or copy model_repository/backends beside the folder that POSEGATE_MODEL_REPOSITORY names"
    )
