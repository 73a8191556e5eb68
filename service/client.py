"""Channel to Posegate with retries and keep-alive. Small on purpose: other services copy it.

Proxies: gRPC takes the HTTP proxy that `grpc_proxy`, `https_proxy` or `http_proxy` names for every address
that `no_grpc_proxy` or `no_proxy` does not list. A loopback address is never called through one; a gateway
within the cluster belongs into `no_proxy`.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from typing import Any

import grpc

# Both are sent before any work is done; how long to wait comes with the answer.
_RETRY_ON = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")


_UPLOADS = ("AnalyzeVideo", "StreamPoses")


def _service_config(retry_on: Sequence[str], *, retry_uploads: bool) -> dict[str, Any]:
    # An entry with a method goes before one with its service alone; this one has no policy of retries.
    without = [{"name": [{"service": "posegate.v1.PoseService", "method": name} for name in _UPLOADS]}]
    return {
        # Behind a headless Service every gateway pod gets its share.
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [
                    {"service": "posegate.v1.PoseService"},
                    {"service": "posegate.v1.SkeletonService"},
                    {"service": "posegate.v1.AccountService"},
                ],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": list(retry_on),
                },
            },
            *([] if retry_uploads else without),
        ],
    }


def connect(
    address: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    api_key: str = "",
    max_message_bytes: int = 256 << 20,
    retry_on: Sequence[str] = _RETRY_ON,
    retry_uploads: bool = True,
) -> grpc.aio.Channel:
    """A channel that retries, takes large messages and notices dead connections.

    Args:
        address: host:port, or dns:///name:port for round robin over the pods of a headless Service.
        credentials: of grpc.ssl_channel_credentials, for TLS; None: plaintext.
        api_key: sent with every call; empty for none. It is a secret: give credentials too, unless the
            network is encrypted otherwise.
        max_message_bytes: of one message, either way.
        retry_on: names of the status codes on which a call is tried again.
        retry_uploads: whether that holds for AnalyzeVideo and StreamPoses too, whose messages, up to 64 MiB,
            are then kept until the gateway has answered.
    """
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(_service_config(retry_on, retry_uploads=retry_uploads))),
        # By default gRPC keeps no more than 256 KiB for a retry: an image would not be retried.
        ("grpc.per_rpc_retry_buffer_size", 64 << 20),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # Without these the wait between two attempts to connect grows to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    if is_loopback(address):
        options.append(("grpc.enable_http_proxy", 0))
    interceptors = sending(api_key) if api_key else None
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)


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
