"""Skeletons of requests as domain objects."""

from __future__ import annotations

import numpy as np

from posegate.v1 import skeleton_service_pb2 as pb
from service.core.skeleton.colors import parse_color
from service.core.skeleton.template import Edge, Keypoint, Rgb, Skeleton
from service.core.skeleton.validation import checked, refuse, shown
from service.errors import InvalidRequest, Violation


def read_skeleton(message: pb.Skeleton, path: str = "") -> Skeleton:
    """Read and check a skeleton, names in NFC; fields that the service sets are ignored.

    Args:
        message: the skeleton.
        path: prefix of its fields within the request, such as `skeleton.`.

    Raises:
        InvalidRequest: with every violation.
    """
    colors = _Colors()
    skeleton = Skeleton(
        name=message.name,
        title=message.title,
        keypoints=tuple(
            Keypoint(
                name=point.name,
                sigma=_shortest(point.sigma) if point.HasField("sigma") else None,
                color=colors.read(f"keypoints[{index}].color", point.color),
                optional=point.optional,
                sources=tuple(
                    (source.name, _shortest(source.weight) if source.HasField("weight") else 1.0)
                    for source in point.sources
                ),
            )
            for index, point in enumerate(message.keypoints)
        ),
        edges=tuple(
            Edge(edge.start, edge.end, colors.read(f"edges[{index}].color", edge.color))
            for index, edge in enumerate(message.edges)
        ),
        flip_pairs=tuple((pair.left, pair.right) for pair in message.flip_pairs),
    )
    problems = colors.problems
    try:
        skeleton = checked(skeleton)
    except InvalidRequest as error:
        problems = [*problems, *error.violations]
    refuse(message.name, [Violation(f"{path}{item.field}", item.description) for item in problems])
    return skeleton


class _Colors:
    """Reads colours, and collects violations for invalid ones."""

    def __init__(self) -> None:
        self.problems: list[Violation] = []

    def read(self, field: str, text: str) -> Rgb | None:
        color = parse_color(text)
        if text and color is None:
            self.problems.append(Violation(field, f"must be #RRGGBB, not {shown(text)}"))
        return color


def _shortest(number: float) -> float:
    """The shortest decimal of a float32: a message holds 0.079 as 0.07900000363588333."""
    return float(str(np.float32(number)))
