"""Bodies with images: forms, JSON and bare files, read into options and images."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.datastructures import QueryParams
from starlette.requests import Request

from service.errors import Violation
from service.web.body import BodyLimits, Held, PartEnd, PartHead, chunks, parts, whole
from service.web.problems import Problem, invalid

_MAX_VALUE_BYTES = 65_536
_MAX_VALUES = 1000
_THREAD_BYTES = 1_000_000  # JSON beyond this is parsed outside the event loop
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_BLANKS = b" \t\r\n"


@dataclass(frozen=True)
class Upload:
    """One image of a body.

    Attributes:
        field: name of the field it came in.
        file_name: empty where it has none.
        content: as it came: an encoded file, or base64 text.
    """

    field: str
    file_name: str
    content: bytes


@dataclass
class Form:
    """A body with images.

    Attributes:
        values: of the options, from the body and from the query.
        uploads: images, in order.
    """

    values: dict[str, list[str]] = field(default_factory=dict)
    uploads: list[Upload] = field(default_factory=list)

    def add(self, name: str, value: str) -> None:
        """One more value of an option; Problem 400 for what is not Unicode text, as half a surrogate pair."""
        try:
            value.encode()
            name.encode()
        except UnicodeEncodeError:
            shown = name.encode(errors="replace").decode()[:100]
            raise invalid(
                f"The field {shown} is not Unicode text.", [Violation(shown, "is not Unicode text")]
            ) from None
        self.values.setdefault(name, []).append(value)


async def read_form(request: Request, images: Collection[str], limits: BodyLimits, held: Held) -> Form:
    """Read a body in any of the forms that are accepted.

    Args:
        request: with its body unread.
        images: names of the fields that hold images; a bare file is taken as the first of them.
        limits: of the body.
        held: counts its bytes.

    Raises:
        Problem: 400 or 415 for a body that cannot be read.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    form = Form(query_values(request.query_params))
    if kind == "multipart/form-data":
        await _multipart(request, content_type, images, form, limits, held)
    elif kind == "application/json" or kind.endswith("+json"):
        _json(await parsed_object(await whole(request, limits, held)), images, form)
    elif kind == "application/x-www-form-urlencoded":
        _urlencoded(await whole(request, limits, held), images, form)
    elif kind.startswith("image/") or kind in ("application/octet-stream", ""):
        form.uploads.append(Upload(next(iter(images)), "", await whole(request, limits, held)))
    else:
        raise unsupported(kind, "multipart/form-data, application/json, or image/jpeg with the bare image")
    return form


def query_values(query: QueryParams) -> dict[str, list[str]]:
    """Options in the query of the address."""
    values: dict[str, list[str]] = {}
    for name, value in query.multi_items():
        values.setdefault(name, []).append(value)
    return values


def unsupported(kind: str, good: str) -> Problem:
    """A content-type that a call does not take."""
    return Problem(
        415,
        "CONTENT_TYPE_UNSUPPORTED",
        f"The content-type {kind[:100] or '(none)'} is not accepted here: send {good}.",
        code="INVALID_ARGUMENT",
    )


def image_of(upload: Upload, path: str) -> bytes:
    """The encoded file of an image, which may have come as base64 text, with `data:` in front or without.

    Args:
        upload: the image.
        path: name of the field for the error.
    """
    content = upload.content
    if not content.isascii():
        return content  # no image format is plain ASCII, and base64 always is
    text = content.translate(None, _BLANKS)
    if text.startswith(b"data:"):
        head, comma, text = text.partition(b",")
        if not comma or not head.lower().endswith(b";base64"):
            raise _no_base64(path, "a data: URI must look like data:image/jpeg;base64,…")
    elif not text or not _BASE64.fullmatch(text):
        return content  # for the gateway to refuse in its own words
    text = text.translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise _no_base64(path, "is neither an image file nor complete base64") from None


def _no_base64(path: str, description: str) -> Problem:
    return invalid(f"{path}: {description}.", [Violation(path, description)], reason="IMAGE_UNDECODABLE")


