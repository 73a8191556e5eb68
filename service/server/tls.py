"""The gateway's TLS certificate: read, checked, and reloaded when its files change.

gRPC asks at every handshake, on one of its threads, for the current certificate. It gets the last one that
passed the checks, so that a handshake never waits for a disk and never sees half of a change. Open
connections keep the certificate of their handshake.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_log = structlog.get_logger()

# Certificates are usually renewed with a third of their validity left: with a sixth, renewal has failed.
_SOON = 6
_REMIND = timedelta(days=1)


class BadCertificate(Exception):
    """A certificate or key that cannot be used; the text says which file, why, and what to do."""


@dataclass(frozen=True)
class CertificateFiles:
    """PEM files.

    Attributes:
        cert: the certificate, followed by the intermediate ones.
        key: the private key, without a passphrase.
        client_ca: certificates of the authorities that sign callers' certificates; None: callers need none.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class Contents:
    """Contents of the files; `client_ca` is None without that file."""

    cert: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None


@dataclass(frozen=True)
class Certificate:
    """A certificate that is valid now and matches its key.

    Attributes:
        subject: for log lines: the host names in it, or else its distinguished name.
        valid_from: start of its validity.
        expires_at: end of its validity.
        pem: contents that it was read from.
    """

    subject: str
    valid_from: datetime
    expires_at: datetime
    pem: Contents


def read(files: CertificateFiles) -> Contents:
    """Read the files as they are at one moment.

    Kubernetes swaps all files of a Secret at once, and that may happen between two of them: the old pair
    beside the new authorities would pass every check. Two readings in a row that agree saw no swap. A pipe
    can be read once only.

    Raises:
        BadCertificate: one cannot be read.
    """
    before = _read_all(files)
    if not all(file.is_file() for file in (files.cert, files.key, files.client_ca) if file is not None):
        return before
    while (contents := _read_all(files)) != before:
        before = contents
    return contents


def _read_all(files: CertificateFiles) -> Contents:
    return Contents(
        cert=_read(files.cert, "certificate"),
        key=_read(files.key, "private key"),
        client_ca=None if files.client_ca is None else _read(files.client_ca, "certificates"),
    )


