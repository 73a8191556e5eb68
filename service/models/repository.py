"""Put a checkpoint into the model repository as a model that Triton serves.

<repository>/cpu/<name>/config.pbtxt     what the model is; see `config_text`
<repository>/cpu/<name>/1/model.onnx     the graph; its metadata name the digests of its checkpoint and writer
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
from google.protobuf.message import DecodeError

from service.core.plan import is_tenant_name
from service.models.checkpoint import Checkpoint, read_checkpoint, sha256_of
from service.models.errors import RepositoryError
from service.models.yolo_graph import Precision, build_graph, pose_head
from service.models.yolo_head import CANDIDATES

CpuPrecision = Literal["bf16", "f32"]

MAX_BATCH_SIZE = 8
INPUT_SIDE = 640
"""Long side of the inputs, px: the size that the official checkpoints are trained at."""

# (H, W) that are compiled when the model is loaded: the square, which every image fits into, then the
# rectangles of images of 4:3, 3:2 and 16:9, both ways.
PREPARED_HW = ((640, 640), (480, 640), (640, 480), (448, 640), (640, 448), (384, 640), (640, 384))
PAD_VALUE = 114
"""Grey of the letterbox, for the backend: a shape that is not compiled yet runs in a larger one."""

# No default_queue_policy: in Triton 2.51 any field of it switches prefetching off, and a lost wake-up then
# holds single requests up for 500 ms. The gateway bounds what waits (POSEGATE_MAX_INFERENCES) and sets a
# deadline for each request. Pairs, because two streams run at once and answers do not come in lock-step.
QUEUE = "dynamic_batching { preferred_batch_size: [ 2 ] }"

_NAME = re.compile(r"[a-z0-9_]{1,64}", re.ASCII)


@dataclass(frozen=True)
class ServedModel:
    """Contents of the `config.pbtxt` of a `yolo_pose` model.

    Attributes:
        name: Triton's name of it.
        skeleton: name of the template that its keypoints follow.
        keypoints: K.
        weights: file name of the checkpoint.
        licence: SPDX name, or `unknown`.
        source: where the checkpoint comes from.
        sha256: of the checkpoint, hex.
        precision: what OpenVINO computes in.
        shapes_hw: the inputs it allows, (H, W) in px.
        prepared_hw: those of them that are compiled when the model is loaded, the first before it is ready.
        max_batch_size: images in one request at most.
    """

    name: str
    skeleton: str
    keypoints: int
    weights: str
    licence: str
    source: str
    sha256: str
    precision: CpuPrecision
    shapes_hw: Sequence[tuple[int, int]]
    prepared_hw: Sequence[tuple[int, int]]
    tenant: str = ""
    max_batch_size: int = MAX_BATCH_SIZE


def add_model(
    repository: Path,
    checkpoint: Checkpoint,
    *,
    name: str,
    skeleton: str,
    skeleton_keypoints: int,
    precision: Precision = "fp32",
    cpu_precision: CpuPrecision = "bf16",
    licence: str = "",
    source: str = "",
    tenant: str = "",
    replace: bool = False,
) -> Path:
    """Write a new served model, complete or not at all.

    Args:
        repository: the folder that holds `cpu/`.
        skeleton_keypoints: how many keypoints the template `skeleton` has.
        precision: of the ONNX file's weights and arithmetic.
        licence, source: what the checkpoint itself does not say, or says wrongly.
        tenant: the only one who may use it; empty for everyone.
        replace: a model of this name may be overwritten.

    Returns:
        The model's folder.

    Raises:
        RepositoryError: the name is taken or not allowed, or the skeleton does not fit.
        CheckpointError: the checkpoint cannot be served.
    """
    check_name(repository, name, replace=replace)
    check_tenant(tenant)
    shape = pose_head(checkpoint)
    if skeleton_keypoints != shape.keypoints:
        raise RepositoryError(
            f"{checkpoint.path.name} has {shape.keypoints} keypoints and skeleton {skeleton} has "
            f"{skeleton_keypoints}; name the skeleton that the model was trained for"
        )
    model = ServedModel(
        name=name,
        skeleton=skeleton,
        keypoints=shape.keypoints,
        weights=checkpoint.path.name,
        licence=licence or spdx_licence(checkpoint.licence) or "unknown",
        source=source or checkpoint.path.name,
        sha256=checkpoint.sha256,
        precision=cpu_precision,
        shapes_hw=shapes_for(max(shape.strides)),
        prepared_hw=prepared_for(max(shape.strides)),
        tenant=tenant,
    )
    return place_model(repository, name, build_graph(checkpoint, precision), config_text(model))


def check_name(repository: Path, name: str, *, replace: bool) -> Path:
    """The folder of a new model.

    Raises:
        RepositoryError: the name is not allowed, or taken and not to be replaced.
    """
    if not _NAME.fullmatch(name):
        raise RepositoryError(f"{name!a} is no model name: use a-z, 0-9 and _, at most 64 characters")
    target = repository / "cpu" / name
    if target.exists() and not replace:
        raise RepositoryError(f"{target} exists; choose another name, or replace it with --replace")
    return target


def place_model(repository: Path, name: str, graph: onnx.ModelProto, config: str) -> Path:
    """Write graph and `config.pbtxt` of a model, complete or not at all; one of that name is replaced.

    Returns:
        The model's folder.

    Raises:
        RepositoryError: it cannot be written.
    """
    target = repository / "cpu" / name
    # Beside cpu/, not in it: Triton must not see a model that is not finished.
    staging = repository / f"{name}.partial"
    retired = repository / f"{name}.old.partial"
    try:
        for leftover in (staging, retired):
            shutil.rmtree(leftover, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        (staging / "1").mkdir(parents=True)
        _write_graph(graph, staging / "1" / "model.onnx")
        (staging / "config.pbtxt").write_text(config, encoding="utf-8")
        if target.exists():
            target.rename(retired)
        try:
            staging.rename(target)
        except OSError:
            if retired.exists():
                retired.rename(target)
            raise
    except OSError as exc:
        raise RepositoryError(f"{target} cannot be written: {exc.strerror or exc}") from exc
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(retired, ignore_errors=True)
    return target


def fill(repository: Path, weights: Path, name: str = "yolo11n_pose") -> bool:
    """Write `1/model.onnx` of a model whose `config.pbtxt` is there already; again only if something changed.

    Returns:
        Whether it was written; False if it already came from these weights and this code.

    Raises:
        RepositoryError: no such model, or its configuration names other weights.
        CheckpointError: the checkpoint cannot be served.
    """
    folder = repository / "cpu" / name
    config = folder / "config.pbtxt"
    if not config.is_file():
        raise RepositoryError(f"there is no {config}; use `posegate models add` for a new model")
    if not weights.is_file():
        raise RepositoryError(f"there is no {weights}; run scripts/setup, or name the checkpoint")
    digest = sha256_of(weights)
    wanted = _parameter(config.read_text(encoding="utf-8"), "sha256")
    if wanted != digest:
        raise RepositoryError(
            f"{weights.name} has SHA-256 {digest}, and {config} names {wanted or 'none'}; "
            "add another checkpoint under a name of its own with `posegate models add`"
        )
    target = folder / "1" / "model.onnx"
    if _made_from(target) == (digest, writer_digest()):
        return False
    graph = build_graph(read_checkpoint(weights))
    try:
        target.parent.mkdir(exist_ok=True)
        _write_graph(graph, target)
    except OSError as exc:
        raise RepositoryError(f"{target} cannot be written: {exc.strerror or exc}") from exc
    return True


def config_text(model: ServedModel) -> str:
    """The text of `config.pbtxt` for the OpenVINO backend."""
    parameters = {
        "family": "yolo_pose",
        "skeleton": model.skeleton,
        "weights": model.weights,
        "licence": model.licence,
        "source": model.source,
        "sha256": model.sha256,
        "precision": model.precision,
        **({"tenant": model.tenant} if model.tenant else {}),
    }
    free = len(model.shapes_hw) > 1
    if free:
        parameters["shapes"] = ",".join(f"{h}x{w}" for h, w in model.shapes_hw)
        parameters["prepared_shapes"] = ",".join(f"{h}x{w}" for h, w in model.prepared_hw)
        parameters["pad_value"] = str(PAD_VALUE)
    sides = "-1, -1" if free else "{}, {}".format(*model.shapes_hw[0])
    # The backend runs every shape once when it has compiled it; this proves the first through Triton.
    height, width = model.prepared_hw[0]
    warmup = (
        f'model_warmup {{ name: "{height}x{width}" batch_size: 1 inputs {{ key: "images" '
        f"value {{ data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] zero_data: true }} }} }}"
    )
    return f"""\
