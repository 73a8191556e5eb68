"""Log lines: an event with fields, and never what a caller sent."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from service.settings import Settings
from service.telemetry.logging import configure

SECRET = b"the picture and the key"


@pytest.fixture
def lines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What is logged on stderr, once `configure` was called with the settings asked for."""
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    before = structlog.get_config()
    try:
        configure(Settings(**request.param))
        yield lambda: written.getvalue().splitlines()
    finally:
        structlog.configure(**before)
        structlog.contextvars.clear_contextvars()


def fail() -> None:
    picture = SECRET  # noqa: F841 - a local variable, as a traceback may show it
    raise ValueError("boom")


def log_a_failure() -> None:
    try:
        fail()
    except ValueError as error:
        structlog.get_logger().error("internal_error", exc_info=error)


@pytest.mark.parametrize("lines", [{"log_format": "json"}], indirect=True)
def test_a_json_line_is_an_event_with_time_level_and_context(lines: Any) -> None:
    structlog.contextvars.bind_contextvars(request_id="id-1")
    structlog.get_logger().info("call", code="OK", wall_ms=1.5)
    (line,) = [json.loads(line) for line in lines()]
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "call", "level": "info", "request_id": "id-1", "code": "OK", "wall_ms": 1.5}


@pytest.mark.parametrize("lines", [{"log_format": "json"}], indirect=True)
def test_an_exception_is_one_json_line_with_its_stack(lines: Any) -> None:
    log_a_failure()
    (line,) = [json.loads(line) for line in lines()]
    assert line["exception"][0]["exc_type"] == "ValueError"
    assert line["exception"][0]["frames"][-1]["name"] == "fail"


@pytest.mark.parametrize("lines", [{"log_format": "json"}, {"log_format": "console"}], indirect=True, ids=str)
def test_an_exception_does_not_show_local_variables(lines: Any) -> None:
    # They hold requests: pictures of people, and keys.
    log_a_failure()
    assert "boom" in "\n".join(lines())
    assert SECRET.decode() not in "\n".join(lines())


@pytest.mark.parametrize(
    "lines", [{"log_level": "warning", "log_format": "json"}], indirect=True, ids=["warning"]
)
def test_what_is_below_the_level_is_left_out(lines: Any) -> None:
    structlog.get_logger().info("call")
    structlog.get_logger().warning("not_ready")
    assert [json.loads(line)["event"] for line in lines()] == ["not_ready"]


@pytest.mark.parametrize("lines", [{"log_format": "console"}], indirect=True, ids=["console"])
def test_the_console_shows_event_and_fields(lines: Any) -> None:
    structlog.get_logger().info("call", code="OK")
    (line,) = lines()
    assert "call" in line
    assert "code=OK" in line
    assert "\x1b" not in line  # no colours where there is no terminal
