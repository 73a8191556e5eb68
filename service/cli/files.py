"""Output files of commands: written whole, or not at all."""

from __future__ import annotations

from pathlib import Path


def partial(path: Path) -> Path:
    """Path of a file that is not complete yet; it is renamed once it is."""
    return path.with_name(path.name + ".partial")


def is_device(path: Path) -> bool:
    """Whether the path is a pipe or a device, such as /dev/null: those are written to and never
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
