"""Pictures by https: only from where the operator allows, and never for long."""

import asyncio
import gc
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.errors import ImageTooLarge, InvalidRequest, NotAllowed, PosegateError
from service.media.download import DownloadPolicy, fetch, is_public

CERTIFICATE = Path(__file__).with_name("localhost.pem")
CONTENT = bytes(range(256)) * 8


class Site(ThreadingHTTPServer):
    """An https site on this machine.

    Attributes:
        content: what is at /picture.
        asked: the paths that were asked for.
        gone: set when the test is over, so that slow answers end.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.content = CONTENT
        self.asked: list[str] = []
        self.gone = threading.Event()
        super().__init__(("127.0.0.1", 0), Page)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        # In the thread of the connection: one that never shakes hands would hold up the others and the end.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def host(self) -> str:
        return f"localhost:{self.server_address[1]}"

    def handle_error(self, *_args: Any) -> None:
        """A client that hangs up, as some of these tests do, is no news."""


class Page(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", f"https://{self.server.host}/picture")
            self.end_headers()
        elif self.path == "/slow-headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.server.gone.wait(0.05):
                self.wfile.write(b"X-A: b\r\n")
        elif self.path == "/silent":
            self.server.gone.wait(120)
        elif self.path == "/drip":
            self._begin(200, 1_000_000)
            while not self.server.gone.wait(0.05):
                self.wfile.write(b".")
                self.wfile.flush()
        elif self.path == "/short":
            self._begin(200, len(CONTENT) + 100)
            self.wfile.write(CONTENT)
        elif self.path == "/endless":
            self._begin(200, None)
            while not self.server.gone.is_set():
                self.wfile.write(bytes(65536))
        elif self.path == "/empty":
            self._begin(200, 0)
        elif self.path.startswith("/picture"):
            self._begin(200, len(self.server.content))
            self.wfile.write(self.server.content)
        else:
            self._begin(404, 0)

    def _begin(self, status: int, length: int | None) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        """Quiet."""


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield site
        site.gone.set()
        site.shutdown()
        thread.join()


TRUST = ssl.create_default_context(cafile=str(CERTIFICATE))
TRUST.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on


def local(*hosts: str) -> DownloadPolicy:
    """The hosts are allowed, with addresses of this machine."""
    return DownloadPolicy(frozenset(hosts), private_addresses=True)


async def get(site: Site, path: str, **changes: Any) -> bytes:
    options: dict[str, Any] = {
        "policy": local(site.host),
        "max_bytes": 10_000,
        "timeout_s": 30.0,
        "tls": TRUST,
        **changes,
    }
    return await fetch(f"https://{site.host}{path}", **options)


async def test_nothing_is_fetched_unless_the_operator_allows_a_host() -> None:
    with pytest.raises(NotAllowed, match=r"send the bytes in image\.content") as refused:
        await fetch("https://localhost/picture", policy=DownloadPolicy(), max_bytes=1, timeout_s=30)
    assert refused.value.reason == "URI_OFF"


async def test_an_allowed_host_gives_its_bytes(site: Site) -> None:
    assert await get(site, "/picture?size=1#top") == CONTENT
    assert site.asked == ["/picture?size=1"]


async def test_an_empty_answer_is_for_the_decoder_to_refuse(site: Site) -> None:
    assert await get(site, "/empty") == b""


async def test_the_case_of_scheme_and_host_does_not_matter(site: Site) -> None:
    uri = f"HTTPS://LocalHost:{site.server_address[1]}/picture"
    assert await fetch(uri, policy=local(site.host), max_bytes=10_000, timeout_s=30, tls=TRUST) == CONTENT


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "picture.jpg",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://HOST/picture",
        "ftp://HOST/picture",
        "data:image/png;base64,AAAA",
        "https://",
        "https:///picture",
        "https://HOST:99999/picture",
        "https://HOST:port/picture",
        "https://[::1/picture",
        "https://user@HOST/picture",
        "https://user:password@HOST/picture",
        "https://:password@HOST/picture",
        "//HOST/picture",
        " <https://HOST/picture>",
    ],
)
async def test_what_is_no_plain_https_uri_is_refused(site: Site, uri: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await fetch(
            uri.replace("HOST", site.host), policy=local(site.host, "localhost"), max_bytes=1, timeout_s=30
        )
    assert refused.value.reason == "URI_INVALID"
    assert "password@" not in refused.value.message
    assert site.asked == []


@pytest.mark.parametrize(
    "uri",
    [
        "https://elsewhere.example/picture",
        "https://localhost/picture",
        "https://localhost:1/picture",
        "https://127.0.0.1:PORT/picture",
        "https://localhost.elsewhere.example:PORT/picture",
        "https://elsewhere.example#@HOST/picture",
        "https://elsewhere.example?@HOST/picture",
        "https://[::1]:PORT/picture",
    ],
)
async def test_another_host_or_port_is_refused_and_the_allowed_ones_are_named(site: Site, uri: str) -> None:
    port = site.server_address[1]
    uri = uri.replace("HOST", site.host).replace("PORT", str(port))
    with pytest.raises(NotAllowed) as refused:
        await fetch(uri, policy=local(site.host), max_bytes=1, timeout_s=30, tls=TRUST)
    assert refused.value.reason == "URI_HOST_NOT_ALLOWED"
    assert site.host in refused.value.message
    assert site.asked == []


@pytest.mark.parametrize(
    "uri",
    [
        "https://HOST\\@elsewhere.example/picture",
        "https://elsewhere.example\\.HOST/picture",
        "https://HOST@elsewhere.example/picture",
        "https://HOST%2F@elsewhere.example/picture",
        "https://HOST%00.elsewhere.example/picture",
        "https://HO\tST/picture",
        "https://HOST\r\nHost: elsewhere.example/picture",
        "https://HOST/pic ture",
        "https://HOST/pictüre",
        "https://HOST /picture",
    ],
)
async def test_tricks_with_hosts_and_blanks_lead_to_a_refusal(site: Site, uri: str) -> None:
    with pytest.raises(PosegateError):
        await fetch(
            uri.replace("HOST", site.host), policy=local(site.host), max_bytes=9999, timeout_s=30, tls=TRUST
        )
    assert site.asked == []


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/redirect", "status 302"),
        ("/nothing", "status 404"),
        ("/short", "RemoteProtocolError"),
    ],
    ids=["redirect", "not there", "cut short"],
)
async def test_a_host_that_gives_no_picture_is_the_callers_to_mend(site: Site, path: str, why: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await get(site, path)
    assert refused.value.reason == "URI_NOT_FETCHED"
    assert why in refused.value.message
    assert refused.value.metadata == {"host": site.host}
    assert site.asked == [path]  # a redirect is not followed


async def test_a_certificate_of_an_unknown_authority_is_refused(site: Site) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await get(site, "/picture", tls=None)
    assert refused.value.reason == "URI_NOT_FETCHED"
    assert site.asked == []


async def test_a_host_without_a_listener_is_refused(site: Site) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await fetch("https://localhost:1/", policy=local("localhost:1"), max_bytes=1, timeout_s=30, tls=TRUST)
    assert refused.value.reason == "URI_NOT_FETCHED"


async def test_exactly_the_limit_is_accepted_and_a_byte_more_is_not(site: Site) -> None:
    assert await get(site, "/picture", max_bytes=len(CONTENT)) == CONTENT
    with pytest.raises(ImageTooLarge) as refused:
        await get(site, "/picture", max_bytes=len(CONTENT) - 1)
    assert refused.value.metadata["limit_bytes"] == str(len(CONTENT) - 1)


async def test_no_more_than_the_limit_is_read(site: Site) -> None:
    with pytest.raises(ImageTooLarge):
        await get(site, "/endless", max_bytes=100_000)


# Where the time is over at the moment at which the connection stands, asyncio leaves it to the garbage
# collector, which closes it and warns.
LEFT_TO_THE_COLLECTOR = pytest.mark.filterwarnings("ignore:unclosed (socket|transport):ResourceWarning")


@pytest.mark.parametrize("path", ["/silent", "/slow-headers", "/drip"])
@LEFT_TO_THE_COLLECTOR
async def test_a_slow_host_is_given_up_when_the_time_is_over(site: Site, path: str) -> None:
    started = time.monotonic()
    with pytest.raises(InvalidRequest) as refused:
        await get(site, path, timeout_s=0.4)
    assert refused.value.reason == "URI_NOT_FETCHED"
    assert time.monotonic() - started < 100  # of 120 s of silence
    del refused  # its traceback keeps the connection
    gc.collect()


@LEFT_TO_THE_COLLECTOR
async def test_the_deadline_counts_the_connection_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, and never shakes hands
        host = f"localhost:{mute.getsockname()[1]}"
        with pytest.raises(InvalidRequest, match="no answer within"):
            await fetch(f"https://{host}/", policy=local(host), max_bytes=1, timeout_s=0.3, tls=TRUST)
    gc.collect()


async def test_a_resolver_that_does_not_answer_keeps_no_thread_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = threading.Event()

    def mute(*_args: object, **_options: object) -> list[tuple[object, ...]]:
        answer.wait(30)
        return []

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", mute)
        try:
            fetching = [
                fetch("https://pictures/", policy=local("pictures"), max_bytes=1, timeout_s=0.2, tls=TRUST)
                for _ in range(40)  # more than any pool has
            ]
            errors = await asyncio.gather(*fetching, return_exceptions=True)
            assert await asyncio.to_thread(lambda: "free") == "free"
        finally:
            answer.set()
    assert {str(error).partition("(")[2] for error in errors} == {"no answer within 0.2 s)."}


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
async def test_proxies_of_the_environment_are_ignored(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await get(site, "/picture") == CONTENT


async def test_a_host_with_a_private_address_is_refused_unless_allowed(site: Site) -> None:
    with pytest.raises(NotAllowed) as refused:
        await get(site, "/picture", policy=DownloadPolicy(frozenset({site.host})))
    assert refused.value.reason == "URI_ADDRESS_NOT_ALLOWED"
    assert site.asked == []


def resolved(monkeypatch: pytest.MonkeyPatch, port: int, *addresses: str) -> None:
    """Every name has these addresses."""

    def answers(*_args: object, **_options: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answers)


async def test_one_private_address_among_public_ones_is_enough_to_refuse(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved(monkeypatch, site.server_address[1], "93.184.215.14", "127.0.0.1")
    with pytest.raises(NotAllowed) as refused:
        await get(site, "/picture", policy=DownloadPolicy(frozenset({site.host})))
    assert refused.value.reason == "URI_ADDRESS_NOT_ALLOWED"
    assert site.asked == []


async def test_the_next_address_is_tried_where_one_refuses_the_connection(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = socket.getaddrinfo
    port = site.server_address[1]

    def answers(host: str, *args: Any, **options: Any) -> Any:
        if host != "localhost":
            return looked_up(host, *args, **options)
        kinds = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kinds, (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    assert await get(site, "/picture") == CONTENT


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1", "100.64.0.1"),  # noqa: S104 - not bound to
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1"),
        *(
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
        ),
        *("192.0.0.192", "192.88.99.1", "fec0::1", "3fff::1", "64:ff9b:1::7f00:1", "::7f00:1"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:8.8.8.8"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)