async def _multipart(
    request: Request,
    content_type: str,
    images: Collection[str],
    form: Form,
    limits: BodyLimits,
    held: Held,
) -> None:
    head: PartHead | None = None
    pieces: list[bytes] = []
    size = 0
    async for event in parts(chunks(request, limits), content_type):
        if isinstance(event, PartHead):
            head, pieces, size = event, [], 0
        elif isinstance(event, PartEnd):
            assert head is not None  # noqa: S101 - a part has its head first
            content = b"".join(pieces)
            if head.name in images:
                form.uploads.append(Upload(head.name, head.file_name, content))
            else:
                form.add(head.name, _text(content, head.name))
        else:
            held.add(len(event))
            size += len(event)
            if head is not None and head.name not in images and size > _MAX_VALUE_BYTES:
                raise invalid(
                    f"The field {head.name[:100]} has more than {_MAX_VALUE_BYTES} bytes; images are "
                    f"expected in {' or '.join(images)}.",
                    [Violation(head.name[:100], f"has more than {_MAX_VALUE_BYTES} bytes")],
                )
            pieces.append(event)


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        description = "is not UTF-8 text"
        raise invalid(
            f"The field {name[:100]} {description}.", [Violation(name[:100], description)]
        ) from None


def _json(body: dict[str, object], images: Collection[str], form: Form) -> None:
    count = sum(len(value) if isinstance(value, list) else 1 for value in body.values())
    if count > _MAX_VALUES:
        description = f"has {count} values, at most {_MAX_VALUES} are allowed"
        raise invalid(f"The body {description}.", [Violation("body", description)])
    for name, value in body.items():
        for one in value if isinstance(value, list) else [value]:
            if one is None:
                continue
            if isinstance(one, dict | list):
                raise invalid(
                    f"{name[:100]} must be text, a number, true or false, or a list of those.",
                    [Violation(name[:100], "must be text, a number, true or false, or a list of those")],
                )
            text = one if isinstance(one, str) else json.dumps(one)
            if name in images:
                form.uploads.append(Upload(name, "", text.encode(errors="replace")))
            else:
                form.add(name, text)


def json_object(body: bytes) -> dict[str, object]:
    """A JSON object; Problem 400 for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"The body is not JSON: {error}."[:300], reason="JSON_UNREADABLE") from error
    if not isinstance(value, dict):
        raise invalid("The body must be a JSON object.", reason="JSON_UNREADABLE")
    return value


async def parsed_object(body: bytes) -> dict[str, object]:
    """A JSON object, a large one parsed in a thread; Problem 400 for anything else."""
    return json_object(body) if len(body) <= _THREAD_BYTES else await asyncio.to_thread(json_object, body)


def _urlencoded(body: bytes, images: Collection[str], form: Form) -> None:
    if not body.isascii():
        raise unsupported(
            "application/x-www-form-urlencoded",
            "a bare image with its own type, as in curl -H 'content-type: image/jpeg' --data-binary @FILE",
        )
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_VALUES)
    except ValueError as error:
        raise invalid(f"The form cannot be read: {error}.", reason="FORM_UNREADABLE") from error
    for name, value in pairs:
        if name in images:
            # A + of base64 that was not escaped has become a blank.
            form.uploads.append(Upload(name, "", value.strip().replace(" ", "+").encode(errors="replace")))
        else:
            form.add(name, value)


def only_image(form: Form, field_name: str, urls: Mapping[str, str]) -> tuple[bytes | None, str]:
    """The one image of a call: its file, or the URI in the field `image_url`.

    Args:
        form: the body.
        field_name: of the image, for errors.
        urls: name of the field with an address: its value; empty values count as missing.
    """
    given = [name for name, value in urls.items() if value]
    count = len(form.uploads) + len(given)
    if count != 1:
        names = " or ".join([field_name, *urls])
        description = "is missing" if not count else f"must be there once, not {count} times"
        raise invalid(f"The image {description}: send {names}.", [Violation(field_name, description)])
    if given:
        return None, urls[given[0]]
    return image_of(form.uploads[0], field_name), ""
