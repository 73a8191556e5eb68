"""The layers of YOLOv8 and YOLO11, each as a few ONNX nodes.

What a layer computes follows from its class (https://docs.ultralytics.com), its numbers from the checkpoint.
Batch norms are folded into their convolutions. A class that is not in `_LAYERS` is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from service.models.checkpoint import Module
from service.models.errors import CheckpointError
from service.models.graph_builder import Feature, GraphBuilder

MAX_LAYERS = 5_000  # visits of a layer; YOLO11x-pose needs about 400


class LayerWriter:
    """Writes layers into one graph."""

    def __init__(self, graph: GraphBuilder) -> None:
        self.graph = graph
        self._visits = 0

    def write(self, module: Module, x: Feature) -> Feature:
        """Write one layer with one input.

        Raises:
            CheckpointError: its class is not supported, or its weights do not fit.
        """
        self._visits += 1
        if self._visits > MAX_LAYERS:
            raise CheckpointError(f"the model has more than {MAX_LAYERS} layers; it is no YOLO pose model")
        layer = _LAYERS.get(module.name)
        if layer is None:
            raise module.error(f"is not supported: {module.name} is in no YOLOv8 or YOLO11 pose model")
        return layer(self, module, x)

    def concat(self, features: list[Feature], where: str) -> Feature:
        """Features of the same height and width, one after the other."""
        name = self.graph.node("Concat", [f.name for f in features], where, axis=1)
        return Feature(name, sum(f.channels for f in features))

    def convolution(
        self, module: Module, x: Feature, norm: Module | None = None, input_scale: float = 1.0
    ) -> Feature:
        """A Conv2d, with the batch norm after it (if any) and `input_scale` folded into weights and bias."""
        weight = module.tensor("weight").astype(np.float64)  # (out, in / groups, kh, kw)
        bias = module.optional_tensor("bias")
        groups = module.get("groups", int)
        fits = weight.ndim == 4 and groups > 0 and weight.shape[1] * groups == x.channels
        if not fits or weight.shape[0] % groups:
            raise module.error(f"has weights {weight.shape} in {groups} groups, for {x.channels} channels")
        out = weight.shape[0]
        shift = np.zeros(out) if bias is None else bias.astype(np.float64)
        if norm is not None:
            scale, mean, beta = _batch_norm(norm)
            if not shift.shape == scale.shape == mean.shape == beta.shape == (out,):
                raise norm.error(f"does not fit the {out} channels of its convolution")
            weight, shift = weight * scale[:, None, None, None], (shift - mean) * scale + beta
        if shift.shape != (out,):
            raise module.error(f"has a bias of shape {shift.shape} for {out} channels")
        padding = module.pair("padding")
        name = self.graph.node(
            "Conv",
            [
                x.name,
                self.graph.weight(weight * input_scale, f"{module.path}.weight"),
                self.graph.weight(shift, f"{module.path}.bias"),
            ],
            module.path,
            kernel_shape=list(weight.shape[2:]),
            strides=list(module.pair("stride")),
            pads=[*padding, *padding],
            dilations=list(module.pair("dilation")),
            group=groups,
        )
        return Feature(name, out)

    def conv(self, module: Module, x: Feature, input_scale: float = 1.0) -> Feature:
        """Ultralytics' Conv: convolution, batch norm (absent in a fused checkpoint), activation."""
        norm = module.child("bn") if module.has("bn") else None
        y = self.convolution(module.child("conv"), x, norm, input_scale)
        return self.write(module.child("act"), y)

    def _silu(self, module: Module, x: Feature) -> Feature:
        gate = self.graph.node("Sigmoid", [x.name], module.path)
        return Feature(self.graph.node("Mul", [x.name, gate], module.path), x.channels)

    def _relu(self, module: Module, x: Feature) -> Feature:
        return Feature(self.graph.node("Relu", [x.name], module.path), x.channels)

    def _identity(self, module: Module, x: Feature) -> Feature:
        return x

    def _sequential(self, module: Module, x: Feature) -> Feature:
        for child in module.children():
            x = self.write(child, x)
        return x

    def _bottleneck(self, module: Module, x: Feature) -> Feature:
        y = self.write(module.child("cv2"), self.write(module.child("cv1"), x))
        return self._add(x, y, module) if module.get("add", bool) else y

    def _c2f(self, module: Module, x: Feature) -> Feature:
        parts = self._halves(self.write(module.child("cv1"), x), module)
        for block in module.child("m").children():
            parts.append(self.write(block, parts[-1]))
        return self.write(module.child("cv2"), self.concat(parts, module.path))

    def _c2(self, module: Module, x: Feature) -> Feature:
        deep, plain = self._halves(self.write(module.child("cv1"), x), module)
        deep = self.write(module.child("m"), deep)
        return self.write(module.child("cv2"), self.concat([deep, plain], module.path))

    def _c3k(self, module: Module, x: Feature) -> Feature:
        deep = self.write(module.child("m"), self.write(module.child("cv1"), x))
        shallow = self.write(module.child("cv2"), x)
        return self.write(module.child("cv3"), self.concat([deep, shallow], module.path))

    def _sppf(self, module: Module, x: Feature) -> Feature:
        parts = [self.write(module.child("cv1"), x)]
        pools = module.get("n", int, 3)  # from 8.4 on the number of pools is stored; before, it was 3
        if not 1 <= pools <= 16:
            raise module.error("has no usable attribute 'n'")
        for _ in range(pools):
            parts.append(self.write(module.child("m"), parts[-1]))
        y = self.write(module.child("cv2"), self.concat(parts, module.path))
        return self._add(x, y, module) if module.get("add", bool, False) else y

    def _c2psa(self, module: Module, x: Feature) -> Feature:
        plain, attended = self._halves(self.write(module.child("cv1"), x), module)
        attended = self.write(module.child("m"), attended)
        return self.write(module.child("cv2"), self.concat([plain, attended], module.path))

    def _psa_block(self, module: Module, x: Feature) -> Feature:
        add = module.get("add", bool)
        y = self.write(module.child("attn"), x)
        x = self._add(x, y, module) if add else y
        y = self.write(module.child("ffn"), x)
        return self._add(x, y, module) if add else y

    def _attention(self, module: Module, x: Feature) -> Feature:
        """Self-attention over all cells of the map; `pe` is a depthwise convolution of the values."""
        heads, key, head = (module.get(name, int) for name in ("num_heads", "key_dim", "head_dim"))
        qkv = self.write(module.child("qkv"), x)
        fits = heads * head == x.channels and heads * (2 * key + head) == qkv.channels
        if not fits or min(heads, key, head) < 1:
            raise module.error(f"has {heads} heads of {key} and {head}, for {x.channels} channels")
        graph, path = self.graph, module.path
        shape = graph.constant([0, heads, 2 * key + head, -1], np.int64)
        split = graph.constant([key, key, head], np.int64)
        cells = graph.node("Reshape", [qkv.name, shape], path)  # (N, heads, 2 key + head, h w)
        q, k, v = graph.nodes_out("Split", [cells, split], path, 3, axis=2)
        q = graph.node("Mul", [q, graph.scalar(module.get("scale", float, key**-0.5))], path)
        q = graph.node("Transpose", [q], path, perm=[0, 1, 3, 2])
        weights = graph.node("MatMul", [q, k], path)  # (N, heads, to, from)
        weights = graph.node("Softmax", [weights], path, axis=-1)
        weights = graph.node("Transpose", [weights], path, perm=[0, 1, 3, 2])
        y = graph.node("MatMul", [v, weights], path)  # (N, heads, head, h w)
        map_shape = graph.node("Shape", [x.name], path)
        y = graph.node("Reshape", [y, map_shape], path)
        values = Feature(graph.node("Reshape", [v, map_shape], path), x.channels)
        y = self._add(Feature(y, x.channels), self.write(module.child("pe"), values), module).name
        return self.write(module.child("proj"), Feature(y, x.channels))

    def _max_pool(self, module: Module, x: Feature) -> Feature:
        padding = module.pair("padding")
        if module.pair("dilation") != (1, 1) or module.get("ceil_mode", bool, False):
            raise module.error("is not supported with dilation or ceil_mode")
        name = self.graph.node(
            "MaxPool",
            [x.name],
            module.path,
            kernel_shape=list(module.pair("kernel_size")),
            strides=list(module.pair("stride")),
            pads=[*padding, *padding],
        )
        return Feature(name, x.channels)

    def _upsample(self, module: Module, x: Feature) -> Feature:
        scale = module.get("scale_factor", float)
        if module.get("mode", str) != "nearest" or not 1 <= scale <= 8 or scale % 1:
            raise module.error("is not supported: only nearest neighbours by a whole factor")
        scales = self.graph.constant([1, 1, scale, scale], np.float32)
        name = self.graph.node(
            "Resize",
            [x.name, "", scales],
            module.path,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        return Feature(name, x.channels)

    def _add(self, x: Feature, y: Feature, module: Module) -> Feature:
        if x.channels != y.channels:
            raise module.error(f"adds {x.channels} and {y.channels} channels")
        return Feature(self.graph.node("Add", [x.name, y.name], module.path), x.channels)

    def _halves(self, x: Feature, module: Module) -> list[Feature]:
        if x.channels % 2:
            raise module.error(f"halves {x.channels} channels")
        split = self.graph.constant([x.channels // 2] * 2, np.int64)
        names = self.graph.nodes_out("Split", [x.name, split], module.path, 2, axis=1)
        return [Feature(name, x.channels // 2) for name in names]


def _batch_norm(module: Module) -> tuple[npt.NDArray[np.float64], ...]:
    """Scale, mean and shift of a batch norm: y = (x − mean) · scale + shift."""
    if module.kind != "BatchNorm2d":
        raise module.error("is not supported: only BatchNorm2d")
    variance, mean, gamma, beta = (
        module.tensor(name).astype(np.float64) for name in ("running_var", "running_mean", "weight", "bias")
    )
    spread = variance + module.get("eps", float)
    if not (spread > 0).all() or gamma.shape != spread.shape:
        raise module.error("has a variance that is not positive; the training run went wrong")
    return gamma / np.sqrt(spread), mean, beta


_Layer = Callable[[LayerWriter, Module, Feature], Feature]
_LAYERS: dict[str, _Layer] = {
    "ultralytics.nn.modules.conv.Conv": LayerWriter.conv,
    "ultralytics.nn.modules.conv.DWConv": LayerWriter.conv,
    "ultralytics.nn.modules.block.Bottleneck": LayerWriter._bottleneck,
    "ultralytics.nn.modules.block.C2": LayerWriter._c2,  # P6 models
    "ultralytics.nn.modules.block.C2f": LayerWriter._c2f,
    "ultralytics.nn.modules.block.C3k2": LayerWriter._c2f,
    "ultralytics.nn.modules.block.C3k": LayerWriter._c3k,
    "ultralytics.nn.modules.block.SPPF": LayerWriter._sppf,
    "ultralytics.nn.modules.block.C2PSA": LayerWriter._c2psa,
    "ultralytics.nn.modules.block.PSABlock": LayerWriter._psa_block,
    "ultralytics.nn.modules.block.Attention": LayerWriter._attention,
    "torch.nn.modules.conv.Conv2d": LayerWriter.convolution,
    "torch.nn.modules.container.Sequential": LayerWriter._sequential,
    "torch.nn.modules.pooling.MaxPool2d": LayerWriter._max_pool,
    "torch.nn.modules.upsampling.Upsample": LayerWriter._upsample,
    "torch.nn.modules.activation.SiLU": LayerWriter._silu,
    "torch.nn.modules.activation.ReLU": LayerWriter._relu,
    "torch.nn.modules.linear.Identity": LayerWriter._identity,
}
