"""Domain errors as callers get them."""

import re

import grpc
import pytest

from service import errors
from service.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    ImageUndecodable,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Overloaded,
    PosegateError,
    SkeletonNotSupplied,
    Unavailable,
    Unimplemented,
    Violation,
)
from service.servicers.responses.error_status import code_of, to_status
from service.telemetry.caller_error import caller_error
from tests.running import of_status


class NeverSeenBefore(NotFound):
    """A subclass that the table of codes does not know."""


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (PosegateError("x"), "INTERNAL", "INTERNAL"),
        (caller_error(RuntimeError("x")), "INTERNAL", "INTERNAL"),
        (InvalidRequest("x"), "INVALID_ARGUMENT", "INVALID_REQUEST"),
        (ImageUndecodable("x"), "INVALID_ARGUMENT", "IMAGE_UNDECODABLE"),
        (ImageTooLarge("x"), "INVALID_ARGUMENT", "IMAGE_TOO_LARGE"),
        (NotFound("x"), "NOT_FOUND", "NOT_FOUND"),
        (NeverSeenBefore("x"), "NOT_FOUND", "NOT_FOUND"),
        (NotFound("x", reason="MODEL_NOT_FOUND"), "NOT_FOUND", "MODEL_NOT_FOUND"),
        (NotAllowed("x"), "PERMISSION_DENIED", "NOT_ALLOWED"),
        (SkeletonNotSupplied("x"), "FAILED_PRECONDITION", "SKELETON_NOT_SUPPLIED"),
        (Overloaded("x"), "RESOURCE_EXHAUSTED", "OVERLOADED"),
        (Unavailable("x"), "UNAVAILABLE", "UNAVAILABLE"),
        (DeadlineExceeded("x"), "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
        (Unimplemented("x"), "UNIMPLEMENTED", "UNIMPLEMENTED"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_every_error_has_its_code_and_reason(error: PosegateError, code: str, reason: str) -> None:
    told = of_status(to_status(error, "id-1"))
    assert told.code is code_of(error) is grpc.StatusCode[code]
    assert (told.message, told.reason, told.domain) == (error.message, reason, "posegate")
    assert told.request_id == "id-1"
    assert told.violations == {}
    assert told.retry_s is None


def test_every_error_of_the_tree_has_a_code_and_is_drawn_in_the_tree() -> None:
    kinds = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PosegateError)
    }
    for kind in kinds - {PosegateError}:
        assert code_of(kind("x")) is not grpc.StatusCode.INTERNAL
    assert set(re.findall(r"^(?:│   )*[├└]── (\w+)", errors.__doc__ or "", re.MULTILINE)) == {
        kind.__name__ for kind in kinds - {PosegateError}
    }


def test_every_violation_is_told_in_order() -> None:
    error = InvalidRequest("x", violations=[Violation("a.b", "one"), Violation("a", "two")])
    assert list(of_status(to_status(error, "")).violations.items()) == [("a.b", "one"), ("a", "two")]


@pytest.mark.parametrize("seconds", [0.0, 0.25, 1.0, 90.0])
def test_when_to_try_again_is_told(seconds: float) -> None:
    assert of_status(to_status(Unavailable("x", retry_after_s=seconds), "")).retry_s == seconds


def test_metadata_are_told() -> None:
    error = NotFound("x", metadata={"model": "ü", "empty": ""})
    assert of_status(to_status(error, "")).metadata == {"model": "ü", "empty": ""}


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "ü" * 100_000, "人" * 100_000], ids=["ASCII", "2 bytes", "3 bytes"]
)
def test_a_status_stays_small_enough_for_grpc_whatever_the_caller_sent(text: str) -> None:
    # gRPC refuses metadata above 8 KiB, and the caller would get another error instead.
    error = InvalidRequest(text, metadata={"value": text}, violations=[Violation("field", text)] * 12)
    status = to_status(error, "i" * 128)
    assert len(status.SerializeToString()) < 3500  # base64 makes a third more of it
    assert len(status.message.encode()) <= 800  # percent-encoding makes up to three times as much of it
    assert status.message.startswith(text[:100])
    assert status.message.endswith("…")
    assert len(of_status(status).metadata["value"]) >= 50
