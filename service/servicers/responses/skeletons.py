"""Skeletons as protobuf messages."""

from __future__ import annotations

from posegate.v1 import skeleton_service_pb2 as pb
from service.core.skeleton.colors import color_text
from service.core.skeleton.template import Skeleton


def skeleton_message(skeleton: Skeleton) -> pb.Skeleton:
    """A skeleton, without what the service sets."""
    return pb.Skeleton(
        name=skeleton.name,
        title=skeleton.title,
        keypoints=[
            pb.SkeletonKeypoint(
                name=point.name,
                color=color_text(point.color) if point.color else "",
                sigma=point.sigma,
                optional=point.optional,
                sources=[pb.KeypointSource(name=name, weight=weight) for name, weight in point.sources],
            )
            for point in skeleton.keypoints
        ],
        edges=[
            pb.SkeletonEdge(
                start=edge.start, end=edge.end, color=color_text(edge.color) if edge.color else ""
            )
            for edge in skeleton.edges
        ],
        flip_pairs=[pb.FlipPair(left=left, right=right) for left, right in skeleton.flip_pairs],
    )
