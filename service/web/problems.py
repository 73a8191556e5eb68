"""Errors of the HTTP door: RFC 9457 problem documents, and how gRPC statuses become them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from service.errors import Violation

MEDIA_TYPE = "application/problem+json"
_DETAILS = "grpc-status-details-bin"

# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto, "HTTP Mapping".
HTTP_STATUS: Mapping[str, int] = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}

# What gRPC itself says names addresses and sockets: callers read this instead.
_OWN_WORDS = {
    "UNAVAILABLE": ("GATEWAY_UNAVAILABLE", "The gateway cannot be reached: try again.", 1.0),
    "DEADLINE_EXCEEDED": ("DEADLINE_EXCEEDED", "The answer took longer than is allowed.", None),
    "RESOURCE_EXHAUSTED": ("MESSAGE_TOO_LARGE", "Request or answer is too large for one message.", None),
    "UNIMPLEMENTED": ("UNIMPLEMENTED", "The gateway does not know this call.", None),
    "UNAUTHENTICATED": ("UNAUTHENTICATED", "A valid key is needed.", None),
    "PERMISSION_DENIED": ("PERMISSION_DENIED", "The gateway does not allow this.", None),
}


class Problem(Exception):
    """An error that the caller reads as a problem document.

    Attributes:
        status: HTTP status.
        reason: UPPER_SNAKE, stable, for machines; the gateway's own where the error is the gateway's.
        detail: a sentence that says what to change.
        code: canonical gRPC code; empty for errors of HTTP alone.
        violations: every wrong field.
        metadata: variables of the detail.
        retry_after_s: when another try can help, None when it cannot.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        *,
        code: str = "",
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.code = code
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})

    def document(self, request_id: str) -> dict[str, Any]:
        """The problem document. Members without content are left out."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": title(self.status),
            "status": self.status,
            "detail": self.detail,
            "reason": self.reason,
        }
        if self.code:
            document["code"] = self.code
        if self.violations:
            document["errors"] = [{"field": one.field, "detail": one.description} for one in self.violations]
        if self.metadata:
            document["metadata"] = self.metadata
        if self.retry_after_s is not None:
            document["retry_after_s"] = self.retry_after_s
        document["request_id"] = request_id
        return document

    def all_headers(self) -> dict[str, str]:
        """Headers that go with the document."""
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["www-authenticate"] = 'Bearer realm="posegate"'
        return headers

    def body(self, request_id: str) -> bytes:
        """The document, encoded."""
        return json.dumps(self.document(request_id), ensure_ascii=False).encode()

    def renamed(self, names: Mapping[str, str]) -> Problem:
        """The same with the fields of the contract under the names that they have in HTTP."""
        if not self.violations or not names:
            return self
        violations = [replace(one, field=_renamed(one.field, names)) for one in self.violations]
        return Problem(
            self.status,
            self.reason,
            self.detail,
            code=self.code,
            violations=violations,
            metadata=self.metadata,
            retry_after_s=self.retry_after_s,
            headers=self.headers,
        )


def title(status: int) -> str:
    """The phrase of an HTTP status."""
    return "Client Closed Request" if status == 499 else HTTPStatus(status).phrase


def invalid(detail: str, violations: Sequence[Violation] = (), *, reason: str = "INVALID_REQUEST") -> Problem:
    """A problem that the caller has to change the request for."""
    return Problem(400, reason, detail, code="INVALID_ARGUMENT", violations=violations)


@dataclass(frozen=True)
class _Details:
    reason: str = ""
    metadata: Mapping[str, str] | None = None
    violations: tuple[Violation, ...] = ()
    retry_after_s: float | None = None


def from_status(status: status_pb2.Status, *, headers: Mapping[str, str] | None = None) -> Problem:
    """The problem of a `google.rpc.Status`, such as an item of a batch has."""
    try:
        code = code_pb2.Code.Name(status.code)
    except ValueError:
        code = "UNKNOWN"
    details = _details(status)
    reason, detail, retry_after_s = details.reason, status.message, details.retry_after_s
    if not reason:
        reason, detail, retry_after_s = _OWN_WORDS.get(code, (code, _plain(code), None))
        retry_after_s = details.retry_after_s or retry_after_s
    if retry_after_s is None and reason == "QUOTA_EXCEEDED":
        retry_after_s = _until_reset(details.metadata or {}, headers or {})
    return Problem(
        HTTP_STATUS.get(code, 500),
        reason,
        detail,
        code=code,
        violations=details.violations,
        metadata=details.metadata,
        retry_after_s=retry_after_s,
        headers=headers,
    )


def from_rpc(error: grpc.aio.AioRpcError) -> Problem:
    """The problem of a call that failed."""
    trailing = dict(error.trailing_metadata() or ())
    headers = quota_headers(trailing)
    packed = trailing.get(_DETAILS)
    status = status_pb2.Status()
    if isinstance(packed, bytes):
        try:
            status = status_pb2.Status.FromString(packed)
        except DecodeError:
            status = status_pb2.Status()
    code = error.code().name
    if not status.code or code_pb2.Code.Name(status.code) != code:
        status = status_pb2.Status(code=code_pb2.Code.Value(code), message=error.details() or "")
    return from_status(status, headers=headers)


def quota_headers(metadata: Mapping[str, str | bytes]) -> dict[str, str]:
    """What the gateway says of the caller's quota, as headers."""
    return {
        key: value
        for key, value in metadata.items()
        if key.startswith("ratelimit-") and isinstance(value, str) and value.isprintable()
    }


def _details(status: status_pb2.Status) -> _Details:
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    found = _Details()
    for detail in status.details:
        try:
            if detail.Unpack(info):
                found = replace(found, reason=info.reason, metadata=dict(info.metadata))
            elif detail.Unpack(bad):
                violations = tuple(Violation(one.field, one.description) for one in bad.field_violations)
                found = replace(found, violations=violations)
            elif detail.Unpack(retry):
                delay = retry.retry_delay
                found = replace(found, retry_after_s=delay.seconds + delay.nanos / 1e9)
        except DecodeError:
            continue
    return found


def _until_reset(metadata: Mapping[str, str], headers: Mapping[str, str]) -> float | None:
    """Seconds until a quota of a period starts anew; None for a quota without a period, as of templates."""
    text = metadata.get("reset_time")
    if text is None:
        return None
    seconds = headers.get("ratelimit-reset", "")
    if seconds.isascii() and seconds.isdecimal():
        return float(seconds)
    try:
        reset = datetime.fromisoformat(text)
    except ValueError:
        return None
    reset = reset if reset.tzinfo else reset.replace(tzinfo=UTC)
    return max(0.0, float(round((reset - datetime.now(UTC)).total_seconds())))


def _plain(code: str) -> str:
    return "internal error" if code in ("INTERNAL", "UNKNOWN") else f"The gateway refused: {code}."


def _renamed(field: str, names: Mapping[str, str]) -> str:
    """`skeleton` is `template` and `overlay.format` is `format`, where the names say so."""
    for name, here in names.items():
        inside = name.endswith(".") and field.startswith(name)
        if inside or field == name or field.startswith((f"{name}[", f"{name}.")):
            return here + field[len(name) :]
    return field
