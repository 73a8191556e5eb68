from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.models.errors import CheckpointError
from service.models.torch_file import TorchFile
from tests.models.torch_files import Call, Name, pickled, tensor, torch_zip


def opened(tmp_path: Path, root: Any, storages: dict[str, bytes], byte_order: bytes = b"little") -> TorchFile:
    path = tmp_path / "file.pt"
    path.write_bytes(torch_zip(pickled(root), storages, byte_order))
    return TorchFile(path)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("Double", "f8"),
        ("Float", "f4"),
        ("Half", "f2"),
        ("Long", "i8"),
        ("Int", "i4"),
        ("Short", "i2"),
        ("Char", "i1"),
        ("Byte", "u1"),
        ("Bool", "?"),
    ],
)
def test_every_type_and_byte_order_is_read(tmp_path: Path, kind: str, dtype: str, order: str) -> None:
    wanted = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    raw = wanted.astype(wanted.dtype.newbyteorder("<" if order == "little" else ">")).tobytes()
    file = opened(tmp_path, tensor(kind, 6, (2, 3), (3, 1)), {"0": raw}, order.encode())
    read = file.array(file.root)
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, wanted)


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    raw = np.array([0x3F80, 0xC000, 0x3E20], "<u2").tobytes()
    file = opened(tmp_path, tensor("BFloat16", 3, (3,), (1,)), {"0": raw})
    np.testing.assert_array_equal(file.array(file.root), np.array([1.0, -2.0, 0.15625], np.float32))


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "wanted"),
    [
        ((), (), 5, 5),
        ((0,), (1,), 0, []),
        ((3, 0), (1, 1), 24, np.zeros((3, 0))),
        ((4,), (1,), 20, [20, 21, 22, 23]),
        ((3, 2), (1, 3), 0, [[0, 3], [1, 4], [2, 5]]),
        ((2, 2), (12, 2), 1, [[1, 3], [13, 15]]),
        ((2, 3), (0, 1), 0, [[0, 1, 2], [0, 1, 2]]),
    ],
    ids=["scalar", "empty", "empty at the end", "offset", "transposed", "steps", "expanded"],
)
def test_strides_and_offset_are_honoured(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, wanted: Any
) -> None:
    raw = np.arange(24, dtype="<f4").tobytes()
    file = opened(tmp_path, tensor("Float", 24, shape, strides, offset), {"0": raw})
    np.testing.assert_array_equal(file.array(file.root), np.asarray(wanted, np.float32))


def test_a_parameter_is_the_tensor_in_it(tmp_path: Path) -> None:
    root = Call(Name("torch._utils", "_rebuild_parameter"), (tensor("Float", 1, (1,), (1,)), True, {}))
    file = opened(tmp_path, root, {"0": np.float32(7).tobytes()})
    assert file.array(file.root) == [7]


@pytest.mark.parametrize(
    "root",
    [
        None,
        "text",
        Call(Name("torch._utils", "_rebuild_parameter"), ()),
        Call(Name("torch", "Size"), ((1, 2, 3, 4), 1)),
        tensor("Float", 4, (5,), (1,)),
        tensor("Float", 4, (4,), (2,)),
        tensor("Float", 4, (4,), (1,), 1),
        tensor("Float", 4, (4,), (1,), -1),
        tensor("Float", 4, (-4,), (1,)),
        tensor("Float", 4, (4,), (-1,), 3),
        tensor("Float", 4, (1 << 20, 1 << 20), (0, 0)),
        tensor("Float", 4, (1 << 31,) * 8, (0,) * 8),
        tensor("Float", 4, (1,) * 40, (1,) * 40),
        tensor("Float", 4, (2, 2), (1,)),
        tensor("Float", 5, (4,), (1,)),
        tensor("Float", 1 << 60, (4,), (1,)),
        tensor("Float", -1, (4,), (1,)),
        tensor("Float", 4, (4,), (1,), key="1"),
        tensor("Float", 4, (4,), (1,), key="../0"),
        tensor("Float", 4, (True, 4), (1, 1)),
    ],
    ids=lambda root: repr(getattr(root, "args", root)),
)
def test_a_tensor_that_does_not_lie_in_its_storage_is_refused(tmp_path: Path, root: Any) -> None:
    file = opened(tmp_path, root, {"0": bytes(16)})
    with pytest.raises(CheckpointError):
        file.array(file.root)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"hello", "no PyTorch checkpoint"),
        (b"<html>", "no PyTorch checkpoint"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "before 1.6"),
        (b"x" * 257 + b"ustar\0" + b"x" * 400, "before 1.6"),
        (b"PK\x03\x04 and no more", "cut off or damaged"),
        (torch_zip(pickled({}), compress=True), "compressed"),
        (torch_zip(pickled({}), byte_order=b"mixed"), "byte order"),
        (torch_zip(b"\x80\x02cos\nsystem\n."), "os.system"),
        (torch_zip(b"nonsense"), "damaged"),
        (torch_zip(pickled({})).replace(b"data.pkl", b"date.pkl"), "not one that PyTorch wrote"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_files_are_refused_with_a_reason(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=said):
        TorchFile(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        TorchFile(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        TorchFile(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(CheckpointError, match="not a regular file"):
        TorchFile(tmp_path / "pipe.pt")


def test_a_zip_that_declares_more_than_it_has_is_refused(tmp_path: Path) -> None:
    data = bytearray(torch_zip(pickled({}), {"0": bytes(64)}))
    central = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1) + 1)
    data[central + 20 : central + 28] = b"\xff\xff\xff\x7f" * 2  # compressed and plain size of data/0
    path = tmp_path / "file.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="declares more data"):
        TorchFile(path)
