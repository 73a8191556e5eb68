"""What a caller may see of an error."""

from structlog.testing import capture_logs

from service.errors import NotFound
from service.telemetry.call_context import CallContext, begin
from service.telemetry.caller_error import caller_error


def test_an_error_of_the_domain_is_the_callers_as_it_is() -> None:
    error = NotFound("There is no model 'x'.")
    with capture_logs() as lines:
        assert caller_error(error) is error
    assert lines == []


async def test_any_other_is_logged_and_replaced_by_one_with_the_request_id_only() -> None:
    begin(CallContext(request_id="id-1"))
    error = RuntimeError("a secret path")
    with capture_logs() as lines:
        shown = caller_error(error)
    assert (shown.message, shown.reason) == ("internal error", "INTERNAL")
    assert shown.metadata == {"request_id": "id-1"}
    assert [(line["event"], line["exc_info"]) for line in lines] == [("internal_error", error)]
