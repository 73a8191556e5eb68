"""Shapes of inputs: free dims filled, sizes compared, arrays padded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]
ItemShapes = tuple[Shape, ...]  # of one item of every input
Array = NDArray[Any]


def fill(dims: Shape, values: Shape) -> Shape:
    """`dims` with its free dims set to `values` in order."""
    remaining = iter(values)
    return tuple(next(remaining) if dim == -1 else dim for dim in dims)


def format_shape(shape: Shape) -> str:
    """(384, 640) as "384x640"."""
    return "x".join(map(str, shape))


def holds(larger: ItemShapes, smaller: ItemShapes) -> bool:
    """Whether inputs of the smaller shapes fit into the larger ones."""
    return all(
        len(large) == len(small) and all(a >= b for a, b in zip(large, small, strict=True))
        for large, small in zip(larger, smaller, strict=True)
    )


def size_of(shapes: ItemShapes) -> int:
    """Number of elements of all inputs."""
    return sum(math.prod(shape) for shape in shapes)


def padded(array: Array, shape: Shape, value: int | None) -> Array:
    """The array at the start of every axis of a larger one, the rest filled with `value`."""
    if array.shape == shape:
        return array
    larger = np.full(shape, value or 0, array.dtype)
    larger[tuple(map(slice, array.shape))] = array
    return larger
