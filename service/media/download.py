"""Download: images by https, from the hosts that the operator allows and from no others."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial

import httpx

from service.errors import ImageTooLarge, InvalidRequest, NotAllowed, PosegateError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last four bytes
_UNICAST = ipaddress.ip_network("2000::/3")  # RFC 4291, 2.4: what is assigned to the public of IPv6
# What `ipaddress` of some Python versions takes as public: 192.0.0.0/24 (RFC 6890), where clouds serve
# metadata, the relays of 6to4 (RFC 7526) and documentation (RFC 9637).
_LOCAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))
_HTTPS_PORT = 443
_RESOLVERS = 8  # names that are looked up at once
_CONNECT_SHARE = 0.9  # of the time that is left


@dataclass(frozen=True)
class DownloadPolicy:
    """Where images may be fetched from.

    Attributes:
        hosts: allowed ones, lower case, as `host` or `host:port`; empty: none.
        private_addresses: whether they may have private, loopback, link-local and other local addresses.
    """

    hosts: frozenset[str] = field(default_factory=frozenset)
    private_addresses: bool = False


async def fetch(
    uri: str,
    *,
    policy: DownloadPolicy,
    max_bytes: int,
    timeout_s: float,
    tls: ssl.SSLContext | None = None,
) -> bytes:
    """The bytes at an https URI. Redirects are not followed, and proxies of the environment are ignored.

    Args:
        uri: without user name or password.
        policy: which hosts and addresses are allowed.
        max_bytes: more is refused, and not read.
        timeout_s: one deadline for the look-up of the name, the connection, headers and body.
        tls: trusted certificates; the system's by default.

    Raises:
        NotAllowed: the host is not allowed, or none is, or its address is not public.
        InvalidRequest: not an https URI, or the host did not give an image in time.
        ImageTooLarge: more than `max_bytes`.
    """
    if not policy.hosts:
        raise NotAllowed("This service fetches no images: send the bytes in image.content.", reason="URI_OFF")
    url, place = _parsed(uri)
    if place not in policy.hosts:
        raise NotAllowed(
            f"Host '{place}' is not allowed. Allowed: {', '.join(sorted(policy.hosts))}.",
            reason="URI_HOST_NOT_ALLOWED",
            metadata={"host": place},
        )
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            addresses = await _addresses(url, place, policy)
            if tls is None:
                tls = await asyncio.to_thread(_trust, ssl.get_default_verify_paths())
            return await _download(url, addresses, max_bytes, tls, deadline)
    except PosegateError:
        raise
    except _Status as error:
        raise _not_fetched(place, f"status {error.code}") from error
    except (TimeoutError, httpx.TimeoutException) as error:
        raise _not_fetched(place, f"no answer within {timeout_s:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise _not_fetched(place, type(error).__name__) from error


class _Status(Exception):
    """The host answered with a status other than 200."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _not_fetched(place: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The image could not be fetched from '{place}' ({why}).",
        reason="URI_NOT_FETCHED",
        metadata={"host": place},
    )


def _parsed(uri: str) -> tuple[httpx.URL, str]:
    """The URI, and its host as an allow-list names it."""
    url: httpx.URL | None = None
    if uri.isascii() and uri.isprintable() and " " not in uri and "\\" not in uri:
        try:
            url = httpx.URL(uri)
        except (httpx.InvalidURL, ValueError):
            url = None
    if url is None or url.scheme != "https" or not url.host or url.userinfo:
        raise InvalidRequest(
            "image.uri must be an https URI without user name or password.", reason="URI_INVALID"
        )
    host = url.host.lower()
    return url, host if url.port in (None, _HTTPS_PORT) else f"{host}:{url.port}"


async def _addresses(url: httpx.URL, place: str, policy: DownloadPolicy) -> list[str]:
    """Addresses of the host, every one of them checked. The connection goes to one of these and the name is
    not looked up again, or its owner could answer with another address the second time."""
    look_up = partial(socket.getaddrinfo, url.host, url.port or _HTTPS_PORT, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_resolvers(), look_up)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not policy.private_addresses and not all(map(is_public, addresses)):
        raise NotAllowed(
            f"Host '{place}' has an address that is not public: the operator has to allow those.",
            reason="URI_ADDRESS_NOT_ALLOWED",
            metadata={"host": place},
        )
    return addresses


def is_public(address: str) -> bool:
    """Whether an address is one of the public Internet: not private, loopback, link-local, multicast or
    reserved, nor an IPv6 address that leads to such an IPv4 address."""
    parsed: _Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        embedded = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo[1] if parsed.teredo else None)
        if embedded is None and parsed in _NAT64:
            embedded = ipaddress.IPv4Address(parsed.packed[-4:])
        if embedded is not None:
            return _is_global(embedded)
    return _is_global(parsed)


def _is_global(address: _Address) -> bool:
    if any(address in network for network in _LOCAL):
        return False
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


@cache
def _resolvers() -> ThreadPoolExecutor:
    """Threads for looking up names. A resolver that does not answer keeps a thread for long after the caller
    has got an error, and must not keep one that others need."""
    return ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="names")


@cache
def _trust(_paths: ssl.DefaultVerifyPaths) -> ssl.SSLContext:
    """The system's trust, loaded once for the places where OpenSSL looks for it, which SSL_CERT_FILE and
    SSL_CERT_DIR move: loading takes tens of milliseconds."""
    return ssl.create_default_context()


async def _download(
    url: httpx.URL, addresses: list[str], max_bytes: int, tls: ssl.SSLContext, deadline: asyncio.Timeout
) -> bytes:
    """The body, from the first of the addresses that accepts a connection."""
    # The deadline around it all bounds reading. A connection is given up a little before: httpcore leaves the
    # socket open where a handshake is cancelled, and closes it where one times out.
    left_s = max((deadline.when() or 0.0) - asyncio.get_running_loop().time(), 0.0)
    timeout = httpx.Timeout(None, connect=_CONNECT_SHARE * left_s)
    async with httpx.AsyncClient(
        verify=tls, trust_env=False, follow_redirects=False, timeout=timeout
    ) as client:
        for address in addresses[:-1]:
            try:
                return await _get(client, url, address, max_bytes)
            except httpx.ConnectError:
                continue
        return await _get(client, url, addresses[-1], max_bytes)


async def _get(client: httpx.AsyncClient, url: httpx.URL, address: str, max_bytes: int) -> bytes:
    """The body from one address. Name in the request and in the certificate stay those of the URI."""
    request = client.build_request(
        "GET",
        url.copy_with(host=address, fragment=None),
        headers={"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"},
        extensions={"sni_hostname": url.host},
    )
    answer = await client.send(request, stream=True)
    try:
        if answer.status_code != httpx.codes.OK:
            raise _Status(answer.status_code)
        content = bytearray()
        async for part in answer.aiter_raw():
            content += part
            if len(content) > max_bytes:
                raise ImageTooLarge(
                    f"The image has more than {max_bytes} bytes.",
                    metadata={"limit_bytes": str(max_bytes)},
                )
        return bytes(content)
    finally:
        await answer.aclose()
