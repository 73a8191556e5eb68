"""Which certificates can be used, and what the watch over them takes and tells."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from service.server import tls
from service.server.tls import BadCertificate, CertificateFiles, Certificates, load, load_authorities
from tests.secrets import Secret, chain_pem, key_pem

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
AUTHORITY = trustme.CA()
CERT = AUTHORITY.issue_cert("pose.example", "127.0.0.1", not_before=NOW - 10 * DAY, not_after=NOW + 80 * DAY)
OTHER = AUTHORITY.issue_cert("other.example")
PUBLIC = AUTHORITY.cert_pem.bytes()


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    secret = Secret(tmp_path / "tls")
    secret.put(CERT, AUTHORITY)
    return secret


def with_passphrase(cert: trustme.LeafCert) -> bytes:
    key = serialization.load_pem_private_key(key_pem(cert), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def on_p521() -> trustme.LeafCert:
    """A certificate for a key of a kind that gRPC binds and then fails with."""
    key = ec.generate_private_key(ec.SECP521R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pose.example")])
    cert = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, NOW - DAY, NOW + DAY)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return trustme.LeafCert(plain, cert, [])


# --- what can be used ---------------------------------------------------------------------------------


def test_a_good_pair_tells_its_names_and_its_time_and_never_its_key(secret: Secret) -> None:
    certificate = load(secret.files)
    assert certificate.subject == "pose.example, 127.0.0.1"
    assert (certificate.valid_from, certificate.expires_at) == (NOW - 10 * DAY, NOW + 80 * DAY)
    assert certificate.pem.client_ca == PUBLIC
    assert "PRIVATE KEY" not in repr(certificate)


def test_a_certificate_without_names_is_told_by_its_distinguished_name(tmp_path: Path) -> None:
    certificate = x509.load_pem_x509_certificate(PUBLIC)
    (tmp_path / "ca.crt").write_bytes(PUBLIC)
    (tmp_path / "ca.key").write_bytes(AUTHORITY.private_key_pem.bytes())
    loaded = load(CertificateFiles(tmp_path / "ca.crt", tmp_path / "ca.key"))
    assert loaded.subject == certificate.subject.rfc4514_string()
    assert loaded.pem.client_ca is None


def issued(not_before: datetime, not_after: datetime) -> trustme.LeafCert:
    return AUTHORITY.issue_cert("pose.example", not_before=not_before, not_after=not_after)


P521 = on_p521()
EXPIRED = issued(NOW - 3 * DAY, NOW - DAY)
TO_COME = issued(NOW + DAY, NOW + 2 * DAY)


@pytest.mark.parametrize(
    ("cert", "key", "authorities", "why"),
    [
        (b"", key_pem(CERT), PUBLIC, "tls.crt holds no certificate in PEM form"),
        (chain_pem(CERT), b"", PUBLIC, "tls.key holds no private key in PEM form"),
        (chain_pem(CERT), chain_pem(CERT), PUBLIC, "tls.key holds no private key in PEM form"),
        (chain_pem(CERT), with_passphrase(CERT), PUBLIC, "tls.key has a passphrase: keep it without one"),
        (chain_pem(CERT), key_pem(OTHER), PUBLIC, r"tls.key does not belong to .*tls.crt"),
        (chain_pem(P521), key_pem(P521), PUBLIC, r"gRPC cannot use the kind of key in .*tls.key"),
        (chain_pem(EXPIRED), key_pem(EXPIRED), PUBLIC, rf"tls.crt expired at {NOW - DAY:%Y-%m-%d}.*renew it"),
        (chain_pem(TO_COME), key_pem(TO_COME), PUBLIC, r"tls.crt is not valid before .*clock"),
        (chain_pem(CERT), key_pem(CERT), b"", "ca.crt holds no certificate in PEM form"),
    ],
    ids=["no certificate", "no key", "certificate as key", "passphrase", "mismatch", "kind of key", "expired",
         "to come", "no authorities"],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_the_file_and_what_to_do(
    secret: Secret, cert: bytes, key: bytes, authorities: bytes, why: str
) -> None:
    secret.write(cert, key, authorities)
    with pytest.raises(BadCertificate, match=why):
        load(secret.files)


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key", "ca.crt"])
def test_a_file_that_is_not_there_is_named(secret: Secret, missing: str) -> None:
    (secret.files.cert.parent / missing).unlink()
    with pytest.raises(BadCertificate, match=rf"cannot read the .*{missing}: No such file or directory"):
        load(secret.files)


def test_authorities_are_certificates(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_bytes(PUBLIC * 2)
    assert load_authorities(file) == PUBLIC * 2
    file.write_bytes(AUTHORITY.private_key_pem.bytes())
    with pytest.raises(BadCertificate, match=r"ca.crt holds no certificate"):
        load_authorities(file)


# --- the watch ----------------------------------------------------------------------------------------


def looked(certificates: Certificates, *times: datetime) -> list[Any]:
    """What the log says after looks at these times."""
    with capture_logs() as logs:
        for now in times or (NOW,):
            certificates.look(now)
    return logs


def test_nothing_is_told_while_nothing_changes(secret: Secret) -> None:
    certificates = Certificates(secret.files, 10.0)
    before = certificates.current
    assert looked(certificates, NOW, NOW + DAY) == []
    assert certificates.current is before


def test_a_new_pair_is_taken_and_told_once_without_its_key(secret: Secret) -> None:
    certificates = Certificates(secret.files, 10.0)
    secret.put(OTHER, AUTHORITY)
    (line,) = looked(certificates, NOW, NOW)
    assert (line["event"], line["subject"]) == ("certificate_reloaded", "other.example")
    assert line["expires_at"] == certificates.current.expires_at.isoformat()
    assert "PRIVATE KEY" not in str(line)
    assert certificates.current.pem.cert == chain_pem(OTHER)


def test_new_authorities_alone_are_a_change(secret: Secret) -> None:
    certificates = Certificates(secret.files, 10.0)
    secret.put(CERT, trustme.CA())
    assert [line["event"] for line in looked(certificates)] == ["certificate_reloaded"]


def mismatched(secret: Secret) -> None:
    secret.write(chain_pem(OTHER), key_pem(CERT), PUBLIC)


def expired(secret: Secret) -> None:
    secret.put(EXPIRED, AUTHORITY)


def gone(secret: Secret) -> None:
    secret.files.key.unlink()


def half_written(secret: Secret) -> None:
    secret.write(chain_pem(OTHER)[:100], key_pem(OTHER), PUBLIC)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (mismatched, "does not belong"),
        (expired, "expired at"),
        (gone, "No such file"),
        (half_written, "holds no certificate"),
    ],
)
def test_a_new_pair_that_cannot_be_used_leaves_the_old_one_and_is_told_once(
    secret: Secret, spoil: Callable[[Secret], None], why: str
) -> None:
    certificates = Certificates(secret.files, 10.0)
    before = certificates.current
    spoil(secret)
    (line,) = looked(certificates, *[NOW] * 5)
    assert (line["event"], line["log_level"]) == ("certificate_not_reloaded", "error")
    assert why in line["why"]
    assert line["in_use_until"] == before.expires_at.isoformat()
    assert certificates.current is before


def test_the_time_between_replacing_one_file_and_the_other_is_no_trouble(secret: Secret) -> None:
    certificates = Certificates(secret.files, 10.0)
    mismatched(secret)
    assert looked(certificates) == []
    secret.put(OTHER, AUTHORITY)
    assert [line["event"] for line in looked(certificates)] == ["certificate_reloaded"]


def test_a_certificate_in_a_pipe_is_read_once(secret: Secret) -> None:
    pem = secret.files.cert.read_bytes()
    reader, writer = os.pipe()
    try:
        os.write(writer, pem)
        os.close(writer)
        assert tls.read(replace(secret.files, cert=Path(f"/dev/fd/{reader}"))).cert == pem
    finally:
        os.close(reader)


def test_a_swap_between_the_reading_of_two_files_mixes_none_of_them(
    secret: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates, read, another = Certificates(secret.files, 3600.0), tls._read, trustme.CA()
    swaps = [lambda: secret.put(OTHER, another)]

    def swapped(file: Path, what: str) -> bytes:
        if file == secret.files.client_ca and swaps:
            swaps.pop()()
        return read(file, what)

    monkeypatch.setattr(tls, "_read", swapped)
    certificates.look(NOW)
    assert certificates.current.pem == tls.Contents(
        chain_pem(OTHER), key_pem(OTHER), another.cert_pem.bytes()
    )


def test_the_same_trouble_is_told_again_after_a_good_pair(secret: Secret) -> None:
    certificates = Certificates(secret.files, 10.0)
    mismatched(secret)
    looked(certificates, NOW, NOW)
    secret.put(CERT, AUTHORITY)
    assert looked(certificates) == []  # it is the one in use
    mismatched(secret)
    assert [line["event"] for line in looked(certificates, NOW, NOW)] == ["certificate_not_reloaded"]


def test_one_that_is_not_valid_yet_is_taken_when_its_time_comes(secret: Secret) -> None:
    certificates = Certificates(secret.files, 10.0)
    secret.put(TO_COME, AUTHORITY)
    (line,) = looked(certificates, NOW, NOW)
    assert "not valid before" in line["why"]
    (line,) = looked(certificates, NOW + DAY)
    assert line["event"] == "certificate_reloaded"


def test_the_end_of_a_certificate_is_told_daily_from_a_sixth_of_its_life_on(secret: Secret) -> None:
    certificates = Certificates(secret.files, 10.0)  # lives 90 days
    end = certificates.current.expires_at
    hour = timedelta(hours=1)
    assert looked(certificates, end - 15 * DAY) == []
    told = looked(certificates, end - 14 * DAY, end - 14 * DAY + hour, end - 13 * DAY, end - hour, end)
    assert [line["event"] for line in told] == ["certificate_expires_soon"] * 3 + ["certificate_expired"]
    assert [line["log_level"] for line in told] == ["warning"] * 3 + ["error"]
    assert (told[0]["expires_at"], told[0]["file"]) == (end.isoformat(), str(secret.files.cert))
    # It stays in use, and nothing else is told of it.
    assert [line["event"] for line in looked(certificates, end + hour, end + DAY)] == ["certificate_expired"]
    assert certificates.current.pem.cert == chain_pem(CERT)


def test_a_renewed_certificate_ends_the_reminders(secret: Secret) -> None:
    certificates = Certificates(secret.files, 10.0)
    late = certificates.current.expires_at - DAY
    looked(certificates, late)
    secret.put(issued(NOW, NOW + 170 * DAY), AUTHORITY)
    told = looked(certificates, late, late + 2 * DAY)
    assert [line["event"] for line in told] == ["certificate_reloaded"]
