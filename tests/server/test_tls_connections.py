"""The gateway's two addresses: TLS and mutual TLS on the one, plaintext health on the other."""

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from posegate.v1.skeleton_service_pb2 import ListSkeletonsRequest
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from scripts.ports import free_port
from service.client import connect
from service.server.app import CannotListen, Gateway, build_gateway
from service.server.tls import BadCertificate
from service.settings import Settings
from tests.fakes import FakeTriton, candidate, listening, rows, until
from tests.pictures import jpeg
from tests.running import detect_request, failure
from tests.secrets import Secret, chain_pem, key_pem

ROOT = Path(__file__).parents[2]
VGA = jpeg((640, 480))
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

AUTHORITY, ANOTHER = trustme.CA(), trustme.CA()
CERT, RENEWED = AUTHORITY.issue_cert("localhost"), ANOTHER.issue_cert("localhost")
CALLER, STRANGER = AUTHORITY.issue_cert("caller"), ANOTHER.issue_cert("caller")


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    secret = Secret(tmp_path / "tls")
    secret.put(CERT, AUTHORITY)
    return secret


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return {
        "listen": "localhost:0",
        "health_listen": "127.0.0.1:0",
        "database_url": f"sqlite:///{tmp_path}/posegate.db",
        "workers": 2,
        "max_inferences": 4,
        "health_interval_s": 0.05,
        "tls_reload_s": 0.02,
        "drain_delay_s": 0.0,
        "drain_grace_s": 60.0,
    }


def tls(secret: Secret, *, mutual: bool = False) -> dict[str, Any]:
    files = secret.files
    return {
        "tls_cert": files.cert,
        "tls_key": files.key,
        "tls_client_ca": files.client_ca if mutual else None,
    }


@asynccontextmanager
async def up(settings: dict[str, Any], triton: FakeTriton | None = None) -> AsyncIterator[Gateway]:
    triton = triton or FakeTriton(answer=rows(candidate((100, 50, 200, 350), 0.9)))
    async with (
        listening(triton) as port,
        build_gateway(Settings(**settings, triton_url=f"127.0.0.1:{port}")) as running,
    ):
        async with plain(running.health_port) as channel:
            await becomes(channel, SERVING)
        yield running


def plain(port: int | None) -> grpc.aio.Channel:
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(f"localhost:{port}", options=options)


def trusting(
    authority: trustme.CA, gateway: Gateway, caller: trustme.LeafCert | None = None
) -> grpc.aio.Channel:
    """A new connection of somebody who trusts this authority, and shows this certificate."""
    own = () if caller is None else (key_pem(caller), chain_pem(caller))
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), *own)
    return grpc.aio.secure_channel(f"localhost:{gateway.port}", credentials, options=options)


