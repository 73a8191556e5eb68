"""Lines of calls are written soon, all others at once, and none is lost or overtaken."""

import io
import threading

import pytest

from service.telemetry import line_writer
from service.telemetry.line_writer import Lines, LineWriter
from tests.fakes import until


class Blocked(io.StringIO):
    """A stream whose other end does not read until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = threading.Event()
        self.entered = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        assert self.reads.wait(20)
        return super().write(text)


def test_a_line_is_written_at_once_and_those_that_wait_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_writer, "_PAUSE_S", 60)
    stream = io.StringIO()
    writer = LineWriter(stream)
    soon, now = Lines(writer.write_soon), Lines(writer.write)
    soon.info("first")
    soon.error("second")
    assert not stream.getvalue()
    now.warning("third")
    assert stream.getvalue() == "first\nsecond\nthird\n"


async def test_a_line_that_waits_is_written_without_another_one() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    for number in range(3):
        writer.write_soon(str(number))
        await until(lambda number=number: stream.getvalue().endswith(f"{number}\n"))  # type: ignore[misc]
    assert stream.getvalue() == "0\n1\n2\n"


async def test_a_slow_reader_of_the_log_holds_up_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_writer, "_PAUSE_S", 0)
    stream = Blocked()
    writer = LineWriter(stream)
    writer.write_soon("0")
    await until(stream.entered.is_set)
    for number in range(1, 100):
        writer.write_soon(str(number))
    stream.reads.set()
    await until(lambda: stream.getvalue().count("\n") == 100)
    assert stream.getvalue().split() == [str(number) for number in range(100)]


def test_more_lines_than_may_wait_are_written_where_they_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_writer, "_PAUSE_S", 60)
    monkeypatch.setattr(line_writer, "_MOST", 2)
    stream = io.StringIO()
    writer = LineWriter(stream)
    for number in range(3):
        writer.write_soon(str(number))
    assert stream.getvalue() == "0\n1\n2\n"


def test_a_closed_stream_is_no_error() -> None:
    stream = io.StringIO()
    stream.close()
    LineWriter(stream).write("too late")


class Full(io.StringIO):
    """A stream to a full disk."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


async def test_lines_go_on_after_the_disk_was_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_writer, "_PAUSE_S", 0)
    stream = Full()
    writer = LineWriter(stream)
    writer.write("lost")
    writer.write_soon("lost")
    await until(lambda: not writer._waiting)
    stream.full = False
    writer.write_soon("kept")
    await until(lambda: stream.getvalue() == "kept\n")
