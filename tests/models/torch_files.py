"""Checkpoint files written by hand, opcode by opcode, so that a test can say anything that a file may say."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Name:
    """A global: class or function."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """`function(*args)`, by REDUCE; with `state`, followed by BUILD."""

    function: Any
    args: tuple[Any, ...] = ()
    state: Any = None


@dataclass(frozen=True)
class Outside:
    """A persistent id."""

    value: Any


@dataclass(frozen=True)
class Raw:
    """Opcodes as they are; they leave one object on the stack."""

    opcodes: bytes


def pickled(value: Any) -> bytes:
    """A protocol 2 pickle of plain values and of the above."""
    return b"\x80\x02" + opcodes(value) + b"."


def opcodes(value: Any) -> bytes:
    """What puts `value` on the stack."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            size = value.bit_length() // 8 + 1
            return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            text = value.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            return b"}(" + b"".join(opcodes(k) + opcodes(v) for k, v in value.items()) + b"u"
        case Name():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            built = opcodes(value.state) + b"b" if value.state is not None else b""
            return opcodes(value.function) + opcodes(value.args) + b"R" + built
        case Outside():
            return opcodes(value.value) + b"Q"
        case Raw():
            return value.opcodes
        case _:
            raise TypeError(f"no opcodes for {value!r}")


def tensor(
    kind: str, count: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, key: str = "0"
) -> Call:
    """A tensor in storage `key`, as torch.save writes it."""
    storage = Outside(("storage", Name("torch", f"{kind}Storage"), key, "cpu", count))
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), (storage, offset, shape, strides, False, {}))


def torch_zip(
    pickle: bytes,
    storages: dict[str, bytes] | None = None,
    byte_order: bytes = b"little",
    compress: bool = False,
) -> bytes:
    """The bytes of a checkpoint file with this pickle and these storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/byteorder", byte_order)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return file.getvalue()


def rewritten(path: Path, *changes: tuple[bytes, bytes]) -> bytes:
    """A copy of a checkpoint file whose pickle says something else: every `old` becomes `new`."""
    file = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(file, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("/data.pkl"):
                for old, new in changes:
                    assert old in data, old
                    data = data.replace(old, new)
            target.writestr(entry.filename, data)
    return file.getvalue()


def pickle_of(path: Path) -> bytes:
    """The data.pkl of a checkpoint file."""
    with zipfile.ZipFile(path) as archive:
        return next(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
