"""Errors fit into the headers they travel in."""

import base64
from urllib.parse import quote

from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidRequest, Violation
from service.status import to_status

HEADERS_BYTES = 8192  # what gRPC's clients take unless told otherwise


def violations(status: status_pb2.Status) -> list[error_details_pb2.BadRequest.FieldViolation]:
    bad = error_details_pb2.BadRequest()
    assert status.details[2].Unpack(bad)
    return list(bad.field_violations)


def headers_bytes(status: status_pb2.Status) -> int:
    return len(quote(status.message)) + len(base64.b64encode(status.SerializeToString()))


def test_a_few_violations_are_told_as_they_are() -> None:
    error = InvalidRequest("Bad.", violations=[Violation(f"f{n}", "must be 1") for n in range(20)])

    status = to_status(error, "id")

    assert status.message == "Bad."
    assert [item.field for item in violations(status)] == [f"f{n}" for n in range(20)]


def test_of_many_the_last_says_how_many_there_are_beyond() -> None:
    error = InvalidRequest("Bad.", violations=[Violation(f"f{n}", "must be 1") for n in range(5000)])

    listed = violations(to_status(error, "id"))

    assert listed[-1].field == ""
    assert listed[-1].description == f"and {5000 - len(listed) + 1} more violations"


texts = st.text(st.characters(exclude_categories=[]), max_size=20).map(lambda text: text * 300)


@given(texts, st.lists(st.tuples(texts, texts), min_size=1, max_size=50), texts)
def test_any_error_fits(message: str, told: list[tuple[str, str]], value: str) -> None:
    error = InvalidRequest(
        message,
        violations=[Violation(field, description) for field, description in told],
        metadata={"skeleton": value, "missing": value, "model": "yolo"},
    )

    status = to_status(error, "x" * 128)

    assert headers_bytes(status) < HEADERS_BYTES - 512  # request id, content type and whatever else there is
    assert violations(status)
