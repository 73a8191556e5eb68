"""Domain errors as `google.rpc.Status`: code, message and details of the contract."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from service.errors import (
    AlreadyExists,
    AnswerTooLarge,
    Conflict,
    DataLoss,
    DeadlineExceeded,
    InvalidRequest,
    MonthlyQuotaExceeded,
    NotAllowed,
    NotFound,
    Overloaded,
    PosegateError,
    QuotaExceeded,
    RateLimited,
    SkeletonNotSupplied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
)

DOMAIN = "posegate"

# A status travels in gRPC metadata of 8 KiB at most; this leaves room for its encoding and for the rest.
_VIOLATIONS_BYTES = 1800

# Looked up along the base classes of an error, so that a subclass needs no row.
_CODES: dict[type[PosegateError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    DataLoss: grpc.StatusCode.DATA_LOSS,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Conflict: grpc.StatusCode.ABORTED,
    QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    AnswerTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    SkeletonNotSupplied: grpc.StatusCode.FAILED_PRECONDITION,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
}


def code_of(error: PosegateError) -> grpc.StatusCode:
    """The canonical code of an error."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return grpc.StatusCode.INTERNAL


def to_status(error: PosegateError, request_id: str) -> status_pb2.Status:
    """Code, message and details: ErrorInfo always, the others where they apply."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if isinstance(error, InvalidRequest) and error.violations:
        details.append(_bad_request(error.violations))
    if isinstance(error, MonthlyQuotaExceeded):
        violation = error_details_pb2.QuotaFailure.Violation(subject=error.subject, description=error.message)
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
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
    return status_pb2.Status(code=code, message=error.message, details=packed)


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    """Every violation, or as many as fit into the metadata and the number of the rest."""
    listed = error_details_pb2.BadRequest()
    for number, violation in enumerate(violations):
        one = error_details_pb2.BadRequest.FieldViolation(
            field=violation.field, description=violation.description
        )
        if listed.ByteSize() + one.ByteSize() > _VIOLATIONS_BYTES:
            rest = f"{len(violations) - number} more fields are wrong"
            listed.field_violations.add(field="", description=rest)
            break
        listed.field_violations.append(one)
    return listed
