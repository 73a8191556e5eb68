"""The gateway that a command calls: its connection options, the channel, and gRPC's failures in words.

A further connection option is a parameter of `target` and a field of `Target`; every command of the class
`GatewayCommand` has it then.
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from typer.core import TyperCommand

from service.cli.failures import fail, on_one_line
from service.client import connect, is_loopback
from service.server.tls import BadCertificate, CertificateFiles, load, load_authorities

# gRPC's text for a peer that closed the connection during the handshake: with TLS 1.3 a server also refuses a
# caller's certificate in this way.
_HUNG_UP = re.compile(r"last error: .*(Socket closed|Connection reset|Broken pipe)")
_NOT_CONNECTED = re.compile(
    r"failed to connect to all addresses|connections to all backends failing|DNS resol"
)
_FIRST_CONTACT_S = 1.0  # a gateway that is there answers by then; one that was there may restart
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")  # those that gRPC reads, in its order


@dataclass(frozen=True)
class Target:
    """A gateway and how to reach it.

    Attributes:
        address: host:port.
        tls: TLS, with the authorities that this machine trusts unless `tls_ca` names others.
        tls_ca: PEM file of the authorities that sign the gateway's certificate; implies TLS.
        tls_cert: PEM file of the caller's certificate, for gateways that ask for one; implies TLS.
        tls_key: PEM file of its private key.
        api_key: sent with every call; empty for none.
    """

    address: str
    tls: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    api_key: str = field(default="", repr=False)

    def connect(self) -> grpc.aio.Channel:
        """A channel to it, as `service.client` opens it.

        Raises:
            BadCertificate: one of the files cannot be used.
        """
        credentials = self._credentials() if self._speaks_tls else None
        return connect(
            self.address, credentials=credentials, api_key=self.api_key, first_contact_s=_FIRST_CONTACT_S
        )

    def explain(self, error: grpc.aio.AioRpcError) -> str:
        """Why a call failed, in one line; for a failed connection also what to change."""
        details = " ".join((error.details() or "").split())
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            details = self._handshake(details) or self._unreachable(details) or details
        if details == "Internal error from Core":  # grpc.aio: https://github.com/grpc/grpc/issues/36066
            details = "the service ended the call before the upload was complete; its log says why"
        if error.code() is grpc.StatusCode.UNAUTHENTICATED and not self.api_key:
            details += " Give --key, or set POSEGATE_API_KEY."
        return f"{error.code().name}: {details}"

    @property
    def _speaks_tls(self) -> bool:
        return self.tls or any((self.tls_ca, self.tls_cert, self.tls_key))

    def _credentials(self) -> grpc.ChannelCredentials:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = "--tls-cert", "--tls-key"
            if self.tls_cert is None:
                given, missing = missing, given
            raise BadCertificate(f"{given} needs {missing} as well")
        authorities = _system_authorities() if self.tls_ca is None else load_authorities(self.tls_ca)
        if self.tls_cert is None or self.tls_key is None:
            return grpc.ssl_channel_credentials(authorities)
        own = load(CertificateFiles(self.tls_cert, self.tls_key)).pem
        return grpc.ssl_channel_credentials(authorities, own.key, own.cert)

    def _handshake(self, details: str) -> str:
        """What is wrong with TLS; empty where it is not TLS."""
        if "WRONG_VERSION_NUMBER" in details:
            return f"{self.address} speaks no TLS: call it without --tls, --tls-ca, --tls-cert and --tls-key"
        if "Hostname Verification Check failed" in details:
            return (
                f"the gateway's certificate does not hold the name in {self.address}:"
                " give --address a name that it holds"
            )
        if "CERTIFICATE_VERIFY_FAILED: certificate has expired" in details:
            return "the gateway's certificate has expired: renew it"
        if "CERTIFICATE_VERIFY_FAILED: certificate is not yet valid" in details:
            return "the gateway's certificate is not valid yet: check the clocks"
        if "CERTIFICATE_VERIFY_FAILED" in details:
            trusted = "this machine trusts" if self.tls_ca is None else f"{self.tls_ca} holds"
            return (
                f"the gateway's certificate is not signed by an authority that {trusted}:"
                " give --tls-ca the certificate of the one that signed it"
            )
        if not _HUNG_UP.search(details):
            return ""
        if not self._speaks_tls:
            return f"{self.address} hung up: if it speaks TLS, give --tls-ca FILE, or --tls ({details})"
        if self.tls_cert is None:
            return (
                f"{self.address} hung up: if it asks for a certificate, give --tls-cert and --tls-key"
                f" ({details})"
            )
        return (
            f"{self.address} hung up: it may not trust the authority that signed {self.tls_cert},"
            f" see its POSEGATE_TLS_CLIENT_CA ({details})"
        )

    def _unreachable(self, details: str) -> str:
        """That there is no gateway; empty where there is one."""
        if not _NOT_CONNECTED.search(details):
            return ""
        proxy = next((name for name in _PROXY_VARIABLES if os.environ.get(name)), None)
        through = "" if proxy is None or is_loopback(self.address) else (
            f" The call goes through the proxy in {proxy}: name the host in no_proxy to call it directly."
        )  # fmt: skip
        return (
            f"no gateway answers at {self.address}: start one with `posegate up`,"
            f" or name another with --address HOST:PORT.{through} ({details})"
        )


def target(
    address: Annotated[
        str, typer.Option(envvar="POSEGATE_ADDRESS", help="host:port of the gateway.")
    ] = "127.0.0.1:50051",
    tls: Annotated[
        bool,
        typer.Option("--tls", envvar="POSEGATE_TLS", help="TLS, with the authorities this machine trusts."),
    ] = False,
    tls_ca: Annotated[
        Path | None,
        typer.Option(envvar="POSEGATE_CA", help="TLS, with the authorities in this PEM file."),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            envvar="POSEGATE_CERT", help="PEM file of your certificate, if the gateway asks for one."
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="POSEGATE_KEY", help="PEM file of your certificate's private key.")
    ] = None,
    key: Annotated[
        str,
        typer.Option(
            envvar="POSEGATE_API_KEY",
            help="API key, if the gateway asks for one. A command line is seen by others: use the variable.",
        ),
    ] = "",
) -> Target:
    """The gateway that the connection options name."""
    return Target(address, tls, tls_ca, tls_cert, tls_key, api_key=key)


class GatewayCommand(TyperCommand):
    """A command that calls a gateway.

    It has the options of `target` beside its own, finds the gateway by `gateway_of`, and ends with one line
    on stderr where the call fails. Use: `@app.command(cls=GatewayCommand)`.
    """

    def __init__(self, *arguments: Any, params: list[Any] | None = None, **settings: Any) -> None:
        super().__init__(*arguments, params=[*(params or []), *_connection().params], **settings)

    def invoke(self, ctx: Any) -> Any:
        """Run the command with the gateway in its context."""
        options = {option.name: ctx.params.pop(option.name) for option in _connection().params}
        ctx.obj = gateway = _connection().callback(**options)
        with on_one_line(BadCertificate):
            try:
                return super().invoke(ctx)
            except grpc.aio.AioRpcError as error:
                fail(gateway.explain(error))


def gateway_of(context: typer.Context) -> Target:
    """The gateway that the caller of a `GatewayCommand` named."""
    gateway: Target = context.obj
    return gateway


@cache
def _connection() -> Any:
    """The options of `target`, and the function that makes a Target of their values."""
    app = typer.Typer(add_completion=False)
    app.command()(target)
    return typer.main.get_command(app)


def _system_authorities() -> bytes | None:
    """The authorities that this machine trusts; None without such a file, for gRPC's built-in ones."""
    file = ssl.get_default_verify_paths().cafile
    return None if file is None else load_authorities(Path(file))
