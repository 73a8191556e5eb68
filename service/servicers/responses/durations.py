"""Times as `google.protobuf.Duration`."""

from __future__ import annotations

from google.protobuf import duration_pb2

_NANOS = 1_000_000_000


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a Duration, to the nanosecond."""
    return duration_of_ns(round(seconds * _NANOS))


def duration_of_ns(nanoseconds: int) -> duration_pb2.Duration:
    """Nanoseconds as a Duration; exact."""
    whole, rest = divmod(abs(nanoseconds), _NANOS)
    sign = -1 if nanoseconds < 0 else 1  # of both fields, by the definition of Duration
    return duration_pb2.Duration(seconds=sign * whole, nanos=sign * rest)