name: {quoted(model.name)}
backend: "openvino"
max_batch_size: {model.max_batch_size}
input {{ name: "images" data_type: TYPE_UINT8 dims: [ {sides}, 3 ] }}
output {{ name: "candidates" data_type: TYPE_FP32 dims: [ {CANDIDATES}, {5 + 3 * model.keypoints} ] }}
instance_group {{ count: 1 kind: KIND_CPU }}
{parameter_lines(parameters)}
{QUEUE}
{warmup}
"""


def check_tenant(name: str) -> None:
    """Accept the name of a tenant, or none.

    Raises:
        RepositoryError: no tenant can have that name.
    """
    if name and not is_tenant_name(name):
        raise RepositoryError(f"{name!a} is no name of a tenant: use a-z, 0-9, '.', '_' and '-'")


def parameter_lines(parameters: Mapping[str, str]) -> str:
    """`parameters` of a `config.pbtxt`, one a line."""
    return "\n".join(
        f"parameters {{ key: {quoted(key)} value {{ string_value: {quoted(value)} }} }}"
        for key, value in parameters.items()
    )


def shapes_for(stride: int) -> list[tuple[int, int]]:
    """The inputs (H, W) that a model of this largest stride allows, the square first.

    They are the minimum rectangles of images of every aspect ratio, as Ultralytics' `predict` makes them:
    the long side is `INPUT_SIDE`, the short side a multiple of the stride.
    """
    step = math.lcm(32, stride)
    short = range(INPUT_SIDE - step, 0, -step)
    return [(INPUT_SIDE, INPUT_SIDE)] + [shape for s in short for shape in ((s, INPUT_SIDE), (INPUT_SIDE, s))]


def prepared_for(stride: int) -> list[tuple[int, int]]:
    """Those of `shapes_for` that most images need."""
    return [shape for shape in PREPARED_HW if shape in shapes_for(stride)]


def spdx_licence(text: str) -> str:
    """The SPDX name that a checkpoint's licence line begins with: `AGPL-3.0 License (https://…)`."""
    return text.partition(" ")[0]


def writer_digest() -> str:
    """A digest of the code that writes graphs, so that a graph written by older code is written again."""
    digest = hashlib.sha256()
    for file in ("graph_builder.py", "yolo_graph.py", "yolo_head.py", "yolo_layers.py"):
        digest.update(Path(__file__).with_name(file).read_bytes())
    return digest.hexdigest()[:16]


def _write_graph(graph: onnx.ModelProto, path: Path) -> None:
    graph.metadata_props.add(key="writer", value=writer_digest())
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(graph.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _made_from(path: Path) -> tuple[str, str] | None:
    """Digests of the checkpoint and of the writer that a graph names, None if there is no such graph."""
    try:
        properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    except (OSError, DecodeError):
        return None
    return properties.get("sha256", ""), properties.get("writer", "")


def _parameter(config: str, key: str) -> str:
    found = re.search(rf'parameters\s*{{\s*key:\s*"{key}"\s*value\s*{{\s*string_value:\s*"([^"]*)"', config)
    return found[1] if found else ""


def quoted(text: str) -> str:
    """A string in protobuf's text format; what is not printable is left out."""
    printable = "".join(character for character in text if character.isprintable())
    return '"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'
