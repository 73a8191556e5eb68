"""Fields of protobuf messages as JSON values, for what answers with a whole message of limits or a quota."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def seconds(duration: Duration) -> float:
    """A duration in seconds."""
    return round(duration.seconds + duration.nanos / 1e9, 6)


def plain_fields(message: Message) -> dict[str, Any]:
    """Every field of a message without messages of its own: by its name, durations in seconds, times as
    RFC 3339; None where a field with presence is not set."""
    given = {field.name for field, _ in message.ListFields()}
    return {
        field.name: None
        if field.has_presence and field.name not in given
        else _plain(getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Duration):
        return seconds(value)
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    return value if isinstance(value, bool | int | float | str) else list(value)
