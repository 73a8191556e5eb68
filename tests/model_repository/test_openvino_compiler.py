"""Inference of one item by the OpenVINO backend, without a Triton."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphs.compiler import Compiler, Item, run, tensor_on
from graphs.config import read_config
from tests.model_repository.test_openvino_config import config
from tests.model_repository.tiny_models import mean_colour


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.bool_])
def test_a_read_only_input_is_read_where_it_lies(dtype: type[np.generic]) -> None:
    array = np.frombuffer(bytes(24), dtype).reshape(1, 2, -1)
    assert not array.flags.writeable
    tensor = tensor_on(array)
    assert tensor.data.ctypes.data == array.ctypes.data
    assert tensor.data.dtype == array.dtype
    assert tensor.data.shape == array.shape


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside others"])
def test_every_item_has_its_own_inputs_and_results(tmp_path: Path, *, alone: bool) -> None:
    onnx.save(mean_colour(), tmp_path / "model.onnx")
    described = config([-1, -1, 3], {"shapes": "4x4", "threads": "2"})
    described["output"] = [{"name": "means", "data_type": "TYPE_FP32", "dims": [3]}]
    compiler = Compiler(tmp_path / "model.onnx", read_config(described), lambda line: None)
    plan = compiler.spread(compiler.plan((4, 4)), (4, 4))
    images = [np.full((1, 8, 8, 3), value, np.uint8)[:, ::2, ::2] for value in range(8)]
    results = []
    for image in images:
        read_only = image.copy()
        read_only.flags.writeable = False
        results.append(run(Item(plan, [read_only]), alone=alone)[plan.outputs["means"]])
    assert [result.tolist() for result in results] == [[[value] * 3] for value in range(8)]
    # Rows that do not lie one after another.
    assert run(Item(plan, [images[5]]), alone=alone)[plan.outputs["means"]].tolist() == [[5, 5, 5]]


def test_inputs_go_by_name_where_the_graph_has_another_order(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("a", "b", "y")]
    graph = helper.make_graph([helper.make_node("Sub", ["a", "b"], ["y"])], "graph", values[:2], values[2:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "model.onnx")
    described = config([4], {"threads": "2"})
    described["input"] = [{"name": name, "data_type": "TYPE_FP32", "dims": ["4"]} for name in ("b", "a")]
    described["output"] = [{"name": "y", "data_type": "TYPE_FP32", "dims": ["4"]}]
    compiler = Compiler(tmp_path / "model.onnx", read_config(described), lambda line: None)
    b, a = np.full((1, 4), 1, np.float32), np.full((1, 4), 5, np.float32)
    assert run(Item(compiler.plan(()), [b, a]), alone=True)[0].tolist() == [[4, 4, 4, 4]]
