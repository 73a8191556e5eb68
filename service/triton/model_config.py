"""Triton's model configuration: parses config.pbtxt and checks it against its family's tensor contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tritonclient.grpc as triton_grpc
from google.protobuf import text_format

from service.core.model import BODY_KEYPOINTS, Family, Model

_MAX_DESCRIPTION_BYTES = 1000


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
    """Read a model's configuration (Triton's ModelConfig); None for a model without `family`.

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
        image_input, keypoint_count = _yolo_pose(inputs, outputs)
        multiple = 32  # the coarsest stride of the network
    elif family == "top_down":
        contract = "top_down"
        image_input, keypoint_count = _top_down(inputs, outputs)
        if not parameters.get("first_stage"):
            raise ValueError("parameter 'first_stage' is missing: it names the model that finds the people")
        multiple = 1
    else:
        raise ValueError(f"family '{family}' is unknown; known are yolo_pose and top_down")
    if not parameters.get("skeleton"):
        raise ValueError("parameter 'skeleton' is missing: it names the model's native skeleton")
    takes_image = contract == "top_down" and "image" in inputs
    if config.max_batch_size < 1:
        raise ValueError("'max_batch_size' is 0: the tensors' first dimension must be Triton's batch")
    dims = list(image_input.dims)
    shapes = _shapes("shapes", parameters.get("shapes", ""), dims, multiple)
    prepared = parameters.get("prepared_shapes", "")
    prepared_hw = _shapes("prepared_shapes", prepared, dims, multiple) if prepared else ()
    if strange := [f"{height}x{width}" for height, width in prepared_hw if (height, width) not in shapes]:
        raise ValueError(f"parameter 'prepared_shapes' has {', '.join(strange)}, which 'shapes' has not")
    return Model(
        name=config.name,
        version=version,
        family=contract,
        skeleton=parameters["skeleton"],
        keypoint_count=keypoint_count,
        shapes_hw=shapes,
        prepared_hw=prepared_hw,
        max_batch_size=_max_persons(parameters) if takes_image else config.max_batch_size,
        precision=parameters.get("precision", ""),
        licence=parameters.get("licence", ""),
        weights=parameters.get("weights", ""),
        source=parameters.get("source", ""),
        sha256=parameters.get("sha256", ""),
        description=_description(parameters),
        first_stage=parameters.get("first_stage", ""),
        tenant=parameters.get("tenant", ""),
        takes_body=takes_image or "body" in inputs,
        takes_image=takes_image,
        candidate_count=max(0, int(outputs["candidates"].dims[0])) if contract == "yolo_pose" else 0,
    )


def _description(parameters: Mapping[str, str]) -> str:
    text = parameters.get("description", "")
    if len(text.encode()) > _MAX_DESCRIPTION_BYTES:
        raise ValueError(f"parameter 'description' has more than {_MAX_DESCRIPTION_BYTES} bytes")
    return text


def _yolo_pose(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> tuple[Any, int]:
    image_input = _image_input(inputs, "images")
    candidates = _tensor(outputs, "candidates", "TYPE_FP32", 2)
    keypoint_count, rest = divmod(candidates.dims[1] - 5, 3)
    if rest or keypoint_count < 1:
        raise ValueError(f"'candidates' has rows of {candidates.dims[1]}, which is not 5 + 3 · keypoints")
    return image_input, keypoint_count


def _top_down(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> tuple[Any, int]:
    if "image" in inputs:
        return _top_down_on_image(inputs, outputs)
    image_input = _image_input(inputs, "crops")
    if "body" in inputs:
        _fixed(inputs, "body", [BODY_KEYPOINTS, 3])
    _known(inputs, {"crops", "body"})
    keypoint_count = int(_tensor(outputs, "keypoints", "TYPE_FP32", 2).dims[0])
    _fixed(outputs, "keypoints", [max(1, keypoint_count), 2])
    _fixed(outputs, "scores", [keypoint_count])
    _fixed(outputs, "positions", [keypoint_count, 3])
    return image_input, keypoint_count


def _top_down_on_image(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> tuple[Any, int]:
    """The contract of a model that takes one image with its persons: any number of them, in a dimension of
    their own after Triton's batch."""
    image_input = _image_input(inputs, "image")
    _fixed(inputs, "boxes", [-1, 4])
    _fixed(inputs, "bodies", [-1, BODY_KEYPOINTS, 3])
    _known(inputs, {"image", "boxes", "bodies"})
    keypoint_count = int(_tensor(outputs, "keypoints", "TYPE_FP32", 3).dims[1])
    _fixed(outputs, "keypoints", [-1, max(1, keypoint_count), 2])
    _fixed(outputs, "scores", [-1, keypoint_count])
    _fixed(outputs, "positions", [-1, keypoint_count, 3])
    return image_input, keypoint_count


def _known(inputs: Mapping[str, Any], known: set[str]) -> None:
    if unknown := set(inputs) - known:
        raise ValueError(
            f"inputs {sorted(unknown)} are not of family top_down, which has crops and body, or image, boxes "
            "and bodies"
        )


def _max_persons(parameters: Mapping[str, str]) -> int:
    text = parameters.get("max_persons", "")
    if not (text.isdecimal() and int(text)):
        raise ValueError(
            f"parameter 'max_persons' is '{text}': it must say how many persons one request may have"
        )
    return int(text)


def _image_input(inputs: Mapping[str, Any], name: str) -> Any:
    tensor = _tensor(inputs, name, "TYPE_UINT8", 3)
    if tensor.dims[2] != 3:
        raise ValueError(f"tensor '{name}' has {tensor.dims[2]} channels, not 3 (height, width, RGB)")
    return tensor


def _fixed(tensors: Mapping[str, Any], name: str, dims: list[int]) -> None:
    tensor = _tensor(tensors, name, "TYPE_FP32", len(dims))
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


def _shapes(name: str, parameter: str, dims: list[int], multiple: int) -> tuple[tuple[int, int], ...]:
    """Allowed inputs from 'HxW,HxW', or from fixed dimensions [H, W, 3]."""
    if not parameter and min(dims) < 1:
        raise ValueError(f"parameter '{name}' is missing, and the input's dimensions are not fixed")
    shapes = []
    for text in (parameter or f"{dims[0]}x{dims[1]}").split(","):
        height, _, width = text.strip().partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            raise ValueError(f"parameter '{name}' holds '{text}', which is not HxW")
        shape = (int(height), int(width))
        if any(fixed not in (-1, side) for fixed, side in zip(dims, shape, strict=False)):
            raise ValueError(f"parameter '{name}' allows {text}, the input is {dims[0]}x{dims[1]}")
        if any(side % multiple for side in shape):
            raise ValueError(f"the input may be {text}, which is not a multiple of {multiple}")
        shapes.append(shape)
    return tuple(shapes)
