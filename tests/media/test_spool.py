from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import pytest

from service.errors import InvalidRequest, Overloaded, VideoTooLarge
from service.media.spool import Spool, SpoolClosed, SpoolReader, SpoolSpace


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    spool = Spool(SpoolSpace(tmp_path), 100)
    spool.append(b"hello ")
    spool.append(b"world")
    spool.finish()
    reader = SpoolReader(spool, seekable=True)
    assert reader.read(6) + reader.read(100) + reader.read(1) == b"hello world"
    assert reader.seek(-5, 2) == 6
    assert reader.read(5) == b"world"
    assert reader.tell() == 11
    assert not list(tmp_path.iterdir()), "the file has no name from the start"
    spool.close()


def test_a_reader_waits_for_bytes_to_come() -> None:
    spool = Spool(SpoolSpace(), 100)
    threading.Timer(0.1, spool.append, [b"late"]).start()
    assert SpoolReader(spool, seekable=False).read(10) == b"late"
    threading.Timer(0.1, spool.finish).start()
    assert spool.read_all(10, 0) == b"late"
    spool.close()


def test_too_many_bytes_are_refused_with_both_numbers() -> None:
    spool = Spool(SpoolSpace(), 10)
    spool.append(b"12345")
    with pytest.raises(VideoTooLarge) as caught:
        spool.append(b"678901")
    assert caught.value.metadata == {"limit_bytes": "10", "actual_bytes": "11"}
    spool.close()


def test_closing_wakes_up_waiting_readers_and_may_be_done_twice() -> None:
    spool = Spool(SpoolSpace(), 10)
    threading.Timer(0.1, spool.close).start()
    with pytest.raises(SpoolClosed):
        spool.wait(1)
    spool.close()
    assert spool.closed


def test_a_failed_upload_fails_waiting_readers() -> None:
    spool = Spool(SpoolSpace(), 10)
    threading.Timer(0.1, spool.fail, [InvalidRequest("wrong")]).start()
    with pytest.raises(InvalidRequest):
        spool.wait(None)
    spool.close()


def test_no_place_for_a_file_is_worth_another_try(tmp_path: Path) -> None:
    with pytest.raises(Overloaded) as caught:
        Spool(SpoolSpace(tmp_path / "nowhere"), 10)
    assert caught.value.retry_after_s


def test_a_file_is_closed_only_after_the_last_write(monkeypatch: pytest.MonkeyPatch) -> None:
    # A descriptor that was closed may belong to somebody else's file a moment later.
    begun, go_on = threading.Event(), threading.Event()
    written: list[int] = []

    def slow_write(descriptor: int, content: memoryview) -> int:
        begun.set()
        assert go_on.wait(10)
        written.append(os.fstat(descriptor).st_ino)
        return len(content)

    spool = Spool(SpoolSpace(), 100)
    with spool._descriptor() as descriptor:
        mine = os.fstat(descriptor).st_ino
    monkeypatch.setattr("service.media.spool.os.write", slow_write)
    writing = threading.Thread(target=spool.append, args=(b"secret",))
    writing.start()
    assert begun.wait(10)
    spool.close()
    with tempfile.TemporaryFile():  # takes the number, had it been free
        go_on.set()
        writing.join()
    assert written == [mine]
    with pytest.raises(SpoolClosed):
        spool.append(b"more")


def test_all_spools_together_have_so_much_room_and_give_it_back(tmp_path: Path) -> None:
    space = SpoolSpace(tmp_path, 10)
    first, second = Spool(space, 100), Spool(space, 100)
    first.append(b"123456")
    second.append(b"1234")
    with pytest.raises(Overloaded) as caught:
        second.append(b"5")
    assert (caught.value.reason, caught.value.retry_after_s) == ("SPOOL_FULL", 30.0)
    first.close()
    first.close()  # gives nothing back twice
    with pytest.raises(SpoolClosed):
        first.append(b"late bytes take no room")
    second.append(b"123456")
    with pytest.raises(Overloaded):
        second.append(b"7")
    second.close()
