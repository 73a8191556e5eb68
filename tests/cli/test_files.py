from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from service.cli.files import is_device, write_whole


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"one")
    write_whole(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reading = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reading.start()
    write_whole(pipe, b"content")
    reading.join(10)
    assert read == [b"content"]
    assert pipe.is_fifo()


@pytest.mark.parametrize(("path", "device"), [("/dev/null", True), ("/", False), ("/no/such", False)])
def test_devices_are_told_from_files(path: str, device: bool) -> None:
    assert is_device(Path(path)) == device
