"""Skeleton: named keypoints and how they are linked. Links and flips go by name, never by index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Rgb = tuple[int, int, int]
Side = Literal["left", "right", "middle"]


@dataclass(frozen=True)
class Keypoint:
    """One named point.

    Attributes:
        name: unique within the skeleton, lower_snake_case for shipped ones.
        sigma: OKS sigma as COCO publishes it (per-keypoint constant is 2σ), None where unpublished.
        color: RGB it is drawn with, None for the colour of its side.
        optional: a model that does not give the point may be used all the same; the point then has
            score 0.
        sources: of a derived point, (name, weight) of the points it is the weighted mean of; empty
            for a point that a model gives itself.
    """

    name: str
    sigma: float | None = None
    color: Rgb | None = None
    optional: bool = False
    sources: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Edge:
    """A limb between two keypoints, by name."""

    start: str
    end: str
    color: Rgb | None = None


@dataclass(frozen=True)
class Skeleton:
    """A template of named keypoints.

    Attributes:
        name: what a request names it by.
        title: what a person reads.
        keypoints: in the order in which coordinates are reported.
        edges: limbs to draw.
        flip_pairs: (left, right) names that change places when a picture is mirrored.
    """

    name: str
    title: str
    keypoints: tuple[Keypoint, ...]
    edges: tuple[Edge, ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Keypoint names in order."""
        return tuple(keypoint.name for keypoint in self.keypoints)

    def index(self, name: str) -> int:
        """Position of the keypoint called `name`; ValueError if there is none."""
        return self.names.index(name)

    def side(self, name: str) -> Side:
        """The person's own side a keypoint is on, from the flip pairs."""
        for left, right in self.flip_pairs:
            if name == left:
                return "left"
            if name == right:
                return "right"
        return "middle"
