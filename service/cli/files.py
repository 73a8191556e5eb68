"""Files that commands write: whole, or not at all."""

from __future__ import annotations

from pathlib import Path


def partial(path: Path) -> Path:
    """Where a file grows until it is complete and gets its name."""
    return path.with_name(path.name + ".partial")


def is_device(path: Path) -> bool:
    """Whether it is there and no file: a pipe or a device, such as /dev/null, is written to and never
    replaced by a file."""
    return path.exists() and not path.is_file() and not path.is_dir()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file at once.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    if is_device(path):
        path.write_bytes(content)
        return
    partial(path).write_bytes(content)
    partial(path).replace(path)
