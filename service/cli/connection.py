"""Where the gateway is and how to speak to it; and what its refusals mean for whoever typed that."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from service.client import connect
from service.server.tls import BadCertificate, CertificateFiles, load, load_authorities

# What gRPC says when the other side hung up before it was connected: for TLS 1.3 that is also how a server
# refuses a caller's certificate.
_HUNG_UP = re.compile(r"last error: .*(Socket closed|Connection reset|Broken pipe)")


@dataclass(frozen=True)
class Target:
    """A gateway.

    Attributes:
        address: host:port.
        tls: speak TLS, with the authorities that this machine trusts unless `ca` names others.
        ca: PEM file of the authorities that sign the gateway's certificate; TLS is meant.
        cert: PEM file of the caller's own certificate, for gateways that ask for one; TLS is meant.
        key: PEM file of its private key.
    """

    address: str
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def connect(self) -> grpc.aio.Channel:
        """A channel to it.

        Raises:
            BadCertificate: one of the files cannot be used.
        """
        return connect(self.address, credentials=self._credentials() if self._speaks_tls else None)

    def explain(self, error: grpc.aio.AioRpcError) -> str:
        """Why a call failed, in one line; if it is for TLS, what to change."""
        details = " ".join((error.details() or "").split())
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            details = self._handshake(details) or details
        if details == "Internal error from Core":  # grpc.aio: https://github.com/grpc/grpc/issues/36066
            details = "the service ended the call while it was still being sent to; its log says why"
        return f"{error.code().name}: {details}"

    @property
    def _speaks_tls(self) -> bool:
        return self.tls or any((self.ca, self.cert, self.key))

    def _credentials(self) -> grpc.ChannelCredentials:
        if (self.cert is None) != (self.key is None):
            given, missing = ("--cert", "--key") if self.key is None else ("--key", "--cert")
            raise BadCertificate(f"{given} needs {missing} as well")
        authorities = _of_this_machine() if self.ca is None else load_authorities(self.ca)
        if self.cert is None or self.key is None:
            return grpc.ssl_channel_credentials(authorities)
        own = load(CertificateFiles(self.cert, self.key)).pem
        return grpc.ssl_channel_credentials(authorities, own.key, own.cert)

    def _handshake(self, details: str) -> str:
        if "WRONG_VERSION_NUMBER" in details:
            return f"{self.address} speaks no TLS: call it without --tls, --ca, --cert and --key"
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
            trusted = "this machine trusts" if self.ca is None else f"{self.ca} holds"
            return (
                f"the gateway's certificate is not signed by an authority that {trusted}:"
                " give --ca the certificate of the one that signed it"
            )
        if not _HUNG_UP.search(details):
            return ""
        if not self._speaks_tls:
            return f"{self.address} hung up: if it speaks TLS, give --ca FILE, or --tls ({details})"
        if self.cert is None:
            return f"{self.address} hung up: if it asks for a certificate, give --cert and --key ({details})"
        return (
            f"{self.address} hung up: it may not trust the authority that signed {self.cert},"
            f" see its POSEGATE_TLS_CLIENT_CA ({details})"
        )


def _of_this_machine() -> bytes | None:
    """Whom this machine trusts. None: it has no such file, and gRPC takes Mozilla's, which it brings."""
    file = ssl.get_default_verify_paths().cafile
    return None if file is None else load_authorities(Path(file))
