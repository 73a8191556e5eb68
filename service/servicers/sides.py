"""Sides: enum values of the contract to names of the domain, and back."""

from __future__ import annotations

from posegate.v1 import types_pb2
from service.core.angles import SideSelection

SIDES: dict[str, types_pb2.Side.ValueType] = {
    "": types_pb2.SIDE_UNSPECIFIED,
    "left": types_pb2.SIDE_LEFT,
    "right": types_pb2.SIDE_RIGHT,
}
"""Side of a part of a person, by the domain's name; empty for a whole person."""

SIDE_NAMES: dict[int, str] = {side: name for name, side in SIDES.items()}
"""The inverse; BOTH is no side of a part."""

SIDE_SELECTIONS: dict[int, SideSelection] = {
    types_pb2.SIDE_UNSPECIFIED: "both",
    types_pb2.SIDE_BOTH: "both",
    types_pb2.SIDE_LEFT: "left",
    types_pb2.SIDE_RIGHT: "right",
}
"""Sides to measure."""
