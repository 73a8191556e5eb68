"""Triton's model configuration: parses config.pbtxt and checks it against its family's tensor contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tritonclient.grpc as triton_grpc
from google.protobuf import text_format

from service.core.model import BODY_KEYPOINTS, Family, Model


def parse_config(text: str) -> Any:
    """The text of a config.pbtxt as Triton's ModelConfig.

    Raises:
        ValueError: it is not one; the text says where.
    """
    try:
        return text_format.Parse(text, triton_grpc.model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(str(error)) from error


def read_config(config: Any, version: str) -> Model | None:
    """A model's configuration (Triton's ModelConfig) as ours; None for a model without `family`.

    Raises:
        ValueError: it names a family whose tensor contract it does not keep; the text says how.
    """
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    family = parameters.get("family", "")
    if not family:
        return None
    inputs = {tensor.name: tensor for tensor in config.input}
    outputs = {tensor.name: tensor for tensor in config.output}
    contract: Family
    if family == "yolo_pose":
        contract = "yolo_pose"
        picture, keypoint_count = _yolo_pose(inputs, outputs)
        multiple = 32  # the coarsest stride of the network
    elif family == "top_down":
        contract = "top_down"
        picture, keypoint_count = _top_down(inputs, outputs)
        if not parameters.get("first_stage"):
            raise ValueError("parameter 'first_stage' is missing: it names the model that finds the people")
        multiple = 1
    else:
        raise ValueError(f"family '{family}' is unknown; known are yolo_pose and top_down")
    if not parameters.get("skeleton"):
        raise ValueError("parameter 'skeleton' is missing: it names the model's native skeleton")
    if config.max_batch_size < 1:
        raise ValueError("'max_batch_size' is 0: the tensors' first dimension must be Triton's batch")
    return Model(
        name=config.name,
        version=version,
        family=contract,
        skeleton=parameters["skeleton"],
        keypoint_count=keypoint_count,
        shapes_hw=_shapes(parameters.get("shapes", ""), list(picture.dims), multiple),
        max_batch_size=config.max_batch_size,
        precision=parameters.get("precision", ""),
        licence=parameters.get("licence", ""),
        weights=parameters.get("weights", ""),
        source=parameters.get("source", ""),
        sha256=parameters.get("sha256", ""),
        first_stage=parameters.get("first_stage", ""),
        takes_body="body" in inputs,
    )


def _yolo_pose(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> tuple[Any, int]:
    picture = _picture(inputs, "images")
    candidates = _tensor(outputs, "candidates", "TYPE_FP32", 2)
    keypoint_count, rest = divmod(candidates.dims[1] - 5, 3)
    if rest or keypoint_count < 1:
        raise ValueError(f"'candidates' has rows of {candidates.dims[1]}, which is not 5 + 3 · keypoints")
    return picture, keypoint_count


def _top_down(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> tuple[Any, int]:
    picture = _picture(inputs, "crops")
    if "body" in inputs:
        body = _tensor(inputs, "body", "TYPE_FP32", 2)
        if list(body.dims) != [BODY_KEYPOINTS, 3]:
            raise ValueError(f"tensor 'body' is {list(body.dims)}, not [{BODY_KEYPOINTS}, 3]")
    unknown = set(inputs) - {"crops", "body"}
    if unknown:
        raise ValueError(f"inputs {sorted(unknown)} are not of family top_down, which has crops and body")
    keypoint_count = int(_tensor(outputs, "keypoints", "TYPE_FP32", 2).dims[0])
    _fixed(outputs, "keypoints", [max(1, keypoint_count), 2])
    _fixed(outputs, "scores", [keypoint_count])
    _fixed(outputs, "positions", [keypoint_count, 3])
    return picture, keypoint_count


def _picture(inputs: Mapping[str, Any], name: str) -> Any:
    tensor = _tensor(inputs, name, "TYPE_UINT8", 3)
    if tensor.dims[2] != 3:
        raise ValueError(f"tensor '{name}' has {tensor.dims[2]} channels, not 3 (height, width, RGB)")
    return tensor


def _fixed(outputs: Mapping[str, Any], name: str, dims: list[int]) -> None:
    tensor = _tensor(outputs, name, "TYPE_FP32", len(dims))
    if list(tensor.dims) != dims:
        raise ValueError(f"tensor '{name}' is {list(tensor.dims)}, not {dims}")


def _tensor(tensors: Mapping[str, Any], name: str, data_type: str, rank: int) -> Any:
    tensor = tensors.get(name)
    if tensor is None:
        raise ValueError(f"tensor '{name}' is missing; there are {sorted(tensors)}")
    types = triton_grpc.model_config_pb2.DataType
    if types.Name(tensor.data_type) != data_type:
        raise ValueError(f"tensor '{name}' is {types.Name(tensor.data_type)}, not {data_type}")
    if len(tensor.dims) != rank:
        raise ValueError(f"tensor '{name}' has {len(tensor.dims)} dimensions beside the batch, not {rank}")
    return tensor


def _shapes(parameter: str, dims: list[int], multiple: int) -> tuple[tuple[int, int], ...]:
    """Allowed inputs from 'HxW,HxW', or from fixed dimensions [H, W, 3]."""
    if not parameter and min(dims) < 1:
        raise ValueError("parameter 'shapes' is missing, and the input's dimensions are not fixed")
    shapes = []
    for text in (parameter or f"{dims[0]}x{dims[1]}").split(","):
        height, _, width = text.strip().partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            raise ValueError(f"parameter 'shapes' holds '{text}', which is not HxW")
        shape = (int(height), int(width))
        if any(fixed not in (-1, side) for fixed, side in zip(dims, shape, strict=False)):
            raise ValueError(f"parameter 'shapes' allows {text}, the input is {dims[0]}x{dims[1]}")
        if any(side % multiple for side in shape):
            raise ValueError(f"the input may be {text}, which is not a multiple of {multiple}")
        shapes.append(shape)
    return tuple(shapes)
