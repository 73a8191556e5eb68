"""Words of libraries on stderr become log lines, and those of a crash stay where they are."""

import json
import subprocess
import sys
from typing import Any

import pytest

BEGIN = """
import os, subprocess, sys, ctypes
from service.settings import Settings
from service.telemetry.logging import configure
from service.telemetry.stderr import logged_stderr
with logged_stderr():
    configure(Settings(log_format="json"))
"""


def ran(*body: str) -> tuple[int, list[str]]:
    """Exit code and lines on stderr of a process that does this while its stderr is logged."""
    code = BEGIN + "".join(f"    {line}\n" for line in body)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr.splitlines()


def logged(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def test_lines_of_libraries_and_child_processes_are_log_lines() -> None:
    code, lines = ran(
        "ctypes.CDLL(None).dprintf(2, b'Corrupt JPEG data: 7 extraneous bytes\\n')",
        "subprocess.run([sys.executable, '-c', 'raise SystemExit(\"of a child\")'])",
        "os.write(2, b'\\xff no end of line')",
    )
    assert code == 0
    assert [(line["event"], line["level"], line["text"]) for line in logged(lines)] == [
        ("stderr", "warning", "Corrupt JPEG data: 7 extraneous bytes"),
        ("stderr", "warning", "of a child"),
        ("stderr", "warning", "\\xff no end of line"),
    ]


def test_records_and_warnings_of_python_libraries_are_log_lines() -> None:
    code, lines = ran(
        "import logging, warnings",
        "try: 1 / 0",
        "except ZeroDivisionError: logging.getLogger('asyncio').exception('Task failed')",
        "warnings.warn('old')",
        "logging.getLogger('asyncio').info('nothing')",
    )
    assert code == 0
    failed, old = logged(lines)
    assert (failed["event"], failed["level"], failed["logger"]) == ("library", "error", "asyncio")
    assert failed["text"] == "Task failed"
    assert failed["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert (old["logger"], old["level"]) == ("py.warnings", "warning")
    assert "UserWarning: old" in old["text"]


def test_a_flood_is_counted_and_never_waited_for() -> None:
    # The interpreter's lock is held meanwhile: waiting for a full pipe would stop the process for good.
    code, lines = ran(
        "libc = ctypes.PyDLL(None)",
        "for number in range(20_000):",
        "    libc.dprintf(2, b'%s\\n', b'x' * 500)",
        'sys.stderr.write(\'{"event": "still here"}\\n\')',
    )
    assert code == 0
    events = [line["event"] for line in logged(lines)]
    assert 1 <= events.count("stderr") <= 200
    assert "stderr_left_out" in events
    assert "still here" in events


def test_a_line_without_an_end_is_cut() -> None:
    code, lines = ran("os.write(2, b'x' * 60_000)")
    assert code == 0
    assert {len(line["text"]) for line in logged(lines)} == {1000}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('as ever')", "ValueError: as ever"),
        ("ctypes.string_at(0)", "Fatal Python error: Segmentation fault"),
        ("os.abort()", "Fatal Python error: Aborted"),
    ],
    ids=["exception", "segmentation fault", "abort"],
)
def test_the_stack_of_a_crash_reaches_the_real_stderr(body: str, words: str) -> None:
    code, lines = ran(body)
    assert code != 0
    assert words in "\n".join(lines)
    assert 'File "<string>"' in "\n".join(lines)


def test_after_the_block_everything_is_as_before() -> None:
    code, lines = ran("pass", "pass\nos.write(2, b'plain\\n'); print('too', file=sys.stderr)")
    assert (code, lines) == (0, ["plain", "too"])


def test_a_user_who_may_have_no_larger_pipes_has_small_ones() -> None:
    code = (
        """
import fcntl
def refused(*_): raise PermissionError(1, "Operation not permitted")
fcntl.fcntl = refused
"""
        + BEGIN
        + "    os.write(2, b'heard\\n')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert [line["text"] for line in logged(ended.stderr.splitlines())] == ["heard"]
