"""Pictures by https, from hosts that the operator named and from no others."""

from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from http.client import HTTPException, HTTPResponse, IncompleteRead
from urllib.parse import urlsplit

from service.errors import ImageTooLarge, InvalidRequest, NotAllowed


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would lead to a host that nobody allowed."""

    def redirect_request(self, *_args: object) -> None:
        """Follow none: the answer then is the redirect's own status, an error."""


def fetch(
    uri: str,
    *,
    hosts: Collection[str],
    max_bytes: int,
    timeout_s: float,
    tls: ssl.SSLContext | None = None,
) -> bytes:
    """The bytes behind an https URI.

    Args:
        uri: without user name or password; redirects are not followed.
        hosts: allowed ones, lower case, as `host` or `host:port`.
        max_bytes: more is refused, and not read.
        timeout_s: of every wait for the other side, and of reading the picture altogether.
        tls: certificates to trust; the system's by default.

    Raises:
        NotAllowed: the host is not allowed, or none is.
        InvalidRequest: not an https URI, or the host did not give a picture.
        ImageTooLarge: more than `max_bytes`.
    """
    if not hosts:
        raise NotAllowed(
            "This service fetches no pictures: send the bytes in image.content.", reason="URI_OFF"
        )
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if parts.scheme != "https" or not host or parts.username or parts.password:
        raise InvalidRequest(
            "image.uri must be an https URI without user name or password.", reason="URI_INVALID"
        )
    place = host.lower() if port in (None, 443) else f"{host.lower()}:{port}"
    if place not in hosts:
        raise NotAllowed(
            f"Host '{place}' is not allowed. Allowed: {', '.join(sorted(hosts))}.",
            reason="URI_HOST_NOT_ALLOWED",
            metadata={"host": place},
        )
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=tls))
    deadline = time.monotonic() + timeout_s
    try:
        with opener.open(uri, timeout=timeout_s) as answer:
            content = _read(answer, max_bytes + 1, deadline)
    except (OSError, HTTPException, urllib.error.URLError, ValueError) as error:
        why = type(error).__name__
        if isinstance(error, urllib.error.HTTPError):
            why = f"status {error.code}"
            error.close()
        raise InvalidRequest(
            f"The picture could not be fetched from '{place}' ({why}).",
            reason="URI_NOT_FETCHED",
            metadata={"host": place},
        ) from error
    if len(content) > max_bytes:
        raise ImageTooLarge(
            f"The picture has more than {max_bytes} bytes.", metadata={"limit_bytes": str(max_bytes)}
        )
    return content


def _read(answer: HTTPResponse, most_bytes: int, deadline: float) -> bytes:
    """The body, or its first `most_bytes`. Piece by piece: `read` would wait for a host that sends a
    byte now and then for as long as it does."""
    declared = answer.length  # None where the host does not say
    content = bytearray()
    while len(content) < most_bytes and (part := answer.read1(min(1 << 16, most_bytes - len(content)))):
        content += part
        if time.monotonic() > deadline:
            raise TimeoutError
    if declared is not None and len(content) < min(declared, most_bytes):
        raise IncompleteRead(bytes(content), declared - len(content))
    return bytes(content)
