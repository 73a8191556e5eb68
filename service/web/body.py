"""Request bodies while they stream in: limits, pauses, and the parts of a multipart form."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.web.middleware import CallerGone
from service.web.problems import Problem, invalid

_MAX_PARTS = 1000
_MAX_PART_HEADERS = 16


@dataclass
class InFlight:
    """Bytes of the bodies that the door holds.

    Attributes:
        most: at once; one body alone is always let in.
    """

    most: int
    held: int = 0


@dataclass(frozen=True)
class BodyLimits:
    """What is allowed of one body.

    Attributes:
        max_bytes: of it.
        idle_s: without a byte.
        total_s: from the first byte to the last; None: no limit.
    """

    max_bytes: int
    idle_s: float
    total_s: float | None = None


async def chunks(request: Request, limits: BodyLimits) -> AsyncIterator[bytes]:
    """The bytes of a body as they come. A slow reader slows the caller down.

    Raises:
        Problem: 413 for too many, 408 for a pause or a whole that takes too long.
        CallerGone: the caller left.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.max_bytes:
        raise _too_large(limits.max_bytes)
    received = 0
    now = asyncio.get_running_loop().time
    end = now() + limits.total_s if limits.total_s is not None else math.inf
    while True:
        try:
            async with asyncio.timeout(max(0.0, min(limits.idle_s, end - now()))):
                message = await request.receive()
        except TimeoutError:
            if limits.total_s is not None and now() >= end:
                raise too_slow(limits.total_s) from None
            raise Problem(
                408,
                "UPLOAD_IDLE",
                f"No byte of the body came for {limits.idle_s:g} s.",
                code="DEADLINE_EXCEEDED",
                headers={"connection": "close"},
            ) from None
        if message["type"] == "http.disconnect":
            raise CallerGone
        chunk = message.get("body", b"")
        received += len(chunk)
        if received > limits.max_bytes:
            raise _too_large(limits.max_bytes)
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


def too_slow(total_s: float) -> Problem:
    """The problem of a body, or of the fields before a video, that took too long as a whole."""
    return Problem(
        408,
        "UPLOAD_TOO_SLOW",
        f"The body did not arrive within {total_s:g} s.",
        code="DEADLINE_EXCEEDED",
        headers={"connection": "close"},
    )


class Held:
    """The bodies of one call, counted in `InFlight` until the call is over."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._mine = 0

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._in_flight.held -= self._mine
        self._mine = 0

    def add(self, size: int) -> None:
        """Count bytes; Problem 429 where the door holds too many already."""
        flight = self._in_flight
        if flight.held > self._mine and flight.held + size > flight.most:
            raise Problem(
                429,
                "TOO_MANY_BYTES_IN_FLIGHT",
                "The calls at work hold as many bytes as are allowed: try again.",
                code="RESOURCE_EXHAUSTED",
                metadata={"limit_bytes": str(flight.most)},
                retry_after_s=0.5,
            )
        flight.held += size
        self._mine += size


async def whole(request: Request, limits: BodyLimits, held: Held) -> bytes:
    """The body as one piece."""
    pieces = []
    async for chunk in chunks(request, limits):
        held.add(len(chunk))
        pieces.append(chunk)
    return b"".join(pieces)


@dataclass(frozen=True)
class PartHead:
    """The start of a part of a multipart form.

    Attributes:
        name: of the field.
        file_name: empty where the part has none.
        media_type: as the caller says; empty where the caller does not.
    """

    name: str
    file_name: str
    media_type: str


@dataclass(frozen=True)
class PartEnd:
    """The end of a part."""


Event = PartHead | bytes | PartEnd


def boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart form; Problem 400 where there is none."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise invalid(
            "The content-type multipart/form-data lacks its boundary: let the HTTP library set the header.",
            reason="FORM_UNREADABLE",
        )
    return bytes(boundary)


async def parts(body: AsyncIterator[bytes], content_type: str) -> AsyncIterator[Event]:
    """The parts of a form as they come: a head, its bytes, its end; nothing is kept.

    Raises:
        Problem: 400 for what is not a form, or ends too soon.
    """
    events = _Events()
    try:
        parser = MultipartParser(
            boundary_of(content_type), events.callbacks(), max_header_count=_MAX_PART_HEADERS
        )
        async for chunk in body:
            parser.write(chunk)
            for event in events.taken():
                yield event
        parser.finalize()
    except (MultipartParseError, UnicodeDecodeError) as error:
        raise invalid(f"The body is not a multipart form: {error}.", reason="FORM_UNREADABLE") from error
    if not events.complete:
        raise invalid("The multipart form ends before its last boundary.", reason="FORM_UNREADABLE")


class _Events:
    """Gathers what the parser calls back."""

    def __init__(self) -> None:
        self.complete = False
        self._events: list[Event] = []
        self._parts = 0
        self._headers: dict[bytes, bytes] = {}
        self._name = b""
        self._value = b""

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _part_begin(self) -> None:
        self._parts += 1
        self._headers = {}
        if self._parts > _MAX_PARTS:
            raise invalid(f"The form has more than {_MAX_PARTS} parts.", reason="FORM_UNREADABLE")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name")
        if name is None:
            raise invalid("A part of the form has no name.", reason="FORM_UNREADABLE")
        file_name = options.get(b"filename", b"")
        media_type, _ = parse_options_header(self._headers.get(b"content-type"))
        self._events.append(
            PartHead(name.decode(), file_name.decode(errors="replace"), media_type.decode("latin-1"))
        )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(data if start == 0 and end == len(data) else data[start:end])

    def _part_end(self) -> None:
        self._events.append(PartEnd())

    def _end(self) -> None:
        self.complete = True


def _too_large(limit: int) -> Problem:
    return Problem(
        413,
        "BODY_TOO_LARGE",
        f"The body has more than {limit} bytes, which are allowed.",
        code="INVALID_ARGUMENT",
        metadata={"limit_bytes": str(limit)},
    )
