"""Channel to Posegate with retries and keep-alive. Small on purpose: other services copy it.

A unary call with a timeout waits for a connection and is tried again until that timeout, one without for
`PATIENCE_S`: longer than a restart of the gateway or of Triton takes. gRPC's own retries cannot do that, they
are five attempts at most, and end soon where the gateway says how long to pause; uploads have them.

Proxies: gRPC takes the HTTP proxy that `grpc_proxy`, `https_proxy` or `http_proxy` names for every address
that `no_grpc_proxy` or `no_proxy` does not list. A loopback address is never called through one; a gateway
within the cluster belongs into `no_proxy`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import random
import time
from collections.abc import Sequence
from typing import Any

import grpc

# Both are sent before any work is done; how long to wait comes with the answer.
_RETRY_ON = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")


PATIENCE_S = 20.0
"""A call without a timeout is tried again for so long."""

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_ANSWER_S = 1.0  # kept for an answer, at most: an attempt may have waited long for a gateway that restarts

_UPLOADS = ("AnalyzeVideo", "StreamPoses")


def _service_config(retry_on: Sequence[str], *, retry_uploads: bool) -> dict[str, Any]:
    uploads = {
        "name": [{"service": "posegate.v1.PoseService", "method": name} for name in _UPLOADS],
        "retryPolicy": {
            "maxAttempts": 5,
            "initialBackoff": "1.5s",
            "maxBackoff": "10s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": list(retry_on),
        },
    }
    return {
        # Behind a headless Service every gateway pod gets its share.
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [uploads] if retry_uploads else [],
    }


def connect(
    address: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    api_key: str = "",
    max_message_bytes: int = 256 << 20,
    retry_on: Sequence[str] = _RETRY_ON,
    retry_uploads: bool = True,
    first_contact_s: float | None = None,
) -> grpc.aio.Channel:
    """A channel that retries, takes large messages and notices dead connections.

    Args:
        address: host:port, or dns:///name:port for round robin over the pods of a headless Service.
        credentials: of grpc.ssl_channel_credentials, for TLS; None: plaintext.
        api_key: sent with every call; empty for none. It is a secret: give credentials too, unless the
            network is encrypted otherwise.
        max_message_bytes: of one message, either way.
        retry_on: names of the status codes on which a call is tried again.
        retry_uploads: whether AnalyzeVideo and StreamPoses are tried again on those codes too, up to four
            times; their messages, up to 64 MiB, are then kept until the gateway has answered.
        first_contact_s: how long unary calls try a gateway that has never answered on this channel, for
            commands whose user may have mistyped the address; None: until their timeout.
    """
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(_service_config(retry_on, retry_uploads=retry_uploads))),
        # By default gRPC keeps no more than 256 KiB for a retry: an image would not be retried.
        ("grpc.per_rpc_retry_buffer_size", 64 << 20),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # Without these the wait between two attempts to connect grows to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # One attempt to connect: 20 s otherwise, in which a gateway that has come back is not noticed.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    if is_loopback(address):
        options.append(("grpc.enable_http_proxy", 0))
    interceptors = [_Retries(retry_on, first_contact_s), *(sending(api_key) if api_key else ())]
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)


class _Retries(grpc.aio.UnaryUnaryClientInterceptor):
    """Tries a unary call again on some codes until its time is over.

    Args:
        retry_on: names of the codes.
        first_contact_s: how long to try a gateway that has never answered; None: as any other.
    """

    def __init__(self, retry_on: Sequence[str], first_contact_s: float | None) -> None:
        self._codes = frozenset(grpc.StatusCode[name] for name in retry_on)
        self._first_contact_s = first_contact_s

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        if b"/posegate.v1." not in details.method:
            return await continuation(details, request)
        start, timeout_s = time.monotonic(), details.timeout
        end = start + (PATIENCE_S if timeout_s is None else timeout_s)
        pause_s = _FIRST_PAUSE_S
        while True:
            if timeout_s is not None and self._first_contact_s is None and details.wait_for_ready is None:
                details = details._replace(wait_for_ready=True)
            attempted = time.monotonic()
            call = await continuation(details, request)
            try:
                code = await call.code()
            except asyncio.CancelledError:  # the caller cancels: grpc.aio ends this interceptor only
                call.cancel()
                raise
            # A gateway that stops cancels what it has not begun.
            if code not in self._codes | {grpc.StatusCode.CANCELLED}:
                self._first_contact_s = None
                return call
            trailing = await call.trailing_metadata()
            if any(key == "x-request-id" for key, _ in trailing or ()):
                self._first_contact_s = None
            # Whether to try again, not how long an attempt may take: one that is cut short says nothing.
            tried_until = end if self._first_contact_s is None else min(end, start + self._first_contact_s)
            asked_s = _pushback_s(trailing)
            # Jitter spreads callers that were refused at the same moment.
            wait_s = random.uniform(0.5, 1.0) * pause_s + (asked_s or 0)  # noqa: S311 - no secret
            # An attempt with no time for an answer would put DEADLINE_EXCEEDED in place of the reason.
            now = time.monotonic()
            latest = tried_until - min(now - attempted, _ANSWER_S)
            if (asked_s is not None and asked_s < 0) or now + wait_s >= latest:
                return call
            await asyncio.sleep(wait_s)
            if time.monotonic() >= latest:  # the machine was busy, and the pause longer than it should be
                return call
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            if timeout_s is not None:
                details = details._replace(timeout=end - time.monotonic())


def _pushback_s(trailing: Any) -> float | None:
    """How long the gateway asks to wait; negative: no retry helps; None where it does not say."""
    for key, value in trailing or ():
        if key == "grpc-retry-pushback-ms":
            try:
                return int(value) / 1000
            except ValueError:
                return None
    return None


def lost_its_status(error: grpc.aio.AioRpcError) -> bool:
    """Whether the error took the place of the gateway's own: a message that is on its way while the gateway
    ends the call may do that, see https://github.com/grpc/grpc/issues/36066. The gateway's errors always have
    trailing metadata."""
    return error.code() is grpc.StatusCode.INTERNAL and not error.trailing_metadata()


async def refusal_of(method: Any, first: Any, *, timeout_s: float) -> grpc.aio.AioRpcError | None:
    """Why the gateway refuses an upload, to be asked after an error that lost its status: the first message
    is sent again and nothing after it, so that the status cannot be lost. It counts no call.

    Args:
        method: AnalyzeVideo or StreamPoses of a stub.
        first: the message with the config.
        timeout_s: for the answer.

    Returns:
        The error; None where the gateway refuses neither the caller nor the config.
    """
    call = method(timeout=timeout_s)
    try:
        await call.write(first)
        await call.done_writing()
        await call.read()
        code = await call.code()
    except asyncio.InvalidStateError:  # it is over already
        code = await call.code()
    except grpc.aio.AioRpcError as error:
        return None if lost_its_status(error) or _lacks_only_the_video(error.trailing_metadata()) else error
    finally:
        call.cancel()
    trailing = await call.trailing_metadata()
    if code in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED) or _lacks_only_the_video(trailing):
        return None
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, await call.details())


def _lacks_only_the_video(trailing: Any) -> bool:
    return any(
        key == "grpc-status-details-bin" and b"VIDEO_UNDECODABLE" in value for key, value in trailing or ()
    )


class _Key:
    """Adds an API key to the metadata of calls."""

    def __init__(self, api_key: str) -> None:
        self._header = ("authorization", f"Bearer {api_key}")

    def _with_key(self, details: Any) -> Any:
        return details._replace(metadata=grpc.aio.Metadata(*(details.metadata or ()), self._header))


# One class for each kind of call: grpc.aio takes an object for the first kind only that it is of.
class _UnaryUnary(_Key, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(self._with_key(details), request)


class _UnaryStream(_Key, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(self._with_key(details), request)


class _StreamUnary(_Key, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(self._with_key(details), requests)


class _StreamStream(_Key, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(self._with_key(details), requests)


def sending(api_key: str) -> Sequence[grpc.aio.ClientInterceptor]:
    """Interceptors of a channel that send an API key with every call."""
    return [kind(api_key) for kind in (_UnaryUnary, _UnaryStream, _StreamUnary, _StreamStream)]


def is_loopback(address: str) -> bool:
    """Whether a gRPC address is on this host: localhost, 127.0.0.0/8, ::1 or a Unix socket."""
    scheme, colon, rest = address.partition(":")
    if colon and scheme in ("unix", "unix-abstract"):
        return True
    if colon and scheme in ("dns", "ipv4", "ipv6"):
        address = rest.rpartition("/")[2]
    host = address.partition("]")[0][1:] if address.startswith("[") else address.rpartition(":")[0] or address
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