def health_of(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


async def status(channel: grpc.aio.Channel, service: str = "") -> int:
    answer = await health_of(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
    return int(answer.status)


async def becomes(channel: grpc.aio.Channel, wanted: int) -> None:
    async with asyncio.timeout(120):
        while await status(channel) != wanted:  # noqa: ASYNC110 - it is another side's state
            await asyncio.sleep(0.01)


async def persons(channel: grpc.aio.Channel) -> int:
    answer = await PoseServiceStub(channel).DetectPoses(detect_request(VGA), timeout=60)
    return len(answer.persons)


async def refused(channel: grpc.aio.Channel) -> str:
    """Why a call does not even reach the gateway."""
    async with channel:
        failed = await failure(PoseServiceStub(channel).GetServerInfo(pb.GetServerInfoRequest(), timeout=60))
    assert failed.code is grpc.StatusCode.UNAVAILABLE
    return failed.message


# --- TLS ----------------------------------------------------------------------------------------------


async def test_with_a_certificate_the_gateway_speaks_tls_and_nothing_else(
    settings: dict[str, Any], secret: Secret
) -> None:
    async with up({**settings, **tls(secret)}) as running:
        async with trusting(AUTHORITY, running) as channel:
            assert await persons(channel) == 1
            assert await status(channel, "posegate.v1.PoseService") == SERVING
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(trusting(ANOTHER, running))
        await refused(plain(running.port))


async def test_the_channel_that_callers_should_open_speaks_tls(
    settings: dict[str, Any], secret: Secret
) -> None:
    async with up({**settings, **tls(secret)}) as running:
        credentials = grpc.ssl_channel_credentials(AUTHORITY.cert_pem.bytes())
        async with connect(f"localhost:{running.port}", credentials=credentials) as channel:
            assert await persons(channel) == 1


async def test_mutual_tls_admits_certificates_of_the_authority_and_no_others(
    settings: dict[str, Any], secret: Secret
) -> None:
    async with up({**settings, **tls(secret, mutual=True)}) as running:
        async with trusting(AUTHORITY, running, CALLER) as channel:
            assert await persons(channel) == 1
        await refused(trusting(AUTHORITY, running))
        await refused(trusting(AUTHORITY, running, STRANGER))
        await refused(plain(running.port))


def serial(port: int) -> int:
    """Of the certificate that a new connection sees."""
    pem = ssl.get_server_certificate(("localhost", port), timeout=30)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def serial_of(cert: trustme.LeafCert) -> int:
    return x509.load_pem_x509_certificate(chain_pem(cert)).serial_number


async def test_a_renewed_certificate_is_shown_to_new_connections_and_open_ones_go_on(
    settings: dict[str, Any], secret: Secret
) -> None:
    triton = FakeTriton(answer=rows(candidate((100, 50, 200, 350), 0.9)))
    async with (
        up({**settings, **tls(secret, mutual=True)}, triton) as running,
        trusting(AUTHORITY, running, CALLER) as before,
    ):
        assert await persons(before) == 1
        assert await asyncio.to_thread(serial, running.port) == serial_of(CERT)
        triton.gate.clear()
        at_work = asyncio.create_task(persons(before))
        await until(lambda: len(triton.requests) > 2)
        with capture_logs() as logs:
            secret.put(RENEWED, ANOTHER)
            await until(lambda: any(line["event"] == "certificate_reloaded" for line in logs))
        assert await asyncio.to_thread(serial, running.port) == serial_of(RENEWED)
        async with trusting(ANOTHER, running, STRANGER) as after:
            info = await PoseServiceStub(after).GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
            assert info.version
        await refused(trusting(AUTHORITY, running, CALLER))
        await refused(trusting(ANOTHER, running, CALLER))  # the old authority's callers are out as well
        triton.gate.set()
        assert await at_work == 1
        assert await persons(before) == 1


async def test_a_new_pair_that_does_not_fit_leaves_the_old_one_at_work(
    settings: dict[str, Any], secret: Secret
) -> None:
    async with up({**settings, **tls(secret)}) as running:
        with capture_logs() as logs:
            secret.write(chain_pem(RENEWED), key_pem(CERT), ANOTHER.cert_pem.bytes())
            await until(lambda: any(line["event"] == "certificate_not_reloaded" for line in logs))
            async with trusting(AUTHORITY, running) as channel:
                assert await persons(channel) == 1
        assert await asyncio.to_thread(serial, running.port) == serial_of(CERT)


async def test_a_certificate_that_ends_while_it_is_in_use_is_told_and_served_on(
    settings: dict[str, Any], secret: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        late = timedelta(days=2)

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - cls.late

    now = datetime.now(UTC)
    old = AUTHORITY.issue_cert("localhost", not_before=now - timedelta(90), not_after=now - timedelta(1))
    secret.put(old, AUTHORITY)
    monkeypatch.setattr("service.server.tls.datetime", Clock)
    with capture_logs() as logs:
        async with up({**settings, **tls(secret)}) as running:
            Clock.late = timedelta()
            await until(lambda: any(line["event"] == "certificate_expired" for line in logs))
            assert await asyncio.to_thread(serial, running.port) == serial_of(old)
            assert "certificate has expired" in await refused(trusting(AUTHORITY, running))


@pytest.mark.parametrize(
    ("cert", "key", "why"),
    [
        (chain_pem(RENEWED), key_pem(CERT), "does not belong"),
        (b"", key_pem(CERT), "holds no certificate"),
    ],
    ids=["mismatch", "empty"],
)
async def test_it_does_not_start_with_a_certificate_that_cannot_be_used(
    settings: dict[str, Any], secret: Secret, cert: bytes, key: bytes, why: str
) -> None:
    secret.write(cert, key, AUTHORITY.cert_pem.bytes())
    with pytest.raises(BadCertificate, match=why):
        async with build_gateway(Settings(**settings, **tls(secret))):
            pass


# --- the health port ----------------------------------------------------------------------------------


@pytest.mark.parametrize("secured", [False, True], ids=["beside plaintext", "beside TLS"])
async def test_the_health_port_says_in_plaintext_what_the_gateway_says(
    settings: dict[str, Any], secret: Secret, secured: bool
) -> None:
    triton = FakeTriton()
    async with (
        up({**settings, **(tls(secret) if secured else {})}, triton) as running,
        plain(running.health_port) as channel,
    ):
        for name in ("", "posegate.v1.PoseService", "posegate.v1.SkeletonService", "liveness"):
            assert await status(channel, name) == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await status(channel, "nobody")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        watching = health_of(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert (await watching.read()).status == SERVING
        triton.control_refusal = (grpc.StatusCode.UNAVAILABLE, "Socket closed")
        assert (await watching.read()).status == NOT_SERVING
        assert await status(channel, "liveness") == SERVING
        watching.cancel()


async def test_the_health_port_serves_nothing_else(settings: dict[str, Any]) -> None:
    async with up(settings) as running, plain(running.health_port) as channel:
        for call in (
            PoseServiceStub(channel).GetServerInfo(pb.GetServerInfoRequest(), timeout=30),
            SkeletonServiceStub(channel).ListSkeletons(ListSkeletonsRequest(), timeout=30),
        ):
            assert (await failure(call)).code is grpc.StatusCode.UNIMPLEMENTED
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        asking = reflection.ServerReflectionInfo(timeout=30)
        with suppress(grpc.aio.AioRpcError):  # it may be refused before the request is sent
            await asking.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert await asking.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_without_an_address_there_is_no_health_port(settings: dict[str, Any]) -> None:
    async with build_gateway(
        Settings(**{**settings, "health_listen": ""}, triton_url="127.0.0.1:1")
    ) as running:
        assert running.health_port is None


async def test_the_health_port_says_not_serving_until_the_last_call_is_done(
    settings: dict[str, Any],
) -> None:
    triton = FakeTriton()
    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def run() -> None:
        async with up(settings, triton) as running:
            started.set_result(running)
            await stop.wait()

    task = asyncio.create_task(run())
    running: Gateway = await started
    async with plain(running.port) as channel, plain(running.health_port) as probe:
        watching = health_of(probe).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert (await watching.read()).status == SERVING
        triton.gate.clear()
        at_work = asyncio.create_task(persons(channel))
        await until(lambda: len(triton.requests) > 1)
        stop.set()
        assert (await watching.read()).status == NOT_SERVING
        await refused_soon(running)
        async with plain(running.health_port) as newcomer:
            assert await status(newcomer) == NOT_SERVING
        assert not at_work.done()
        triton.gate.set()
        await at_work
        async with asyncio.timeout(30):  # of 60 s: whoever watches does not hold it up
            await task
        with pytest.raises(grpc.aio.AioRpcError):
            await status(probe)


async def refused_soon(running: Gateway) -> None:
    """Wait until the main address turns newcomers away."""
    async with asyncio.timeout(120):
        while True:
            async with plain(running.port) as newcomer:
                try:
                    await status(newcomer)
                except grpc.aio.AioRpcError:
                    return
            await asyncio.sleep(0.02)


async def test_a_health_address_in_use_is_refused_with_a_plain_sentence(settings: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotListen, match=f"cannot listen on {address}: it is in use"):
            async with build_gateway(Settings(**{**settings, "health_listen": address})):
                pass


# --- callers at a terminal ----------------------------------------------------------------------------


async def posegate(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", *arguments, cwd=ROOT, env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 300)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_commands_speak_mutual_tls_when_the_environment_says_so(
    settings: dict[str, Any], secret: Secret, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(VGA)
    own = Secret(tmp_path / "own")
    own.put(CALLER, AUTHORITY)
    async with up({**settings, **tls(secret, mutual=True)}) as running:
        address = f"localhost:{running.port}"
        code, out, err = await posegate(
            "detect", str(picture), "--address", address,
            POSEGATE_CA=str(own.files.client_ca),
            POSEGATE_CERT=str(own.files.cert),
            POSEGATE_KEY=str(own.files.key),
        )  # fmt: skip
        assert (code, err) == (0, "")
        assert out.startswith(f"{picture}: 1 person")
        # What is wrong is one line, and none of gRPC's own.
        code, out, err = await posegate("models", "list", "--address", address, "--tls")
        assert (code, out) == (1, "")
        (line,) = err.splitlines()
        assert line.startswith(
            "posegate: UNAVAILABLE: the gateway's certificate is not signed by an authority"
        )


# --- the process --------------------------------------------------------------------------------------


async def served(environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "serve", cwd=ROOT, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )  # fmt: skip


async def test_a_certificate_that_has_expired_ends_the_start_with_one_line(
    secret: Secret, tmp_path: Path
) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    secret.put(AUTHORITY.issue_cert("localhost", not_after=yesterday), AUTHORITY)
    process = await served(
        {
            "POSEGATE_HOME": str(tmp_path),
            "POSEGATE_LISTEN": "127.0.0.1:0",
            "POSEGATE_TLS_CERT": str(secret.files.cert),
            "POSEGATE_TLS_KEY": str(secret.files.key),
        }
    )
    _, told = await asyncio.wait_for(process.communicate(), 300)
    (line,) = told.decode().splitlines()
    assert line.startswith(f"posegate: the certificate {secret.files.cert} expired at {yesterday:%Y-%m-%d}")
    assert process.returncode == 1


async def test_failing_handshakes_do_not_fill_the_log(secret: Secret, tmp_path: Path) -> None:
    port = free_port()
    process = await served(
        {
            "POSEGATE_HOME": str(tmp_path),
            "POSEGATE_LISTEN": f"127.0.0.1:{port}",
            "POSEGATE_TRITON_URL": "127.0.0.1:1",
            "POSEGATE_TLS_CERT": str(secret.files.cert),
            "POSEGATE_TLS_KEY": str(secret.files.key),
        }
    )
    assert process.stderr is not None
    assert b"listening" in await asyncio.wait_for(process.stderr.readline(), 300)
    for _ in range(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await asyncio.wait_for(reader.read(), 30)  # it hangs up
        writer.close()
    process.terminate()
    _, told = await asyncio.wait_for(process.communicate(), 300)
    assert all(line.startswith("{") for line in told.decode().splitlines())
    assert process.returncode == 0
