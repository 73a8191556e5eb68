"""Message limits by method.

gRPC has one limit for all methods of a server, which images and chunks of videos need. A request without
either is refused from a much smaller size on.
"""

from __future__ import annotations

from functools import cache

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from posegate.v1 import types_pb2
from service.server.bounds import MAX_ELEMENTS

PERSONS_BYTES = 32 * MAX_ELEMENTS
"""Bytes of a request with persons but no image: a keypoint takes at most 17 bytes, a position 15, and there
are at most `MAX_ELEMENTS` of them."""

PLAIN_BYTES = 4 << 20
"""Bytes of every other request; the largest valid skeleton takes less than 3 MiB."""


def request_type_of(method: str) -> Descriptor | None:
    """The request message of a method, such as "/posegate.v1.PoseService/DetectPoses"; None where the
    contract has no such method."""
    name = method.removeprefix("/").replace("/", ".")
    try:
        request: Descriptor = descriptor_pool.Default().FindMethodByName(name).input_type
    except KeyError:
        return None
    return request


def max_request_bytes(request: Descriptor | None, max_message_bytes: int) -> int:
    """Bytes of one request message at most.

    Args:
        request: its type; None where it is not known.
        max_message_bytes: of a message with images or chunks of a video; the others never have more.
    """
    if request is None:
        return max_message_bytes
    kinds = _kinds(request)
    if FieldDescriptor.TYPE_BYTES in kinds:
        return max_message_bytes
    if types_pb2.Person.DESCRIPTOR.full_name in kinds:
        return min(PERSONS_BYTES, max_message_bytes)
    return min(PLAIN_BYTES, max_message_bytes)


@cache
def _kinds(message: Descriptor) -> frozenset[int | str]:
    """Scalar types and names of message types within a message type. The contract has no recursive one."""
    kinds: set[int | str] = set()
    for field in message.fields:
        if field.message_type is None:
            kinds.add(field.type)
        else:
            kinds |= {field.message_type.full_name, *_kinds(field.message_type)}
    return frozenset(kinds)
