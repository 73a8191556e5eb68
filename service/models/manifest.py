"""Manifest of TensorRT plans: `1/manifest.json` states from what and for what every plan beside it was built.

{"format": 1, "plans": {"model.plan": {"sha256": …, "tensorrt": "10.13.3.9", "compute_capability": "8.9", …}}}

A model has one plan, or in a fleet of several kinds of GPU one for each. Only the standard library is used.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from service.models.errors import EngineError

FORMAT = 1
FILE = "manifest.json"

Library = Literal["tensorrt", "tensorrt_rtx"]
HardwareCompatibility = Literal["none", "same_compute_capability", "ampere_plus"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """The shapes (N, H, W, 3) that one optimisation profile takes, and the one it is tuned for."""

    min: Shape
    opt: Shape
    max: Shape


@dataclass(frozen=True)
class PartAccuracy:
    """How far the plan is from its reference in one part of the body.

    Attributes:
        points: how many keypoints were compared.
        median, p95: distance between the two, as a share of the part's size.
    """

    points: int
    median: float
    p95: float


@dataclass(frozen=True)
class ApLoss:
    """Average precision of one part of the body, 0 to 1, by the graph and by the plan."""

    reference: float
    plan: float


@dataclass(frozen=True)
class EnginePlan:
    """One plan.

    Attributes:
        file: its name, beside the manifest.
        sha256, size: of the file; hex, bytes.
        library: what built it. Triton loads plans of `tensorrt`.
        tensorrt: version of that library.
        compute_capability: of the GPU that it was built for, such as `8.9`.
        hardware_compatibility: which other GPUs may load it.
        version_compatible: whether a newer TensorRT may load it.
        gpu: name of the GPU that it was built on, empty when it was built ahead of time.
        driver: version of the driver there.
        onnx_sha256: of the graph that it was built from.
        weights_sha256: of the checkpoint that the graph was written from, as far as the graph says.
        precision: of the graph.
        tf32: whether fp32 layers may compute in TF32.
        optimisation_level: TensorRT's, 0 to 5.
        profiles: the shapes that it takes.
        built_at: UTC, ISO 8601.
        build_s: how long it took.
        accuracy: by part of the body; None when the plan was not compared.
        ap: by part of the body, on annotated images; None when there were none.
    """

    file: str
    sha256: str
    size: int
    library: Library
    tensorrt: str
    compute_capability: str
    hardware_compatibility: HardwareCompatibility
    version_compatible: bool
    gpu: str
    driver: str
    onnx_sha256: str
    weights_sha256: str
    precision: str
    tf32: bool
    optimisation_level: int
    profiles: tuple[Profile, ...]
    built_at: str
    build_s: float
    accuracy: Mapping[str, PartAccuracy] | None = field(default=None)
    ap: Mapping[str, ApLoss] | None = field(default=None)

    def same_build(self, other: EnginePlan) -> bool:
        """Whether `other` would come out of the same build: TensorRT, GPU, graph and options agree."""
        return _build_of(self) == _build_of(other)


def read_manifest(folder: Path) -> dict[str, EnginePlan]:
    """The plans that `folder`'s manifest describes, by file name; none where there is no manifest.

    Raises:
        EngineError: the manifest cannot be read, or is not one.
    """
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise EngineError(f"{path} cannot be read: {exc}") from exc
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r} instead of {FORMAT}")
        return {name: _plan(name, values) for name, values in content["plans"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise EngineError(
            f"{path} is no manifest that this version reads ({type(exc).__name__}: {exc}); build again"
        ) from exc


def add_to_manifest(folder: Path, plan: EnginePlan) -> None:
    """Write what is known of one plan; what the manifest says of others stays.

    Two builders may do so at once, one for each kind of GPU of a fleet.

    Raises:
        EngineError: the manifest cannot be read or written.
    """
    path = folder / FILE
    try:
        with _lock(folder):
            try:
                plans = read_manifest(folder)
            except EngineError:
                plans = {}  # it cannot be read; the other plans have to be built again
            plans[plan.file] = plan
            content = {"format": FORMAT, "plans": {name: _json(entry) for name, entry in plans.items()}}
            write_aside(path, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as exc:
        raise EngineError(f"{path} cannot be written: {exc.strerror or exc}") from exc


def write_aside(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; raises OSError."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file, hex; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with (folder / ".manifest.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build_of(plan: EnginePlan) -> tuple[Any, ...]:
    tensorrt = plan.library, plan.tensorrt, plan.version_compatible, plan.optimisation_level, plan.tf32
    gpu = plan.compute_capability, plan.hardware_compatibility
    return (*tensorrt, *gpu, plan.onnx_sha256, plan.precision, plan.profiles)


def _json(plan: EnginePlan) -> dict[str, Any]:
    values = asdict(plan)
    del values["file"]
    return values


def _plan(name: str, values: Mapping[str, Any]) -> EnginePlan:
    known = {entry.name: entry.type for entry in fields(EnginePlan)}
    given = {"file": name, **{key: value for key, value in values.items() if key in known}}
    for key, kind in known.items():
        wanted = {"str": str, "int": int, "bool": bool, "float": (int, float)}.get(str(kind))
        if wanted is not None and not isinstance(given[key], wanted):  # type: ignore[arg-type]
            raise TypeError(f"{name} has no usable {key}")
    given["profiles"] = tuple(
        Profile(*(tuple(int(size) for size in profile[key]) for key in ("min", "opt", "max")))
        for profile in values["profiles"]
    )
    accuracy = values.get("accuracy")
    given["accuracy"] = accuracy and {part: PartAccuracy(**entry) for part, entry in accuracy.items()}
    ap = values.get("ap")
    given["ap"] = ap and {part: ApLoss(**entry) for part, entry in ap.items()}
    return EnginePlan(**given)
