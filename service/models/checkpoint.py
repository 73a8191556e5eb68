"""Read an Ultralytics checkpoint (`.pt`) without PyTorch and without running anything that is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from service.models.errors import CheckpointError
from service.models.inert_pickle import Record
from service.models.torch_file import TorchFile

MAX_KEYPOINTS = 1000
MAX_DEPTH = 32  # modules in modules; YOLO11 needs 8

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Module:
    """One layer of the model as the checkpoint stores it.

    Attributes:
        path: where it is in the tree, such as `model.22.cv2.0`.
        name: its full class name, such as `ultralytics.nn.modules.conv.Conv`.
    """

    path: str
    name: str
    _state: dict[str, Any]
    _file: TorchFile

    @property
    def kind(self) -> str:
        """The class name alone, such as `Conv`."""
        return self.name.rpartition(".")[2]

    def error(self, problem: str) -> CheckpointError:
        """An error about this layer, to be raised by the caller."""
        return CheckpointError(f"layer {self.path} ({self.kind}) {problem}")

    def get(self, attribute: str, kind: type[T], default: T | None = None) -> T:
        """The plain attribute (int, float, bool, str); `default` where the file has none.

        Raises:
            CheckpointError: it is missing or of another type.
        """
        value = self._state.get(attribute, default)
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(f"has no usable attribute {attribute!r}")
        return value

    def ints(self, attribute: str) -> tuple[int, ...]:
        """An attribute that is one int or several, such as the layers that this one reads (`f`).

        Raises:
            CheckpointError: it is missing or of another type.
        """
        value = self._state.get(attribute)
        values = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not values or not all(type(v) is int for v in values):
            raise self.error(f"has no usable attribute {attribute!r}")
        return values

    def pair(self, attribute: str) -> tuple[int, int]:
        """An attribute that is one small int or two (vertical, horizontal), such as a stride."""
        values = self.ints(attribute)
        if len(values) > 2 or not all(0 <= v <= 64 for v in values):
            raise self.error(f"has no usable attribute {attribute!r}")
        return values[0], values[-1]

    def has(self, child: str) -> bool:
        """Say whether there is a child module of this name."""
        return isinstance(self._modules().get(child), Record)

    def child(self, name: str) -> Module:
        """The child module of this name.

        Raises:
            CheckpointError: there is none, or the tree is too deep.
        """
        record = self._modules().get(name)
        if not isinstance(record, Record) or not isinstance(record.state, dict):
            raise self.error(f"has no layer {name!a}")
        path = f"{self.path}.{name}" if self.path else name
        if path.count(".") > MAX_DEPTH:
            raise self.error(f"is nested more than {MAX_DEPTH} deep")
        return Module(path, record.name, record.state, self._file)

    def children(self) -> Iterator[Module]:
        """The child modules in order, as of a Sequential."""
        for name in self._modules():
            if not isinstance(name, str):
                raise self.error("has a layer without a name")
            yield self.child(name)

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """The parameter, buffer or plain tensor attribute of this name, finite.

        Raises:
            CheckpointError: it is missing, does not lie within the file, or is not finite.
        """
        array = self.optional_tensor(name)
        if array is None:
            raise self.error(f"has no tensor {name!r}")
        return array

    def optional_tensor(self, name: str) -> npt.NDArray[Any] | None:
        """As `tensor`, None where the file has none (a convolution without bias)."""
        groups = (self._state.get("_parameters"), self._state.get("_buffers"), self._state)
        found = (group.get(name) for group in groups if isinstance(group, dict))
        record = next((value for value in found if value is not None), None)
        if record is None:
            return None
        try:
            array = self._file.array(record)
        except CheckpointError as exc:
            raise self.error(f"has a bad tensor {name!r}: {exc}") from exc
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise self.error(f"has NaN or infinite values in {name!r}; its training went wrong")
        return array

    def _modules(self) -> dict[Any, Any]:
        modules = self._state.get("_modules")
        return modules if isinstance(modules, dict) else {}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Metadata of a checkpoint, and the tree of its layers.

    Attributes:
        model: the root module; `model.child("model")` is the sequence of layers.
        kpt_shape: (K, 2) or (K, 3), None for a model without keypoints.
        names: class names by class index.
        licence, version, date: as written by Ultralytics, empty where the file does not say.
        train_args: the plain values among the training arguments.
        sha256: of the whole file, hex.
    """

    path: Path
    sha256: str
    model: Module
    kpt_shape: tuple[int, int] | None
    names: dict[int, str]
    licence: str
    version: str
    date: str
    train_args: dict[str, str | int | float | bool | None]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint that Ultralytics saved: best.pt or last.pt of a training run, or an official one.

    As Ultralytics does, the averaged weights `ema` are taken where the file has them, else `model`.

    Raises:
        CheckpointError: not such a file, damaged, or it names code that no checkpoint needs.
    """
    file = TorchFile(path)
    root = file.root
    record = (root.get("ema") or root.get("model")) if isinstance(root, dict) else root
    if not isinstance(record, Record) or not isinstance(record.state, dict):
        raise CheckpointError(
            f"{path.name} has no model, perhaps only its weights; choose the best.pt of a training run"
        )
    if not record.name.startswith("ultralytics."):
        raise CheckpointError(f"{path.name} holds a {record.name}; only Ultralytics models can be read")
    model = Module("", record.name, record.state, file)
    about = root if isinstance(root, dict) else {}
    args = about.get("train_args")
    return Checkpoint(
        path=path,
        sha256=sha256_of(path),
        model=model,
        kpt_shape=_kpt_shape(path, record.state) if "Pose" in model.kind else None,
        names=_names(record.state.get("names")),
        licence=_text(about.get("license")),
        version=_text(about.get("version")),
        date=_text(about.get("date")),
        train_args={
            key: value
            for key, value in (args.items() if isinstance(args, dict) else ())
            if isinstance(key, str) and isinstance(value, str | int | float | bool | None)
        },
    )


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kpt_shape(path: Path, state: dict[str, Any]) -> tuple[int, int]:
    value = state.get("kpt_shape")
    if (
        not isinstance(value, list | tuple)
        or len(value) != 2
        or not all(type(v) is int for v in value)
        or not 1 <= value[0] <= MAX_KEYPOINTS
        or value[1] not in (2, 3)
    ):
        raise CheckpointError(f"{path.name} has no usable kpt_shape; a pose model has [K, 2] or [K, 3]")
    return value[0], value[1]


def _names(value: Any) -> dict[int, str]:
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {}
    return {index: name for index, name in value.items() if type(index) is int and isinstance(name, str)}


def _text(value: Any) -> str:
    return " ".join(value.split())[:300] if isinstance(value, str) else ""
