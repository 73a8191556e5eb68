"""PyTorch's file format: a zip with a pickle of objects and the raw storages of their tensors.

`<top>/data.pkl` is the pickle, `<top>/data/<key>` are the storages, `<top>/byteorder` says little or big.
PyTorch has written files so since 1.6 (torch/serialization.py). The pickle is read by `inert_pickle`, the
storages by numpy, and only those that are asked for.
"""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from service.models import inert_pickle
from service.models.errors import CheckpointError
from service.models.inert_pickle import Global, InertPickleError, PersistentId, Record

MAX_FILE_BYTES = 4 << 30  # YOLOv8x-pose-p6 with its optimizer state has under 1 GB
MAX_DIMENSIONS = 8

# What zipfile raises on a damaged file, by its source and by fuzzing.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # and NotImplementedError
    ValueError,
)
_REBUILD_TENSOR = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_BFLOAT16 = "u2"  # numpy has none; read as bits
_DTYPES = {
    "torch.DoubleStorage": "f8",
    "torch.FloatStorage": "f4",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": _BFLOAT16,
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}


class TorchFile:
    """A checkpoint file; it stays open as long as this object lives.

    Attributes:
        root: the object tree of its pickle, as `inert_pickle` gives it.

    Raises:
        CheckpointError: not such a file, damaged, or its pickle is refused.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._cached: tuple[str, bytes] = ("", b"")
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for its writer
                raise OSError("it is not a regular file")
            size = status.st_size
            _refuse_other_formats(path, size)
            self._archive = zipfile.ZipFile(path)
            entries = self._archive.infolist()
        except OSError as exc:
            raise CheckpointError(f"{path} cannot be read: {exc.strerror or exc}") from exc
        except _ZIP_ERRORS as exc:
            raise CheckpointError(f"{self._name} is cut off or damaged ({exc}); copy it again") from exc
        self._entries = self._below_top(entries, size)
        self._order: Literal["<", ">"] = "<" if self._byte_order() == b"little" else ">"
        try:
            self.root = inert_pickle.loads(self._read("data.pkl", inert_pickle.MAX_PICKLE_BYTES))
        except InertPickleError as exc:
            raise CheckpointError(
                f"{self._name} is refused: {exc}. Nothing in it was run; get it from its author again"
            ) from exc

    def array(self, record: Any) -> npt.NDArray[Any]:
        """The array of a tensor's record; strides and offset are honoured, bfloat16 becomes float32.

        Raises:
            CheckpointError: not a tensor, or it does not lie within its storage.
        """
        while isinstance(record, Record) and record.name.startswith("torch._utils._rebuild_parameter"):
            record = record.args[0] if record.args else None
        if not isinstance(record, Record) or record.name not in _REBUILD_TENSOR or len(record.args) < 4:
            raise CheckpointError("not a tensor of a kind that can be read")
        key, code, count = _storage(record.args[0])
        offset, shape, strides = record.args[1], _sizes(record.args[2]), _sizes(record.args[3])
        if type(offset) is not int or offset < 0 or len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise CheckpointError("its shape, strides and offset do not fit each other")
        elements = 1
        for size in shape:
            elements *= size
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if elements > count or (elements and last >= count):
            raise CheckpointError(f"shape {shape} does not fit its storage of {count} elements")
        in_file = np.dtype(code).newbyteorder(self._order)
        raw = self._read_storage(key)
        if len(raw) < count * in_file.itemsize:
            raise CheckpointError(f"its storage has {len(raw)} bytes for {count} elements")
        if elements:
            view = np.lib.stride_tricks.as_strided(
                np.frombuffer(raw, in_file, count)[offset:],
                shape,
                [stride * in_file.itemsize for stride in strides],
                writeable=False,
            )
            array = np.array(view, np.dtype(code), order="C")
        else:
            array = np.zeros(shape, np.dtype(code))
        if code == _BFLOAT16:  # the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array

    def _below_top(self, entries: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
        """The entries by their names below the archive's one top folder."""
        tops = [e.filename.removesuffix("data.pkl") for e in entries if e.filename.endswith("/data.pkl")]
        if len(tops) != 1:
            raise CheckpointError(f"{self._name} is a zip file, but not one that PyTorch wrote (no data.pkl)")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise CheckpointError(
                f"{self._name} is compressed, which PyTorch does not do; save it again with torch.save"
            )
        if sum(entry.file_size for entry in entries) > size:
            raise CheckpointError(f"{self._name} declares more data than it has; copy it again")
        return {e.filename.removeprefix(tops[0]): e for e in entries if e.filename.startswith(tops[0])}

    def _byte_order(self) -> bytes:
        order = self._read("byteorder", 16) if "byteorder" in self._entries else b"little"
        if order not in (b"little", b"big"):
            raise CheckpointError(f"{self._name} has an unknown byte order; copy it again")
        return order

    def _read_storage(self, key: str) -> bytes:
        if self._cached[0] != key:  # a fused or shared storage is asked for several times in a row
            self._cached = (key, self._read(f"data/{key}", MAX_FILE_BYTES))
        return self._cached[1]

    def _read(self, name: str, limit: int) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            raise CheckpointError(f"{self._name} has no {name}; copy it again")
        if entry.file_size > limit:
            raise CheckpointError(f"{self._name}: {name} has {entry.file_size} bytes, more than {limit}")
        try:
            return self._archive.read(entry)
        except _ZIP_ERRORS as exc:
            raise CheckpointError(f"{self._name} is damaged ({exc}); copy it again") from exc


def _refuse_other_formats(path: Path, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise CheckpointError(f"{path.name} has {size} bytes, more than any checkpoint")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{path.name} is empty; copy it again")
    if head[:1] == b"\x80" or head[257:262] == b"ustar":
        raise CheckpointError(
            f"{path.name} has PyTorch's format from before 1.6, which cannot be read safely; "
            "load it in PyTorch and save it again with torch.save"
        )
    if not head.startswith(b"PK\x03\x04"):
        raise CheckpointError(f"{path.name} is no PyTorch checkpoint; choose the .pt file of a training run")


def _storage(value: Any) -> tuple[str, str, int]:
    """Key, dtype code and element count of a reference: ('storage', class, key, device, count)."""
    parts = value.value if isinstance(value, PersistentId) else None
    if not isinstance(parts, tuple) or len(parts) != 5 or parts[0] != "storage":
        raise CheckpointError("its reference to a storage is damaged")
    _, kind, key, _, count = parts
    if not isinstance(kind, Global) or kind.name not in _DTYPES:
        raise CheckpointError(f"its type {kind!a} is not supported; save the model in fp32 or fp16")
    if not isinstance(key, str) or not re.fullmatch(r"[0-9]{1,9}", key, re.ASCII):
        raise CheckpointError("its reference to a storage is damaged")
    if type(count) is not int or not 0 <= count <= MAX_FILE_BYTES:
        raise CheckpointError("its reference to a storage is damaged")
    return key, _DTYPES[kind.name], count


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or not all(type(v) is int and 0 <= v < 1 << 32 for v in values):
        raise CheckpointError("its shape, strides and offset do not fit each other")
    return tuple(values)