def check(pem: Contents, files: CertificateFiles, now: datetime) -> Certificate:
    """Check that gRPC can serve or call with the contents.

    Raises:
        BadCertificate: a file is not PEM, certificate and key do not match, or it is not valid now.
    """
    try:
        certificate = x509.load_pem_x509_certificates(pem.cert)[0]
    except ValueError as error:
        raise BadCertificate(f"{files.cert} holds no certificate in PEM form") from error
    try:
        key = load_pem_private_key(pem.key, None)
    except TypeError as error:
        raise BadCertificate(f"the private key {files.key} has a passphrase: keep it without one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadCertificate(f"{files.key} holds no private key in PEM form") from error
    if key.public_key() != certificate.public_key():
        raise BadCertificate(
            f"the private key {files.key} does not belong to the first certificate in {files.cert}:"
            " give the two that were issued together"
        )
    if not _is_usable(key):
        raise BadCertificate(
            f"gRPC cannot use the kind of key in {files.key}: have an RSA, P-256 or P-384 one certified"
        )
    valid_from, expires_at = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > expires_at:
        raise BadCertificate(f"the certificate {files.cert} expired at {expires_at.isoformat()}: renew it")
    if now < valid_from:
        raise BadCertificate(
            f"the certificate {files.cert} is not valid before {valid_from.isoformat()}:"
            " check the clock of this machine"
        )
    if files.client_ca is not None and pem.client_ca is not None:
        _check_authorities(pem.client_ca, files.client_ca)
    return Certificate(_subject(certificate), valid_from, expires_at, pem)


def load(files: CertificateFiles) -> Certificate:
    """Read and check.

    Raises:
        BadCertificate: it cannot be used.
    """
    return check(read(files), files, datetime.now(UTC))


def load_authorities(file: Path) -> bytes:
    """The content of a file with certificates of authorities.

    Raises:
        BadCertificate: it cannot be read or holds none.
    """
    pem = _read(file, "certificates")
    _check_authorities(pem, file)
    return pem


class Certificates:
    """Certificates: the one in use, reloaded when its files change."""

    def __init__(self, files: CertificateFiles, interval_s: float) -> None:
        """Reads the files once; raises BadCertificate."""
        self._files = files
        self._interval_s = interval_s
        self._current = load(files)
        self._fresh: deque[grpc.ServerCertificateConfiguration] = deque(
            maxlen=1
        )  # on the way to gRPC's threads
        self._trouble = self._told = ""
        self._reminded: tuple[str, datetime] | None = None

    @property
    def current(self) -> Certificate:
        """The certificate that new connections get."""
        return self._current

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for one server. With `client_ca`, clients need a certificate signed by it."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._current),
            self._fetch,  # type: ignore[arg-type]  # None stands for no change, which its stub does not know
            require_client_authentication=self._files.client_ca is not None,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            return self._fresh.pop()
        except IndexError:
            return None

    async def run(self) -> None:
        """Check the files at every interval; until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.look, datetime.now(UTC))  # checking an RSA key takes long
            except Exception as error:
                # The watch must go on after any error: without it the certificate expires.
                _log.error("certificate_watch_failed", exc_info=error)
            await asyncio.sleep(self._interval_s)

    def look(self, now: datetime) -> None:
        """Reload changed files if they can be used, and log the outcome.

        Files that cannot be used are logged once, when they were there at two checks in a row: between two
        checks an operator may be replacing one file after the other.
        """
        try:
            pem = read(self._files)
            found = self._current if pem == self._current.pem else check(pem, self._files, now)
        except BadCertificate as error:
            trouble = str(error)
            if trouble == self._trouble != self._told:
                self._told = trouble
                until = self._current.expires_at.isoformat()
                _log.error("certificate_not_reloaded", why=trouble, in_use_until=until)
            self._trouble = trouble
        else:
            self._trouble = self._told = ""
            if found is not self._current:
                self._current = found
                self._fresh.append(_configuration(found))
                self._reminded = None
                _log.info(
                    "certificate_reloaded", subject=found.subject, expires_at=found.expires_at.isoformat()
                )
        self._remind(now)

    def _remind(self, now: datetime) -> None:
        """Log that the certificate expires soon: once a day, and when it gets worse."""
        current = self._current
        left = current.expires_at - now
        if left >= (current.expires_at - current.valid_from) / _SOON:
            return
        event = "certificate_expires_soon" if left > timedelta() else "certificate_expired"
        if self._reminded is not None:
            earlier, when = self._reminded
            if earlier == event and now - when < _REMIND:
                return
        self._reminded = event, now
        say = _log.warning if left > timedelta() else _log.error
        say(
            event,
            subject=current.subject,
            expires_at=current.expires_at.isoformat(),
            file=str(self._files.cert),
        )


def _configuration(certificate: Certificate) -> grpc.ServerCertificateConfiguration:
    pem = certificate.pem
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], root_certificates=pem.client_ca)


def _read(file: Path, what: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadCertificate(f"cannot read the {what} {file}: {error.strerror}") from error


def _is_usable(key: PrivateKeyTypes) -> bool:
    """Whether TLS can use this kind of key: gRPC accepts others too, and then every handshake fails."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    return isinstance(key, rsa.RSAPrivateKey)


def _check_authorities(pem: bytes, file: Path) -> None:
    """Check a file of authorities: gRPC accepts an empty one, and then trusts no certificate. OpenSSL reads
    it, because public bundles of authorities hold old ones that `cryptography` complains about."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise BadCertificate(f"{file} holds no certificate in PEM form") from error


def _subject(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return certificate.subject.rfc4514_string()
    return ", ".join(str(name.value) for name in names) or certificate.subject.rfc4514_string()
