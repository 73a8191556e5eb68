"""Domain errors as `google.rpc.Status`, the form in which callers get them."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from service.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Overloaded,
    PosegateError,
    SkeletonNotSupplied,
    Unavailable,
    Unimplemented,
)

DOMAIN = "posegate"

# An error travels in HTTP/2 headers, of which gRPC's clients take 8 KiB by default: the message, in
# which each byte beyond ASCII counts three times, and the details, which hold the message again, in
# base64. Beyond that a caller would get nothing but "metadata too large".
_MESSAGE_BYTES = 600
_VIOLATIONS_BYTES = 2400
_VALUE_BYTES = 300

# Looked up along the error's ancestry, so a subclass needs no row of its own.
_CODES: dict[type[PosegateError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    SkeletonNotSupplied: grpc.StatusCode.FAILED_PRECONDITION,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
}


def internal_error(request_id: str) -> PosegateError:
    """What a caller is told of an error that is none of the domain's: nothing but where to look."""
    return PosegateError("internal error", reason="INTERNAL", metadata={"request_id": request_id})


def code_of(error: PosegateError) -> grpc.StatusCode:
    """The canonical code of an error."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return grpc.StatusCode.INTERNAL


def to_status(error: PosegateError, request_id: str) -> status_pb2.Status:
    """Code, message and details: ErrorInfo always, BadRequest and RetryInfo where they apply.

    Cut to what fits into headers; the last violation then says how many there are beyond.
    """
    metadata = {name: _cut(value, _VALUE_BYTES) for name, value in error.metadata.items()}
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if isinstance(error, InvalidRequest) and error.violations:
        details.append(error_details_pb2.BadRequest(field_violations=_violations(error)))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    code = code_pb2.Code.Value(code_of(error).name)
    return status_pb2.Status(code=code, message=_cut(error.message, _MESSAGE_BYTES), details=packed)


def _violations(error: InvalidRequest) -> list[error_details_pb2.BadRequest.FieldViolation]:
    listed: list[error_details_pb2.BadRequest.FieldViolation] = []
    room = _VIOLATIONS_BYTES
    for place, item in enumerate(error.violations):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(item.field, _VALUE_BYTES), description=_cut(item.description, _VALUE_BYTES)
        )
        room -= violation.ByteSize() + 4
        if room < 0:
            more = f"and {len(error.violations) - place} more violations"
            listed.append(error_details_pb2.BadRequest.FieldViolation(description=more))
            break
        listed.append(violation)
    return listed


def _cut(text: str, limit: int) -> str:
    """At most so many bytes of UTF-8."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode("utf-8", "ignore") + "…"
