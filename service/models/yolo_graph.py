"""Write the ONNX graph of a YOLOv8 or YOLO11 pose checkpoint.

images      UINT8 (N, H, W, 3)       RGB, letterboxed; H and W multiples of the largest stride
candidates  FP32 (N, 1000, 5 + 3K)   the best rows, sorted by score: cx, cy, w, h in px of the input,
                                     score, then K × (x, y, score)

N, H and W are dynamic. An image with fewer than 1000 cells gets rows of zeros at the end. The score is that
of the best class; a row does not say which class it is. Keypoints of a `[K, 2]` model have score 1.
The graph follows the module tree: layer `i` reads the layers named by its `f`.
"""

from __future__ import annotations

from typing import Literal

import onnx
from onnx import TensorProto, helper, shape_inference

from service.models.checkpoint import Checkpoint, Module
from service.models.errors import CheckpointError
from service.models.graph_builder import IR_VERSION, OPSET, Feature, GraphBuilder
from service.models.yolo_head import CANDIDATES, HeadShape, head_shape, write_head
from service.models.yolo_layers import LayerWriter

Precision = Literal["fp32", "fp16"]


def pose_head(checkpoint: Checkpoint) -> HeadShape:
    """The numbers of the checkpoint's pose head: keypoints, classes, strides.

    Raises:
        CheckpointError: not a YOLOv8 or YOLO11 pose model.
    """
    if checkpoint.kpt_shape is None or checkpoint.model.kind != "PoseModel":
        raise CheckpointError(
            f"{checkpoint.path.name} holds a {checkpoint.model.kind}, which gives no keypoints; "
            "choose a pose checkpoint, such as yolo11n-pose.pt"
        )
    return head_shape(_layers(checkpoint)[-1], checkpoint.kpt_shape)


def build_graph(checkpoint: Checkpoint, precision: Precision = "fp32") -> onnx.ModelProto:
    """Write the graph; `fp16` stores and computes the network in float16, the decoding stays float32.

    Raises:
        CheckpointError: a layer or head is not supported (named in the message), or weights do not fit.
    """
    shape = pose_head(checkpoint)
    layers = _layers(checkpoint)
    graph = GraphBuilder(half=precision == "fp16")
    writer = LayerWriter(graph)
    features: list[Feature] = []
    for layer in layers[:-1]:
        features.append(_write_layer(writer, layer, features))
    levels = [_source(layers[-1], index, features) for index in layers[-1].ints("f")]
    write_head(layers[-1], levels, shape, writer)
    return _finish(graph, checkpoint, shape, precision)


def _layers(checkpoint: Checkpoint) -> list[Module]:
    layers = list(checkpoint.model.child("model").children())
    if len(layers) < 2:
        raise CheckpointError(f"{checkpoint.path.name} holds a model without layers")
    for index, layer in enumerate(layers):
        if layer.get("i", int) != index:
            raise layer.error(f"says it is layer {layer.get('i', int)}")
    return layers


def _write_layer(writer: LayerWriter, layer: Module, features: list[Feature]) -> Feature:
    sources = layer.ints("f")
    if not features:
        if layer.name != "ultralytics.nn.modules.conv.Conv" or sources != (-1,):
            raise layer.error("is not supported as the first layer: only Conv")
        return _write_stem(writer, layer)
    inputs = [_source(layer, index, features) for index in sources]
    if layer.name == "ultralytics.nn.modules.conv.Concat":
        if layer.get("d", int) != 1:
            raise layer.error("is not supported on another axis than channels")
        return writer.concat(inputs, layer.path)
    if len(inputs) != 1:
        raise layer.error(f"reads {len(inputs)} layers instead of one")
    return writer.write(layer, inputs[0])


def _write_stem(writer: LayerWriter, layer: Module) -> Feature:
    """The first convolution, with the step from uint8 RGB rows to scaled planes before it."""
    graph = writer.graph
    # TensorRT wants a uint8 input to be cast before anything else; OpenVINO is as fast either way.
    rows = graph.node("Cast", ["images"], "images", to=graph.float_type)
    planes = graph.node("Transpose", [rows], "images", perm=[0, 3, 1, 2])
    # /255 in two steps: 1/256 is exact in every float type, 256/255 is in the weights.
    planes = graph.node("Mul", [planes, graph.scalar(1 / 256)], "images")
    return writer.conv(layer, Feature(planes, 3), input_scale=256 / 255)


def _source(layer: Module, index: int, features: list[Feature]) -> Feature:
    """What layer `index` gives; -1 is the layer before."""
    if not -1 <= index < len(features):
        raise layer.error(f"reads layer {index}, which does not come before it")
    return features[index]


def _finish(
    graph: GraphBuilder, checkpoint: Checkpoint, shape: HeadShape, precision: Precision
) -> onnx.ModelProto:
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", "height", "width", 3])
    candidates = helper.make_tensor_value_info(
        "candidates", TensorProto.FLOAT, ["batch", CANDIDATES, 5 + 3 * shape.keypoints]
    )
    body = helper.make_graph(graph.nodes, "yolo_pose", [images], [candidates], graph.weights)
    model = helper.make_model(
        body,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="posegate",
    )
    helper.set_model_props(
        model,
        {
            "family": "yolo_pose",
            "source": checkpoint.path.name,
            "sha256": checkpoint.sha256,
            "licence": checkpoint.licence,
            "version": checkpoint.version,
            "kpt_shape": f"[{shape.keypoints}, {shape.values}]",
            "names": ", ".join(checkpoint.names[index] for index in sorted(checkpoint.names)),
            "stride": str(max(shape.strides)),
            "precision": precision,
        },
    )
    try:
        onnx.checker.check_model(model)
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as exc:
        raise CheckpointError(f"{checkpoint.path.name} gives a graph that is not valid: {exc}") from exc
    return model
