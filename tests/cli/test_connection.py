"""What whoever calls the gateway reads when TLS and plaintext, names or certificates do not fit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from typer.testing import CliRunner

from service.cli.connection import Target
from service.cli.health import health
from service.cli.main import app
from service.server.tls import BadCertificate
from tests.secrets import Secret, chain_pem, key_pem

AUTHORITY, ANOTHER = trustme.CA(), trustme.CA()
CERT = AUTHORITY.issue_cert("localhost")
NOW = datetime.now(UTC)
EXPIRED = AUTHORITY.issue_cert("localhost", not_after=NOW - timedelta(days=1))
TO_COME = AUTHORITY.issue_cert("localhost", not_before=NOW + timedelta(days=1))


@asynccontextmanager
async def gateway(cert: trustme.LeafCert | None = CERT, *, mutual: bool = False) -> AsyncIterator[str]:
    """The address of one that serves health; with a certificate, over TLS."""
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), server)
    if cert is None:
        port = server.add_insecure_port("localhost:0")
    else:
        credentials = grpc.ssl_server_credentials(
            [(key_pem(cert), chain_pem(cert))], AUTHORITY.cert_pem.bytes(), require_client_auth=mutual
        )
        port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(None)


@pytest.fixture
def own(tmp_path: Path) -> Secret:
    """The caller's certificate, and the authority that signed the gateway's."""
    secret = Secret(tmp_path / "own")
    secret.put(AUTHORITY.issue_cert("caller"), AUTHORITY)
    return secret


def mutual(address: str, secret: Secret) -> Target:
    return Target(
        address, tls_ca=secret.files.client_ca, tls_cert=secret.files.cert, tls_key=secret.files.key
    )


async def test_the_authority_and_a_certificate_of_ones_own_open_the_door(own: Secret) -> None:
    async with gateway() as address:
        assert await health(Target(address, tls_ca=own.files.client_ca)) == "SERVING"
        assert await health(mutual(address, own)) == "SERVING"
    async with gateway(mutual=True) as address:
        assert await health(mutual(address, own)) == "SERVING"


async def test_tls_alone_trusts_the_authorities_of_this_machine(
    own: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway() as address:
        told = await health(Target(address, tls=True))
        assert told == (
            "UNAVAILABLE: the gateway's certificate is not signed by an authority that this machine trusts:"
            " give --tls-ca the certificate of the one that signed it"
        )
        monkeypatch.setenv("SSL_CERT_FILE", str(own.files.client_ca))
        assert await health(Target(address, tls=True)) == "SERVING"


async def test_an_authority_that_did_not_sign_is_told(own: Secret) -> None:
    own.put(CERT, ANOTHER)
    file = own.files.client_ca
    async with gateway() as address:
        told = await health(Target(address, tls_ca=file))
    assert told == (
        f"UNAVAILABLE: the gateway's certificate is not signed by an authority that {file} holds:"
        " give --tls-ca the certificate of the one that signed it"
    )


async def test_a_name_that_the_certificate_does_not_hold_is_told(own: Secret) -> None:
    async with gateway() as address:
        other = address.replace("localhost", "127.0.0.1")
        told = await health(Target(other, tls_ca=own.files.client_ca))
    assert told == (
        f"UNAVAILABLE: the gateway's certificate does not hold the name in {other}:"
        " give --address a name that it holds"
    )


@pytest.mark.parametrize(
    ("cert", "why"),
    [(EXPIRED, "has expired: renew it"), (TO_COME, "is not valid yet: check the clocks")],
    ids=["expired", "to come"],
)
async def test_a_certificate_whose_time_it_is_not_is_told(
    own: Secret, cert: trustme.LeafCert, why: str
) -> None:
    async with gateway(cert) as address:
        told = await health(Target(address, tls_ca=own.files.client_ca))
    assert told == f"UNAVAILABLE: the gateway's certificate {why}"


async def test_plaintext_to_a_gateway_that_speaks_tls_is_told() -> None:
    async with gateway() as address:
        told = await health(Target(address))
    assert told.startswith(
        f"UNAVAILABLE: {address} hung up: if it speaks TLS, give --tls-ca FILE, or --tls ("
    )


async def test_tls_to_a_gateway_that_does_not_speak_it_is_told(own: Secret) -> None:
    async with gateway(None) as address:
        told = await health(Target(address, tls_ca=own.files.client_ca))
    assert (
        told
        == f"UNAVAILABLE: {address} speaks no TLS: call it without --tls, --tls-ca, --tls-cert and --tls-key"
    )


async def test_a_gateway_that_asks_for_a_certificate_is_told(own: Secret) -> None:
    async with gateway(mutual=True) as address:
        told = await health(Target(address, tls_ca=own.files.client_ca))
        assert told.startswith(
            f"UNAVAILABLE: {address} hung up: if it asks for a certificate, give --tls-cert and --tls-key ("
        )
        own.put(ANOTHER.issue_cert("caller"), AUTHORITY)
        told = await health(mutual(address, own))
        assert told.startswith(
            f"UNAVAILABLE: {address} hung up: it may not trust the authority that signed {own.files.cert},"
        )


async def test_a_gateway_that_is_not_there_is_no_matter_of_tls(own: Secret) -> None:
    for target in (Target("127.0.0.1:1"), mutual("127.0.0.1:1", own)):
        told = await health(target)
        assert told.startswith(
            "UNAVAILABLE: no gateway answers at 127.0.0.1:1: start one with `posegate up`, or name another"
            " with --address HOST:PORT."
        )
        assert "refused" in told
        assert "--tls" not in told
        assert "proxy" not in told


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tls_key": None}, "--tls-cert needs --tls-key as well"),
        ({"tls_cert": None}, "--tls-key needs --tls-cert as well"),
        ({"tls_ca": Path("/nowhere/ca.crt")}, r"cannot read the certificates /nowhere/ca.crt: No such file"),
        (
            {"tls_cert": Path("/nowhere/tls.crt")},
            r"cannot read the certificate /nowhere/tls.crt: No such file",
        ),
    ],
    ids=["no key", "no certificate", "no such authority", "no such certificate"],
)
def test_files_that_cannot_be_used_are_told_before_anything_is_sent(
    own: Secret, changes: dict[str, Any], why: str
) -> None:
    files: dict[str, Any] = {
        "tls_ca": own.files.client_ca,
        "tls_cert": own.files.cert,
        "tls_key": own.files.key,
    }
    given = {**files, **changes}
    with pytest.raises(BadCertificate, match=why):
        Target("127.0.0.1:1", **given).connect()
    options = [
        text for name, file in given.items() if file for text in (f"--{name.replace('_', '-')}", str(file))
    ]
    ended = CliRunner().invoke(app, ["health", *options])
    assert ended.exit_code == 1
    assert ended.stderr.startswith("posegate: ")
    assert len(ended.stderr.splitlines()) == 1


async def test_a_proxy_that_the_call_goes_through_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    told = await health(Target("posegate.invalid:50051"))
    assert told.startswith("UNAVAILABLE: no gateway answers at posegate.invalid:50051: ")
    assert (
        "The call goes through the proxy in http_proxy: name the host in no_proxy to call it directly."
        in told
    )


def test_without_a_key_the_option_is_named() -> None:
    no = grpc.aio.Metadata()
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAUTHENTICATED, no, no, "An API key is needed.")
    assert "--key" in Target("127.0.0.1:1").explain(error)
    assert "--key" not in Target("127.0.0.1:1", api_key="pg_wrong").explain(error)
