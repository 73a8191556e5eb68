"""Skeleton: named keypoints and how they are linked. Links and flips go by name, never by index."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Rgb = tuple[int, int, int]
Laterality = Literal["left", "right", "middle"]
Side = Literal["left", "right"]


@dataclass(frozen=True)
class Keypoint:
    """One named point.

    Attributes:
        name: unique within the skeleton, lower_snake_case for shipped ones.
        sigma: OKS sigma as COCO publishes it (per-keypoint constant is 2σ), None where unpublished.
        color: RGB it is drawn with, None for the colour of its side.
        optional: a model that does not give the point may be used all the same; the point then has
            score 0.
        sources: of a derived point, (name, weight) of the model's points it is the weighted mean
            of; empty for a point that a model gives itself. They are points of the model, never
            derived points of this skeleton, so there are no cycles.
    """

    name: str
    sigma: float | None = None
    color: Rgb | None = None
    optional: bool = False
    sources: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Edge:
    """A line between two keypoints, by name.

    Attributes:
        start: where it starts.
        end: where it ends.
        color: RGB it is drawn with, None for the colour of its side.
        drawing_only: an outline that makes an image readable (a face, for example) and no limb of
            the published skeleton: drawn, but left out of exports.
    """

    start: str
    end: str
    color: Rgb | None = None
    drawing_only: bool = False


@dataclass(frozen=True)
class Instance:
    """One occurrence of the skeleton in a person, for models that name its points differently.

    Attributes:
        side: of a part that a person has twice, such as a hand: the person's own side that this one
            is on; "middle" of a part that a person has once, such as the face. None: the whole person.
        names: (point of this skeleton, point of the model that it is). A point that is not here is
            found as ever: by its own name or from its sources.
    """

    side: Laterality | None = None
    names: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Skeleton:
    """A template of named keypoints. Equal templates have equal hashes, so that plans can be kept.

    Attributes:
        name: its name in a request.
        title: display text.
        keypoints: in the order in which coordinates are reported.
        edges: limbs to draw, in this order.
        flip_pairs: (left, right) names that change places when an image is mirrored.
        instances: what a person has of it in models that name its points otherwise; for a skeleton
            of a part one for each side.
    """

    name: str
    title: str
    keypoints: tuple[Keypoint, ...]
    edges: tuple[Edge, ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] = ()
    instances: tuple[Instance, ...] = ()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # A template may have 1000 points, and a mapping is looked up with every request.
        return hash((self.name, self.title, self.keypoints, self.edges, self.flip_pairs, self.instances))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Keypoint names in order."""
        return tuple(keypoint.name for keypoint in self.keypoints)

    @cached_property
    def order(self) -> dict[str, int]:
        """Position of every keypoint by its name."""
        return {name: index for index, name in enumerate(self.names)}

    @cached_property
    def _sides(self) -> dict[str, Laterality]:
        sides: dict[str, Laterality] = {}
        for left, right in self.flip_pairs:
            sides.setdefault(left, "left")
            sides.setdefault(right, "right")
        return sides

    def index(self, name: str) -> int:
        """Position of the keypoint called `name`; ValueError if there is none."""
        try:
            return self.order[name]
        except KeyError:
            raise ValueError(f"{self.name} has no keypoint {name}") from None

    def side(self, name: str) -> Laterality:
        """The person's own side a keypoint is on, from the flip pairs."""
        return self._sides.get(name, "middle")

    @cached_property
    def flip_index(self) -> tuple[int, ...]:
        """For every keypoint the position of the one it changes places with in a mirror, or its own."""
        flipped = list(range(len(self.keypoints)))
        for left, right in self.flip_pairs:
            flipped[self.order[left]], flipped[self.order[right]] = self.order[right], self.order[left]
        return tuple(flipped)

    @cached_property
    def sigmas(self) -> tuple[float, ...] | None:
        """OKS sigma of every keypoint; None unless all of them are published."""
        known = tuple(point.sigma for point in self.keypoints if point.sigma is not None)
        return known if len(known) == len(self.keypoints) else None
