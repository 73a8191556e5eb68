"""RTMW and RTMW3D in their full architecture, with random weights, as mmdeploy exports them.

CSPNeXt (RTMDet's backbone), CSPNeXtPAFPN, and the head with its gated attention unit, after mmdet and mmpose
(both Apache-2.0). Norms are folded into the convolutions, as in an exported file; the batch is 1.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.models.simcc_networks import (
    HEIGHT,
    KEYPOINTS,
    NAMES_2D,
    NAMES_3D,
    WIDTH,
    X_BINS,
    Y_BINS,
    Z_BINS,
    Graph,
)

STAGES = ((64, 128, 3), (128, 256, 6), (256, 512, 6), (512, 1024, 3))  # channels in and out, blocks
GAU, GAU_KEY, GAU_EXPANDED = 256, 128, 512


def rtmw(*, widen: float = 1.25, deepen: float = 1.33, three: bool = True) -> onnx.ModelProto:
    """The network of 384×288 px; by default of size x. `three` is RTMW3D, else RTMW."""
    net = _Net(widen, deepen)
    small, middle, large = net.neck(*net.backbone("input"))
    del small
    tokens = net.head(middle, large)
    outputs = (
        list(zip(NAMES_3D, (X_BINS, Y_BINS, Z_BINS), strict=True))
        if three
        else list(zip(NAMES_2D, (X_BINS, Y_BINS), strict=True))
    )
    for name, bins in outputs:
        net.graph.node("MatMul", [tokens, net.weight(GAU, bins)], output=name)
    return net.graph.model(1, [(name, [KEYPOINTS, bins]) for name, bins in outputs])


class _Net:
    def __init__(self, widen: float, deepen: float) -> None:
        self.graph = Graph(17)
        self._rng = np.random.default_rng(0)
        self._widen, self._deepen = widen, deepen
        self._channels: dict[str, int] = {"input": 3}

    def weight(self, *shape: int, fan_in: int = 0) -> str:
        spread = np.sqrt(2 / (fan_in or shape[0]))
        return self._constant(self._rng.standard_normal(shape, np.float32) * np.float32(spread))

    def backbone(self, picture: str) -> tuple[str, str, str]:
        """Features at 1/8, 1/16 and 1/32."""
        first = int(STAGES[0][0] * self._widen)
        x = self.conv(self.conv(picture, first // 2, 3, stride=2), first // 2, 3)
        x = self.conv(x, first, 3)
        found = []
        for index, (_, out, blocks) in enumerate(STAGES):
            out = int(out * self._widen)
            x = self.conv(x, out, 3, stride=2)
            last = index == len(STAGES) - 1
            if last:
                x = self.pooled_pyramid(x, out)
            count = max(round(blocks * self._deepen), 1)
            x = self.csp(x, out, count, shortcut=not last, attention=True)
            found.append(x)
        return found[1], found[2], found[3]

    def neck(self, small: str, middle: str, large: str) -> tuple[str, str, str]:
        inner = [large]
        for low in (middle, small):
            high = self.conv(inner[0], self._channels[low], 1)
            inner[0] = high
            scales = self._constant(np.array([1, 1, 2, 2], np.float32))
            up = self._keep(
                self.graph.node(
                    "Resize", [high, "", scales], mode="nearest",
                    coordinate_transformation_mode="asymmetric", nearest_mode="floor",
                ),
                self._channels[high],
            )  # fmt: skip
            inner.insert(0, self.csp(self.concat(up, low), self._channels[low], 2))
        outs = [inner[0]]
        for high, whole in zip(inner[1:], (middle, large), strict=True):
            down = self.conv(outs[-1], self._channels[outs[-1]], 3, stride=2)
            outs.append(self.csp(self.concat(down, high), self._channels[whole], 2))
        return outs[0], outs[1], outs[2]

    def head(self, middle: str, large: str) -> str:
        """(1, K, 256): one token for each keypoint."""
        rows, columns = HEIGHT // 32, WIDTH // 32
        top = self.conv(large, KEYPOINTS, 7, act="Relu")
        shuffled = self._keep(
            self.graph.node("DepthToSpace", [large], blocksize=2, mode="CRD"), self._channels[large] // 4
        )
        fine = self.conv(shuffled, self._channels[large] // 4, 7, act="Relu")
        fine = self.conv(self.concat(fine, middle), KEYPOINTS, 7, act="Relu")
        tokens = [
            self._dense(self._scale_norm(self._flat(maps, size)), size, GAU // 2)
            for maps, size in ((top, rows * columns), (fine, 4 * rows * columns))
        ]
        return self._attention(self.graph.node("Concat", tokens, axis=2))

    def csp(self, x: str, out: int, count: int, *, shortcut: bool = False, attention: bool = False) -> str:
        half = out // 2
        main, short = self.conv(x, half, 1), self.conv(x, half, 1)
        for _ in range(count):
            made = self.conv(self.conv(main, half, 3), half, 5, depthwise=True)
            made = self.conv(made, half, 1)
            main = self._keep(self.graph.node("Add", [made, main]), half) if shortcut else made
        x = self.concat(main, short)
        if attention:
            pooled = self._keep(self.graph.node("GlobalAveragePool", [x]), 2 * half)
            gate = self.graph.node("HardSigmoid", [self.conv(pooled, 2 * half, 1, act="")], alpha=1 / 6)
            x = self._keep(self.graph.node("Mul", [x, gate]), 2 * half)
        return self.conv(x, out, 1)

    def pooled_pyramid(self, x: str, out: int) -> str:
        x = self.conv(x, out // 2, 1)
        pools = [
            self._keep(
                self.graph.node("MaxPool", [x], kernel_shape=[k, k], pads=[k // 2] * 4, strides=[1, 1]),
                out // 2,
            )
            for k in (5, 9, 13)
        ]
        return self.conv(self.concat(x, *pools), out, 1)

    def conv(
        self, x: str, out: int, kernel: int, *, stride: int = 1, act: str = "SiLU", depthwise: bool = False
    ) -> str:
        given = self._channels[x]
        weight = (out, 1 if depthwise else given, kernel, kernel)
        inputs = [x, self.weight(*weight, fan_in=prod(weight[1:])), self._constant(np.zeros(out, np.float32))]
        group = given if depthwise else 1
        x = self.graph.node("Conv", inputs, pads=[kernel // 2] * 4, strides=[stride] * 2, group=group)
        if act == "SiLU":
            x = self.graph.node("Mul", [x, self.graph.node("Sigmoid", [x])])
        elif act:
            x = self.graph.node(act, [x])
        return self._keep(x, out)

    def concat(self, *parts: str) -> str:
        joined = self.graph.node("Concat", list(parts), axis=1)
        return self._keep(joined, sum(self._channels[part] for part in parts))

    def _attention(self, tokens: str) -> str:
        """The gated attention unit, with what is added to it."""
        graph = self.graph
        wide = self._silu(self._dense(self._scale_norm(tokens), GAU, 2 * GAU_EXPANDED + GAU_KEY))
        u, v, base = (
            self._slice(wide, 2, start, stop)
            for start, stop in (
                (0, GAU_EXPANDED),
                (GAU_EXPANDED, 2 * GAU_EXPANDED),
                (2 * GAU_EXPANDED, 2 * GAU_EXPANDED + GAU_KEY),
            )
        )
        axis = self._constant(np.array([2], np.int64))
        spread = graph.node("Mul", [graph.node("Unsqueeze", [base, axis]), self.weight(1, 1, 2, GAU_KEY)])
        spread = graph.node("Add", [spread, self.weight(2, GAU_KEY)])
        query, key = (
            graph.node("Squeeze", [self._slice(spread, 2, index, index + 1), axis]) for index in (0, 1)
        )
        product = graph.node("MatMul", [query, graph.node("Transpose", [key], perm=[0, 2, 1])])
        positive = graph.node("Relu", [graph.node("Div", [product, self._number(np.sqrt(GAU_KEY))])])
        mixed = graph.node("MatMul", [graph.node("Mul", [positive, positive]), v])
        gated = self._dense(graph.node("Mul", [u, mixed]), GAU_EXPANDED, GAU)
        return graph.node("Add", [gated, graph.node("Mul", [tokens, self.weight(GAU)])])

    def _scale_norm(self, x: str) -> str:
        norm = self.graph.node("ReduceL2", [x], axes=[2], keepdims=1)
        norm = self.graph.node(
            "Clip", [self.graph.node("Mul", [norm, self._number(0.1)]), self._number(1e-5)]
        )
        return self.graph.node("Mul", [self.graph.node("Div", [x, norm]), self._number(1.0)])

    def _silu(self, x: str) -> str:
        return self.graph.node("Mul", [x, self.graph.node("Sigmoid", [x])])

    def _dense(self, x: str, given: int, out: int) -> str:
        return self.graph.node("MatMul", [x, self.weight(given, out)])

    def _flat(self, maps: str, size: int) -> str:
        shape = self._constant(np.array([1, KEYPOINTS, size], np.int64))
        return self.graph.node("Reshape", [maps, shape])

    def _slice(self, x: str, axis: int, start: int, stop: int) -> str:
        limits = [self._constant(np.array([value], np.int64)) for value in (start, stop, axis)]
        return self.graph.node("Slice", [x, *limits])

    def _number(self, value: float) -> str:
        return self._constant(np.array(value, np.float32))

    def _constant(self, value: NDArray[Any]) -> str:
        return self.graph.constant(value)

    def _keep(self, name: str, channels: int) -> str:
        self._channels[name] = channels
        return name
