"""Checks the bounds of a request on its bytes, before anything is parsed.

`(max_bytes)` and `(max_items)` in the protos bound every string and every repeated field of a request. They
are checked on the wire format: a parsed message can take twenty times the memory of its bytes, and every
function behind the parser may then rely on bounded texts and lists. The contents of `bytes` fields are
skipped, whatever their length: images and chunks have limits of their own.

Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from posegate.v1 import bounds_pb2
from service.errors import Violation

MAX_ELEMENTS = 1_000_000
"""Most fields in one request, those of nested messages included, but for the fields of points."""

_MAX_VIOLATIONS = 100
_VARINT, _FIXED64, _LENGTH, _GROUP, _END_GROUP, _FIXED32 = range(6)
_FLOATS = frozenset((FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32))
_ONE_BYTE = 0x80  # a varint below it is one byte long

_Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class _Field:
    """One field of a request.

    Attributes:
        name: in the contract.
        repeated: whether it is.
        max_bytes, max_items: its bounds; 0 for none.
        message: bounds of its message type; None for a scalar, or where nothing below is bounded.
        singular: a message that may come once only. Protobuf merges repetitions, and so would add up what
            is bounded below.
        run: matches many elements at once where each is a message of nothing but 32-bit numbers.
        element: matches one of those.
    """

    name: str
    repeated: bool
    max_bytes: int
    max_items: int
    message: _Message | None
    singular: bool
    run: re.Pattern[bytes] | None
    element: re.Pattern[bytes] | None


@dataclass(frozen=True)
class _Message:
    """The length-delimited fields of one message type by number; empty where nothing is bounded."""

    fields: dict[int, _Field] = field(default_factory=dict)


@dataclass
class _Findings:
    at_once: int | None
    elements: int = 0
    violations: list[Violation] = field(default_factory=list)
    stopped: bool = False

    def add(self, path: str, problem: str, *, stop: bool = False) -> None:
        self.violations.append(Violation(path, problem))
        self.stopped = stop or len(self.violations) >= _MAX_VIOLATIONS


class TooManyElements(Exception):
    """There are more elements than are to be checked at once."""


class _Malformed(Exception):
    """The bytes are not the wire format; the parser then raises its own error."""


def out_of_bounds(content: bytes, descriptor: Descriptor, at_once: int | None = None) -> list[Violation]:
    """The fields of a serialised request that are beyond their bounds; empty if all are within.

    Strings are all checked. The check ends with the first list that is too long: its cost is bounded by the
    bounds, not by the length of `content`.

    Args:
        content: the bytes.
        descriptor: of the request.
        at_once: elements that may be checked; a thousand take a millisecond. None for any number.

    Raises:
        TooManyElements: there are more.
    """
    findings = _Findings(at_once)
    try:
        _scan(content, (0, len(content)), _message(descriptor), "", findings)
    except (_Malformed, IndexError):
        return []
    return findings.violations


def _scan(content: bytes, where: _Range, message: _Message, path: str, findings: _Findings) -> None:
    at, end = where
    fields = message.fields
    counts: dict[int, int] = {}
    while at < end and not findings.stopped:
        begin = at
        key = content[at]
        at += 1
        if key >= _ONE_BYTE:
            key, at = _varint(content, begin)
        number, wire_type = key >> 3, key & 7
        findings.elements += 1
        if findings.at_once is not None and findings.elements > findings.at_once:
            raise TooManyElements
        if findings.elements > MAX_ELEMENTS:
            findings.add(path or "request", f"has more than {MAX_ELEMENTS} elements in all", stop=True)
            return
        if wire_type != _LENGTH:
            at = _skip(content, at, wire_type)
            continue
        known = fields.get(number)
        if known is not None and known.run is not None and known.element is not None:
            many = known.run.match(content, begin, end)
            if many is not None:
                count = len(known.element.findall(content, begin, many.end()))
                at = many.end()
                findings.elements += count - 1
                counts[number] = counts.get(number, 0) + count
                _check_count(known, counts[number], path, findings)
                continue
        size = content[at]
        at += 1
        if size >= _ONE_BYTE:
            size, at = _varint(content, at - 1)
        after = at + size
        if after > end:
            raise _Malformed
        if known is not None:
            count = counts[number] = counts.get(number, 0) + 1
            _check_field(content, (at, after), known, count, path, findings)
        at = after
    if at > end:
        raise _Malformed


def _check_field(
    content: bytes, where: _Range, known: _Field, count: int, path: str, findings: _Findings
) -> None:
    if known.singular and count > 1:
        findings.add(f"{path}{known.name}", "may be there once only", stop=True)
        return
    _check_count(known, count, path, findings)
    size = where[1] - where[0]
    if known.max_bytes and size > known.max_bytes:
        place = f"{path}{known.name}[{count - 1}]" if known.repeated else f"{path}{known.name}"
        findings.add(place, f"must be at most {known.max_bytes} bytes, not {size}")
    if known.message is not None and not findings.stopped:
        place = f"{path}{known.name}[{count - 1}]." if known.repeated else f"{path}{known.name}."
        _scan(content, where, known.message, place, findings)


def _check_count(known: _Field, count: int, path: str, findings: _Findings) -> None:
    if known.max_items and count > known.max_items:
        findings.add(f"{path}{known.name}", f"must have at most {known.max_items} elements", stop=True)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _ONE_BYTE:
            return value, at
        shift += 7
    raise _Malformed


def _skip(content: bytes, at: int, wire_type: int) -> int:
    """Position after a value that is not length-delimited. The fields of a group count as the message's."""
    if wire_type == _VARINT:
        return _varint(content, at)[1]
    if wire_type == _FIXED64:
        return at + 8
    if wire_type == _FIXED32:
        return at + 4
    if wire_type in (_GROUP, _END_GROUP):
        return at
    raise _Malformed


@cache
def _message(descriptor: Descriptor) -> _Message:
    message = _Message()
    for one in descriptor.fields:
        known = _field(one)
        if known is not None:
            message.fields[one.number] = known
    return message


def _field(one: FieldDescriptor) -> _Field | None:
    options = one.GetOptions().Extensions
    max_bytes, max_items = options[bounds_pb2.max_bytes], options[bounds_pb2.max_items]
    message = None
    if one.message_type is not None:
        below = _message(one.message_type)
        message = below if below.fields else None
    if not (max_bytes or max_items or message):
        return None
    run = element = None
    if one.is_repeated and one.message_type is not None and message is None and one.number < 16:
        run, element = _points(one, one.message_type, max_items)
    return _Field(
        name=one.name,
        repeated=one.is_repeated,
        max_bytes=max_bytes,
        max_items=max_items,
        message=message,
        singular=message is not None and not one.is_repeated,
        run=run,
        element=element,
    )


def _points(
    one: FieldDescriptor, point: Descriptor, max_items: int
) -> tuple[re.Pattern[bytes] | None, re.Pattern[bytes] | None]:
    """Patterns of a run of elements and of one element, as every protobuf library writes them: zeros are left
    out, so that an element of n numbers is 0, 5, … or 5n bytes long."""
    parts = point.fields
    if len(parts) > 8 or any(part.type not in _FLOATS or part.is_repeated for part in parts):
        return None, None
    key = re.escape(bytes([one.number << 3 | _LENGTH]))
    lengths = b"|".join(
        re.escape(bytes([5 * count])) + b".{%d}" % (5 * count) for count in range(len(parts), -1, -1)
    )
    element = key + b"(?:" + lengths + b")"
    run = b"(?:%s){1,%d}" % (element, max_items + 1)
    return re.compile(run, re.DOTALL), re.compile(element, re.DOTALL)
