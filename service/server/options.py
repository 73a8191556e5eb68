"""Options of the gateway's gRPC servers."""

from __future__ import annotations

from service.settings import Settings

NO_COMPRESSION = ("grpc.compression_enabled_algorithms_bitset", 1)
"""Only uncompressed messages are accepted: a compressed one could expand a thousand times before its size is
known, and images and videos are compressed already."""

_KEEPALIVE_MS = 60_000
_GRPC_WINDOW_BYTES = 4 << 20  # of a stream, without options


def connection_options(settings: Settings) -> list[tuple[str, int]]:
    """Options of the connections of a server."""
    return [
        ("grpc.so_reuseport", 0),  # a second gateway on the address must fail, not share it
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A caller whose machine is gone holds nothing for long.
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS // 3),
        ("grpc.max_concurrent_streams", 8 * (settings.max_in_flight + settings.max_streams)),
        ("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.max_connection_age_grace_s * 1000)),
        *_window_options(settings.stream_window_bytes),
    ]


def _window_options(size: int) -> list[tuple[str, int]]:
    """A fixed window of streams, where it is not to be that of gRPC, which grows."""
    if size >= _GRPC_WINDOW_BYTES:
        return []
    return [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", size)]
