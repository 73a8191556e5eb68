"""Rewrite a public RTMO ONNX file to the `yolo_pose` tensor contract.

    images      UINT8 (N, H, W, 3)          RGB, letterboxed with grey 114
    candidates  FP32 (N, 1000, 5 + 3K)      by falling score: cx, cy, w, h in px of the input, score, then
                                            x, y, score of each keypoint; absent rows are 0

What the public file takes and gives (OpenMMLab, Apache-2.0):

    input       float (N, 3, 640, 640)      BGR, 0 to 255, neither mean nor deviation
    dets        float (N, M, 5)             x1, y1, x2, y2 in px of the input, score; after NMS
    keypoints   float (N, M, K, 3)          x, y in px of the input, score (visibility)

Sources. Values and colour order: mmpose, `configs/body_2d_keypoint/rtmo/body7/rtmo-*_body7-640x640.py`, whose
`PoseDataPreprocessor` has mean 0 and deviation 1 and leaves `bgr_to_rgb` at its default, false, behind a
`LoadImage` that decodes with cv2, that is to BGR; grey 114 is `pad_val` of the same files. Outputs: mmdeploy,
`configs/mmpose/pose-detection_rtmo_onnxruntime_dynamic.py` (their names; only the batch is a free axis) and
`mmdeploy/codebase/mmpose/models/heads/rtmo_head.py` (their content).

NMS (IoU 0.65) and a lower bound of the score (0.1) are in the file, so `min_score` below 0.1 and
`iou_threshold` above 0.65 find no further persons. In a batch the file fills up images with few persons by
copies of its first candidate; those are sorted in by their score, and the gateway's NMS drops copies.

TensorRT reads NMS as INMSLayer; TensorRT-RTX reads the graph too and has nothing that runs that layer.

Which inputs and batches a file allows is established by running it on the images that ship with the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.core.geometry import letterbox
from service.core.poses import Poses
from service.core.yolo import decode_candidates
from service.models.accuracy import shipped_samples
from service.models.batch import run
from service.models.checkpoint import sha256_of
from service.models.errors import CheckpointError, RepositoryError
from service.models.half import halve_trunk
from service.models.public_graph import Nodes, inputs_of, listed, load_public, opset_of, shape_of
from service.models.repository import (
    MAX_BATCH_SIZE,
    PREPARED_HW,
    CpuPrecision,
    ServedModel,
    check_name,
    check_tenant,
    config_text,
    place_model,
)
from service.models.yolo_graph import Precision
from service.models.yolo_head import CANDIDATES

PREFIX = "network/"
"""Prefix of every name of the public graph, so that the names of the contract are free."""

MIN_OPSET = 12
"""GatherND with `batch_dims`."""

FILE_MIN_SCORE = 0.1
"""`score_thr` in `test_cfg` of every RTMO configuration: rows below it are padding of a batch."""

_IOU_THRESHOLD = 0.65
_TOLERANCE_PX = 0.5
_SCORE_TOLERANCE = 0.01


@dataclass(frozen=True)
class Rtmo:
    """Input and outputs of a public graph.

    Attributes:
        input: name of the image, float (N, 3, H, W).
        size_hw: of the image; 0 where the axis is free.
        boxes: name of the output (N, M, 5).
        keypoints: name of the output (N, M, K, 3).
        keypoint_count: K; 0 where the file does not say it.
    """

    input: str
    size_hw: tuple[int, int]
    boxes: str
    keypoints: str
    keypoint_count: int


@dataclass(frozen=True, eq=False)
class RewrittenRtmo:
    """A graph that keeps the contract.

    Attributes:
        graph: with a free batch if the file's was free.
        keypoint_count: K.
        shapes_hw: the inputs that it was seen to work with.
        max_batch_size: 1 where several images together did not give what each gives alone.
    """

    graph: onnx.ModelProto
    keypoint_count: int
    shapes_hw: tuple[tuple[int, int], ...]
    max_batch_size: int


def rewrite(path: Path, precision: Precision = "fp32") -> RewrittenRtmo:
    """The graph of a public file, by the contract.

    Args:
        path: an .onnx file, or a .zip with one in it, as mmdeploy packs them.
        precision: with fp16, the convolutions; norm, attention, decoding and NMS stay in fp32.

    Raises:
        CheckpointError: the file cannot be read, or is no RTMO model; the message says what it is instead.
    """
    model = load_public(path)
    if opset_of(model) < MIN_OPSET:
        raise CheckpointError(f"{path.name} has opset {opset_of(model)}; export it with {MIN_OPSET} or later")
    found = describe(model, path.name)
    sizes = [found.size_hw] if all(found.size_hw) else _sizes_of(found.size_hw)
    keypoint_count = found.keypoint_count or _count_keypoints(model, found, sizes, path.name)
    model = onnx.compose.add_prefix(model, PREFIX)
    found = Rtmo(
        PREFIX + found.input,
        found.size_hw,
        PREFIX + found.boxes,
        PREFIX + found.keypoints,
        keypoint_count,
    )
    if precision == "fp16":
        halve_trunk(model.graph, found.input, path.name)
    _wrap(model, found)
    model.producer_name = "posegate"
    helper.set_model_props(
        model,
        {"family": "yolo_pose", "source": path.name, "sha256": sha256_of(path), "precision": precision},
    )
    try:
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise CheckpointError(f"{path.name} gives a graph that is not valid: {exc}") from exc
    shapes, reason = _working(model, sizes)
    if not shapes:
        raise CheckpointError(f"{path.name} does not run: {reason}")
    free_batch = not model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    batched = free_batch and all(_batch_equals_singles(model, shape) for shape in shapes)
    if len(shapes) == 1:
        for dim, side in zip(
            list(model.graph.input[0].type.tensor_type.shape.dim)[1:3], shapes[0], strict=True
        ):
            dim.Clear()
            dim.dim_value = side
    return RewrittenRtmo(model, keypoint_count, shapes, MAX_BATCH_SIZE if batched else 1)


def add_rtmo(
    repository: Path,
    path: Path,
    *,
    name: str,
    skeleton: str = "coco_17",
    skeleton_keypoints: int = 17,
    precision: Precision = "fp32",
    cpu_precision: CpuPrecision = "f32",
    licence: str = "Apache-2.0",
    source: str = "",
    tenant: str = "",
    replace: bool = False,
) -> Path:
    """Write a new served model, complete or not at all.

    Args:
        repository: the folder that holds `cpu/`.
        path: see `rewrite`.
        skeleton_keypoints: how many keypoints the template `skeleton` has.
        precision: of the ONNX file.
        cpu_precision: what OpenVINO computes in.
        licence: of the weights, SPDX; that of the published RTMO models by default.
        source: where they come from.
        tenant: the only one who may use it; empty for everyone.
        replace: a model of this name may be overwritten.

    Returns:
        The model's folder.

    Raises:
        RepositoryError: the name is taken or not allowed, or the skeleton does not fit.
        CheckpointError: the file cannot be served.
    """
    check_name(repository, name, replace=replace)
    check_tenant(tenant)
    made = rewrite(path, precision)
    if made.keypoint_count != skeleton_keypoints:
        raise RepositoryError(
            f"{path.name} has {made.keypoint_count} keypoints and skeleton {skeleton} has "
            f"{skeleton_keypoints}; name the skeleton that the model was trained for"
        )
    model = ServedModel(
        name=name,
        skeleton=skeleton,
        keypoints=made.keypoint_count,
        weights=path.name,
        licence=licence,
        source=source or path.name,
        sha256=sha256_of(path),
        precision=cpu_precision,
        shapes_hw=made.shapes_hw,
        prepared_hw=made.shapes_hw,
        tenant=tenant,
        max_batch_size=made.max_batch_size,
    )
    return place_model(repository, name, made.graph, config_text(model))


def describe(model: onnx.ModelProto, name: str) -> Rtmo:
    """Which tensors are the image, the boxes and the keypoints: by their shapes, names differ.

    Raises:
        CheckpointError: the tensors are not those of RTMO.
    """
    images = inputs_of(model)
    shapes = [shape_of(value) for value in images]
    if len(images) != 1 or len(shapes[0]) != 4 or shapes[0][1] not in (0, 3):
        raise CheckpointError(f"{name} takes {listed(images)}, not one image (N, 3, H, W)")
    outputs = {len(shape_of(value)): value for value in model.graph.output}
    boxes, keypoints = outputs.get(3), outputs.get(4)
    if (
        len(model.graph.output) != 2
        or boxes is None
        or keypoints is None
        or shape_of(boxes)[2] not in (0, 5)
        or shape_of(keypoints)[3] not in (0, 3)
    ):
        raise CheckpointError(
            f"{name} gives {listed(model.graph.output)}; "
            "RTMO gives boxes (N, M, 5) and keypoints (N, M, K, 3)"
        )
    height, width = shapes[0][2:]
    return Rtmo(images[0].name, (height, width), boxes.name, keypoints.name, shape_of(keypoints)[2])


def _sizes_of(size_hw: tuple[int, int]) -> list[tuple[int, int]]:
    """The allowed inputs that fit axes of which some are free."""
    return [
        shape
        for shape in PREPARED_HW
        if all(fixed in (0, side) for fixed, side in zip(size_hw, shape, strict=True))
    ]


def _count_keypoints(model: onnx.ModelProto, found: Rtmo, sizes: Sequence[tuple[int, int]], name: str) -> int:
    """K of a file that does not say it, by running it once, on the largest input."""
    height, width = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    names = [value.name for value in model.graph.output]
    try:
        outputs = run(model, np.zeros((1, 3, height, width), np.float32))
    except Exception as exc:  # whatever an engine has against it
        raise CheckpointError(f"{name} does not run on {width}×{height} px: {exc}") from exc
    return int(outputs[names.index(found.keypoints)].shape[2])


def _wrap(model: onnx.ModelProto, found: Rtmo) -> None:
    """Put the step from uint8 RGB rows before the network, and rows of candidates behind it."""
    graph = model.graph
    graph_input = next(value for value in graph.input if value.name == found.input)
    batch = graph_input.type.tensor_type.shape.dim[0].dim_value or "batch"
    input_type = graph_input.type.tensor_type.elem_type
    nodes = Nodes(graph, opset_of(model))
    width = 5 + 3 * found.keypoint_count

    # TensorRT wants a uint8 input to be cast before anything else.
    planes = nodes.add("Transpose", [nodes.cast("images", TensorProto.FLOAT)], perm=[0, 3, 1, 2])
    bgr = nodes.add("Gather", [planes, nodes.constant([2, 1, 0], np.int64)], axis=1)
    before = [*nodes.taken(), helper.make_node("Cast", [bgr], [found.input], to=input_type)]

    boxes, keypoints = (
        name if nodes.types.get(name) == TensorProto.FLOAT else nodes.cast(name, TensorProto.FLOAT)
        for name in (found.boxes, found.keypoints)
    )

    def columns(*indices: int) -> str:
        return nodes.add("Gather", [boxes, nodes.constant(indices, np.int64)], axis=2)

    first, last = columns(0, 1), columns(2, 3)
    centre = nodes.add("Mul", [nodes.add("Add", [first, last]), nodes.constant(0.5)])
    size = nodes.add("Sub", [last, first])
    flat = nodes.add("Reshape", [keypoints, nodes.constant([0, 0, width - 5], np.int64)])
    rows = nodes.add("Concat", [centre, size, columns(4), flat], axis=2)
    padded = nodes.add("Pad", [rows, nodes.constant([0, 0, 0, 0, CANDIDATES, 0], np.int64)])
    scores = nodes.add("Gather", [padded, nodes.constant(4, np.int64)], axis=2)
    order = nodes.best(scores, CANDIDATES)
    index = nodes.unsqueeze(order)
    nodes.add("GatherND", [padded, index], output="candidates", batch_dims=1)

    network = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before, *network, *nodes.taken()])
    graph.initializer.extend(nodes.constants)
    sides = [side or axis for side, axis in zip(found.size_hw, ("height", "width"), strict=True)]
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, *sides, 3]))
    graph.output.append(
        helper.make_tensor_value_info("candidates", TensorProto.FLOAT, [batch, CANDIDATES, width])
    )


def _working(
    model: onnx.ModelProto, sizes: Sequence[tuple[int, int]]
) -> tuple[tuple[tuple[int, int], ...], str]:
    """Those of `sizes` that the graph runs on, and why the last other one failed.

    A file may declare free axes though its grid of cells is a constant for one size.
    """
    shapes, reason = [], ""
    for height, width in sizes:
        try:
            run(model, np.zeros((1, height, width, 3), np.uint8))
        except Exception as exc:  # whatever an engine has against it, it does not work
            reason = str(exc)
        else:
            shapes.append((height, width))
    return tuple(shapes), reason


def _batch_equals_singles(model: onnx.ModelProto, shape_hw: tuple[int, int]) -> bool:
    """Whether the sample images together give the persons that each gives alone; not without any person."""
    boxed = [letterbox(sample.image, shape_hw) for sample in shipped_samples()]
    images = np.stack([image for image, _ in boxed])
    try:
        (together,) = run(model, images)
    except Exception:
        return False  # whatever an engine has against it, it does not work
    persons = 0
    for index, (_, to_input) in enumerate(boxed):
        (alone,) = run(model, images[index : index + 1])
        expected, found = _persons(alone[0], to_input), _persons(together[index], to_input)
        if expected.boxes_xyxy.shape != found.boxes_xyxy.shape:
            return False
        if len(expected.scores) and not (
            np.abs(expected.boxes_xyxy - found.boxes_xyxy).max() < _TOLERANCE_PX
            and np.abs(expected.scores - found.scores).max() < _SCORE_TOLERANCE
            and np.abs(expected.keypoints[..., :2] - found.keypoints[..., :2]).max() < _TOLERANCE_PX
        ):
            return False
        persons += len(expected.scores)
    return persons > 0


def _persons(candidates: NDArray[np.float32], to_input: Any) -> Poses:
    return decode_candidates(
        candidates, to_input, min_score=FILE_MIN_SCORE, iou_threshold=_IOU_THRESHOLD, max_persons=CANDIDATES
    )
