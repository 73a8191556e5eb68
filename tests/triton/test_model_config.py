"""Model configurations of Triton against the tensor contracts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2

from service.core.model import Model
from service.triton.model_config import parse_config, read_config
from tests.fakes import MODEL, model_config


def tensors(name: str, data_type: str, dims: list[int]) -> dict[str, Any]:
    return {"name": name, "data_type": model_config_pb2.DataType.Value(data_type), "dims": dims}


def inputs(name: str = "images", data_type: str = "TYPE_UINT8", dims: list[int] | None = None) -> Any:
    return [model_config_pb2.ModelInput(**tensors(name, data_type, dims or [-1, -1, 3]))]


def outputs(name: str = "candidates", data_type: str = "TYPE_FP32", dims: list[int] | None = None) -> Any:
    return [model_config_pb2.ModelOutput(**tensors(name, data_type, dims or [1000, 56]))]


def top_down(**changes: list[int]) -> dict[str, Any]:
    """Changes to model_config that make it one of family `top_down`; dims by tensor name."""
    dims = {
        "crops": [256, 192, 3], "keypoints": [133, 2], "scores": [133], "positions": [133, 3], **changes
    }  # fmt: skip
    return {
        "input": inputs("crops", dims=dims["crops"]),
        "output": [
            model_config_pb2.ModelOutput(**tensors(name, "TYPE_FP32", dims[name]))
            for name in ("keypoints", "scores", "positions")
            if dims[name]
        ],
        "parameters": {
            "family": "top_down",
            "first_stage": "yolo11n_pose",
            "skeleton": "coco_wholebody_133",
            "shapes": None,
        },
    }


@pytest.mark.parametrize("family", [None, ""], ids=["no family", "empty family"])
def test_a_model_without_a_family_is_none_of_ours(family: str | None) -> None:
    assert read_config(model_config(parameters={"family": family}), "1") is None


def test_everything_that_a_configuration_says_is_read() -> None:
    assert read_config(model_config(), "7") == replace(MODEL, version="7", ready=False)


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"input": inputs(dims=[480, 640, 3]), "parameters": {"shapes": None}}, "shapes_hw", ((480, 640),)),
        ({"input": inputs(dims=[480, 640, 3]), "parameters": {"shapes": "480x640"}}, "shapes_hw",
         ((480, 640),)),
        ({"parameters": {"shapes": " 480x640 , 640x640"}}, "shapes_hw", ((480, 640), (640, 640))),
        ({"output": outputs(dims=[1000, 8])}, "keypoint_count", 1),
        ({"output": outputs(dims=[-1, 56])}, "keypoint_count", 17),
        ({"output": outputs(dims=[300, 404])}, "keypoint_count", 133),
        ({"max_batch_size": 1}, "max_batch_size", 1),
        ({"parameters": {"description": "Small."}}, "description", "Small."),
        (top_down(), "family", "top_down"),
        (top_down(), "keypoint_count", 133),
        (top_down(), "shapes_hw", ((256, 192),)),
        ({"parameters": dict.fromkeys(("precision", "licence", "weights", "source", "sha256"))},
         "licence", ""),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value),
)  # fmt: skip
def test_a_configuration_that_keeps_its_contract_is_accepted(
    changes: dict[str, Any], field: str, value: Any
) -> None:
    model = read_config(model_config(**changes), "1")
    assert isinstance(model, Model)
    assert getattr(model, field) == value


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"parameters": {"family": "yolo"}}, "family 'yolo' is unknown"),
        ({"parameters": {"skeleton": None}}, "'skeleton' is missing"),
        ({"input": []}, "'images' is missing; there are \\[\\]"),
        ({"input": inputs("picture")}, "'images' is missing; there are \\['picture'\\]"),
        ({"input": inputs(data_type="TYPE_FP32")}, "'images' is TYPE_FP32, not TYPE_UINT8"),
        ({"input": inputs(dims=[-1, 3])}, "'images' has 2 dimensions beside the batch, not 3"),
        ({"input": inputs(dims=[1, 640, 640, 3])}, "'images' has 4 dimensions"),
        ({"input": inputs(dims=[3, 640, 640])}, "'images' has 640 channels"),
        ({"input": inputs(dims=[-1, -1, 4])}, "'images' has 4 channels"),
        ({"input": inputs(dims=[-1, -1, -1])}, "'images' has -1 channels"),
        ({"output": []}, "'candidates' is missing"),
        ({"output": outputs(data_type="TYPE_FP16")}, "'candidates' is TYPE_FP16"),
        ({"output": outputs(dims=[1000])}, "'candidates' has 1 dimensions"),
        ({"output": outputs(dims=[1000, 57])}, "rows of 57"),
        ({"output": outputs(dims=[1000, 5])}, "rows of 5"),
        ({"output": outputs(dims=[1000, 4])}, "rows of 4"),
        ({"output": outputs(dims=[1000, -1])}, "rows of -1"),
        ({"parameters": {"shapes": None}}, "'shapes' is missing"),
        ({"parameters": {"shapes": "640"}}, "'640', which is not HxW"),
        ({"parameters": {"shapes": "640x"}}, "'640x', which is not HxW"),
        ({"parameters": {"shapes": "640x640,"}}, "'', which is not HxW"),
        ({"parameters": {"shapes": "0x640"}}, "'0x640', which is not HxW"),
        ({"parameters": {"shapes": "-640x640"}}, "'-640x640', which is not HxW"),
        ({"parameters": {"shapes": "640x640x3"}}, "which is not HxW"),
        ({"parameters": {"shapes": "__import__('os').system('true')"}}, "which is not HxW"),
        ({"parameters": {"shapes": "640x650"}}, "640x650.* multiple of 32"),
        ({"input": inputs(dims=[100, 100, 3]), "parameters": {"shapes": None}}, "100x100.* multiple of 32"),
        ({"input": inputs(dims=[640, 640, 3])}, "allows 384x640, the input is 640x640"),
        ({"input": inputs(dims=[640, -1, 3])}, "allows 384x640, the input is 640x-1"),
        ({"max_batch_size": 0}, "'max_batch_size' is 0"),
        ({"parameters": {"description": "x" * 1001}}, "more than 1000 bytes"),
        (
            {**top_down(), "parameters": {"family": "top_down", "skeleton": "s", "shapes": None}},
            "'first_stage' is missing",
        ),
        (top_down(crops=[192, 3]), "'crops' has 2 dimensions"),
        (top_down(crops=[-1, -1, 3]), "'shapes' is missing"),
        (top_down(keypoints=[]), "'keypoints' is missing"),
        (top_down(keypoints=[133, 3]), "'keypoints' is \\[133, 3\\]"),
        (top_down(scores=[]), "'scores' is missing"),
        (top_down(scores=[17]), "'scores' is \\[17\\], not \\[133\\]"),
        (top_down(positions=[]), "'positions' is missing"),
        (top_down(positions=[133, 2]), "'positions' is \\[133, 2\\], not \\[133, 3\\]"),
        (top_down(keypoints=[-1, 2]), "'keypoints' is \\[-1, 2\\]"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)  # fmt: skip
def test_a_configuration_that_breaks_its_contract_is_refused_with_the_reason(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        read_config(model_config(**changes), "1")


def on_image(**changes: list[int] | str | None) -> dict[str, Any]:
    """Changes that make it a top-down model which takes the image; dims by tensor name, and `max_persons`."""
    dims: dict[str, Any] = {
        "image": [-1, -1, 3], "boxes": [-1, 4], "bodies": [-1, 17, 3], "keypoints": [-1, 634, 2],
        "scores": [-1, 634], "positions": [-1, 634, 3], "max_persons": "16", **changes,
    }  # fmt: skip
    taken = [name for name in ("image", "boxes", "bodies", "crops") if dims.get(name)]
    kinds = {"image": "TYPE_UINT8", "crops": "TYPE_UINT8"}
    return {
        "input": [
            model_config_pb2.ModelInput(**tensors(name, kinds.get(name, "TYPE_FP32"), dims[name]))
            for name in taken
        ],
        "output": [
            model_config_pb2.ModelOutput(**tensors(name, "TYPE_FP32", dims[name]))
            for name in ("keypoints", "scores", "positions")
        ],
        "parameters": {
            "family": "top_down",
            "first_stage": "yolo11n_pose",
            "skeleton": "mediapipe_wholebody",
            "shapes": "640x640",
            "max_persons": dims["max_persons"],
        },
    }


def test_a_top_down_model_may_take_the_image() -> None:
    model = read_config(model_config(**on_image()), "1")
    assert isinstance(model, Model)
    assert (model.takes_image, model.takes_body, model.max_batch_size) == (True, True, 16)
    assert (model.keypoint_count, model.shapes_hw) == (634, ((640, 640),))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"boxes": []}, "'boxes' is missing"),
        ({"boxes": [-1, 5]}, "'boxes' is \\[-1, 5\\], not \\[-1, 4\\]"),
        ({"bodies": []}, "'bodies' is missing"),
        ({"bodies": [-1, 133, 3]}, "'bodies' is \\[-1, 133, 3\\], not \\[-1, 17, 3\\]"),
        ({"crops": [4, 4, 3]}, "inputs \\['crops'\\] are not of family top_down"),
        ({"scores": [-1, 17]}, "'scores' is \\[-1, 17\\], not \\[-1, 634\\]"),
        ({"max_persons": None}, "'max_persons' is ''"),
        ({"max_persons": "0"}, "'max_persons' is '0'"),
        ({"max_persons": "many"}, "'max_persons' is 'many'"),
    ],
    ids=str,
)
def test_a_model_that_takes_the_image_but_breaks_the_contract_is_refused(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        read_config(model_config(**on_image(**changes)), "1")


def test_the_shipped_whole_body_model_keeps_the_contract() -> None:
    text = (Path(__file__).parents[2] / "model_repository/cpu/mediapipe_wholebody/config.pbtxt").read_text(
        "utf-8"
    )
    model = read_config(parse_config(text), "1")
    assert isinstance(model, Model)
    assert model.takes_image
